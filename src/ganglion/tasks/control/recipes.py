"""What each preset sets, by problem and model: settings that were measured to work.

The figures are in benchmarks/RESULTS.md. No torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ganglion.core.settings import combine

GUIDE = {"guide20": (20, 20), "guide": (100, 20), "guide200": (200, 30)}  # epochs, patience


def guide(name: str) -> Mapping[str, Any]:
    """Return the layer of one of the original guide's runs."""
    return _guide(*GUIDE[name])


def layer(name: str, said: Mapping[str, Any], brought: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what preset `name` sets where so much is said; an installed problem's own, `brought`.

    Model and recipe follow from the problem.
    """
    imitates = str(said.get("loss", {}).get("kind", "cost")).startswith("imitation")
    labelled = {"data": {"fresh": False}} if imitates else {}
    return combine([_chosen(name, said, brought), labelled])


def _chosen(name: str, said: Mapping[str, Any], brought: Mapping[str, Any] | None) -> Any:
    problem, model = said.get("problem", {}), said.get("model", {})
    chosen = problem.get("kind", "double_integrator")
    if chosen == "rocket_landing":
        return _layer(_ROCKET, name)
    nonlinear = chosen != "double_integrator"
    moving = not nonlinear and problem.get("target") == "moving"
    kind = model.get("kind", "trc" if moving else "feedback")
    if kind == "feedback":
        if brought is not None:
            return combine([_layer(_BROUGHT, name), brought])
        recipe = _FEEDBACK_RECIPES.get(chosen, _FEEDBACK)  # a wrong kind is told later
        return _layer(recipe, name)
    linear = {"form": "preconditioned", "size": "tiny"}
    shape = {"form": "single", "size": "small"} if nonlinear else linear
    found = _layer(_TRC if kind == "trc" else _MLP, name)
    counts = {"data": _FEW} if chosen in _COSTLY else {}
    return {**found, **counts, "model": {"kind": kind, **(shape if kind == "trc" else {})}}


@dataclass(frozen=True)
class _Recipe:
    """Settings that were measured to work, and the steps of each preset (benchmarks/RESULTS.md)."""

    steps: Mapping[str, int]
    settings: Mapping[str, Any]


_FEEDBACK = _Recipe(
    {"quick": 3_000, "standard": 5_000, "max": 20_000},
    {
        "model": {"kind": "feedback"},
        "loss": {"kind": "cost", "full_horizon_share": 1.0},
        "train": {"batch_size": 128, "ema": 0.99},
        "optim": {"lr": 1e-2, "betas": [0.9, 0.99], "warmup_steps": 100},
    },
)
_VANDERPOL = _Recipe(
    {"quick": 700, "standard": 1_300, "max": 6_000},
    {
        "model": {"kind": "feedback", "hidden": [64, 64]},
        "loss": {"kind": "cost", "full_horizon_share": 1.0},
        "train": {"batch_size": 64, "ema": 0.98},
        "optim": {"lr": 2e-2, "betas": [0.9, 0.99], "warmup_steps": 50},
    },
)
_TRC = _Recipe(
    {"quick": 2_500, "standard": 4_000, "max": 20_000},
    {
        "loss": {"kind": "cost", "full_horizon_share": 0.5, "discount": 0.7},
        "train": {"batch_size": 512},
        "optim": {"lr": 3e-3, "warmup_steps": 100},
    },
)
_MLP = _Recipe(
    {"quick": 3_000, "standard": 8_000, "max": 30_000},
    {
        "loss": {"kind": "cost", "full_horizon_share": 0.5},
        "train": {"batch_size": 256},
        "optim": {"lr": 2e-3, "warmup_steps": 100},
    },
)
_ROCKET = _Recipe(
    {"quick": 700, "standard": 2_000, "max": 20_000},
    {
        "model": {"kind": "plan"},
        "loss": {"kind": "fuel"},
        "data": {"validation": 100, "test": 250, "shard": 50},
        "train": {"batch_size": 128, "ema": 0.99},
        "optim": {"lr": 2e-3, "betas": [0.9, 0.99], "warmup_steps": 50},
    },
)


_FEW = {"validation": 200, "test": 200}  # their optimum takes seconds, not milliseconds
_BROUGHT = _Recipe(  # of an installed plant, unless it says otherwise
    {"quick": 500, "standard": 1_150, "max": 6_000},
    {
        "model": {"kind": "feedback", "hidden": [64, 64]},
        # 20: without it one loop that tips over hides all others, at 3 hard cases are neglected
        "loss": {"kind": "cost", "full_horizon_share": 1.0, "case_clip": 20.0},
        "data": _FEW,
        "train": {"batch_size": 64, "ema": 0.99},
        "optim": {"lr": 8e-3, "betas": [0.9, 0.99], "warmup_steps": 50},
    },
)
_DEEP = {"kind": "feedback", "hidden": [48, 48, 48, 48]}  # switching curves want depth
_PENDULUM = _Recipe(
    {"quick": 1_500, "standard": 4_000, "max": 12_000},
    {
        "model": _DEEP,
        "loss": {
            "kind": "actor_critic", "critic": "grid", "window": 4, "trajectories": 512,
            # most of what is lost, is lost in the first second: begin anew often
            "renewal": 0.1, "leak": 0.3, "refine_share": 0.0,
            # the few that end too late: seek them, and let lateness count
            "mine_every": 50, "restarts": 0.3, "settling": 30.0,
        },
        "data": _FEW,
        "train": {"ema": 0.995},
        "optim": {"lr": 1e-2, "betas": [0.9, 0.99], "warmup_steps": 100},
    },
)  # fmt: skip
_CARTPOLE = _Recipe(
    {"quick": 2_000, "standard": 6_000, "max": 16_000},
    {
        "model": _DEEP,
        "loss": {"kind": "dagger", "rounds": 16},
        "data": _FEW,
        "train": {"batch_size": 1_024, "ema": 0.995},
        "optim": {"lr": 5e-3, "betas": [0.9, 0.99], "warmup_steps": 100},
    },
)
_QUADROTOR = _Recipe(
    {"quick": 1_500, "standard": 4_000, "max": 16_000},
    {**_CARTPOLE.settings, "loss": {"kind": "dagger", "spread": 1.2}},
)
_FEEDBACK_RECIPES = {
    "double_integrator": _FEEDBACK,
    "vanderpol": _VANDERPOL,
    "pendulum": _PENDULUM,
    "cartpole": _CARTPOLE,
    "quadrotor2d": _QUADROTOR,
}
_COSTLY = ("pendulum", "cartpole", "quadrotor2d")


def _layer(recipe: _Recipe, preset: str) -> dict[str, Any]:
    train = {**recipe.settings["train"], "steps": recipe.steps[preset]}
    return {**recipe.settings, "train": train}


def _guide(epochs: int, patience: int) -> dict[str, Any]:
    return {
        "problem": {"kind": "double_integrator", "target": "moving"},
        "model": {"kind": "trc", "form": "two_level", "size": "medium"},
        "loss": {"kind": "imitation"},
        "data": {"train": 10_000, "test": 1_000, "seed": 42, "fresh": False},
        # average, warm-up and a low clip calm the spikes that the guide's rate has here
        "train": {"epochs": epochs, "batch_size": 64, "patience": patience, "ema": 0.995},
        "optim": {"lr": 1e-3, "schedule": "cosine", "warmup_steps": 300, "clip_norm": 0.1},
    }
