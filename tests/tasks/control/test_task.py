"""The task: data, presets, scenarios, references, checks; and no torch anywhere."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from ganglion import registry
from ganglion.core import metrics
from ganglion.core.contracts import Task
from ganglion.core.errors import DataError, SettingsError
from ganglion.tasks.control.config import Config
from ganglion.tasks.control.task import Control

VARIANTS = [{"problem": {"target": "moving"}}, {"problem": {"target": "rest"}},
            {"problem": "vanderpol"}]  # fmt: skip


def make(*layers: dict[str, object], preset: str = "standard") -> Control:
    return Control(registry.resolve("control", preset, list(layers)))  # type: ignore[arg-type]


def generate(task: Control, count: int = 60) -> dict[str, np.ndarray]:
    return dict(task.generate(count, "test", np.random.default_rng(5)))


@pytest.mark.parametrize("layer", VARIANTS)
def test_generated_data_pass_their_own_check(layer: dict[str, object]) -> None:
    task = make(layer)
    assert isinstance(task, Task)
    arrays = generate(task)
    task.check(arrays)
    assert set(arrays) == set(task.units)
    n = task.plant.num_steps
    assert arrays["controls"].shape == (60, n, 1)
    assert arrays["states"].shape == (60, n + 1, 2)
    assert arrays["cost"].dtype == np.float64
    assert arrays["state"].dtype == np.float32


def test_equal_streams_give_equal_bytes() -> None:
    task = make(VARIANTS[0])
    first, second = generate(task), generate(task)
    assert all(first[k].tobytes() == second[k].tobytes() for k in first)


def test_clipped_lqr_labels_are_the_originals_and_cost_more() -> None:
    task = make({"labels": "clipped_lqr"}, VARIANTS[0])
    arrays = generate(task)
    task.check(arrays)
    # u_0 = clip(-K e_0): where the gain asks for more than 4, the label is the bound
    assert (np.abs(arrays["controls"]) == 4).any()
    with pytest.raises(DataError, match="controls are not optimal; their cost: at \\[0\\]"):
        make(VARIANTS[0]).check(arrays)


def test_imported_labels_cannot_be_generated() -> None:
    with pytest.raises(SettingsError, match="labels=imported is for data from a file"):
        generate(make({"labels": "imported"}))


def test_check_names_the_first_fault_by_key_and_index() -> None:
    task = make(VARIANTS[0])
    good = generate(task, 10)

    def spoiled(name: str, index: tuple[int, ...], value: float) -> dict[str, np.ndarray]:
        out = {k: v.copy() for k, v in good.items()}
        out[name][index] = value
        return out

    with pytest.raises(DataError, match=r"controls\[3, 2, 0\] is nan, not a finite number"):
        task.check(spoiled("controls", (3, 2, 0), np.nan))
    with pytest.raises(DataError, match=r"controls\[1, 0, 0\] is 4.5, beyond the bound 4"):
        task.check(spoiled("controls", (1, 0, 0), 4.5))
    with pytest.raises(DataError, match=r"states do not follow .* at \[2, 7, 1\] 9"):
        task.check(spoiled("states", (2, 7, 1), 9.0))
    with pytest.raises(DataError, match=r"cost is not the exact optimum: at \[4\] 1"):
        task.check(spoiled("cost", (4,), 1.0))
    with pytest.raises(DataError, match="no array 'cost'"):
        task.check({k: v for k, v in good.items() if k != "cost"})
    with pytest.raises(DataError, match=r"target has shape \(10, 1\); \(10, 2\) was expected"):
        task.check({**good, "target": good["target"][:, :1]})


@pytest.mark.parametrize("layer", VARIANTS)
def test_every_scenario_builds_a_task_that_scores_its_references(layer: dict[str, object]) -> None:
    task = make(layer)
    cases = generate(task, 6)
    assert next(iter(task.scenarios)) == "nominal"
    for name, overrides in task.scenarios.items():
        settings = registry.override("control", task.settings, overrides)
        other = Control(settings)  # type: ignore[arg-type]
        assert other.plant.dt == pytest.approx(task.plant.dt), name
        same = settings.world() == task.settings.world()
        rows = other.evaluate(
            other.references()["lqr"], cases if same else generate(other, 6),
            np.random.default_rng(0),
        )  # fmt: skip
        assert all(m.name in rows and len(rows[m.name]) == 6 for m in task.metrics)
        assert metrics.mean(rows, task.goal) > -1e-9 or "noise" in name


def test_scenarios_of_the_plant_as_it_is_keep_the_data() -> None:
    task = make({"problem": "vanderpol"})
    keep = {n for n, o in task.scenarios.items() if all(k.startswith("evaluation.") for k in o)}
    assert keep == {"nominal", "noise_0.02", "gain_0.8", "gain_1.2", "mu_0.8", "mu_1.2"}


def test_presets_choose_the_policy_by_the_problem() -> None:
    assert make(VARIANTS[0]).settings.model.kind == "trc"
    assert make(VARIANTS[1]).settings.model.kind == "feedback"
    assert make(VARIANTS[2]).settings.model.kind == "feedback"
    named = make({"problem": "vanderpol"}, {"model": "trc"}).settings.model
    assert (named.kind, named.form) == ("trc", "single")  # type: ignore[union-attr]
    assert make().settings.loss.kind == "cost"


@pytest.mark.parametrize(
    ("name", "epochs", "patience"), [("guide20", 20, 20), ("guide", 100, 20), ("guide200", 200, 30)]
)
def test_guide_presets_hold_the_guides_defaults(name: str, epochs: int, patience: int) -> None:
    cfg = make(preset=name).settings
    assert (cfg.train.epochs, cfg.train.patience, cfg.train.steps) == (epochs, patience, None)
    assert (cfg.data.train, cfg.data.test, cfg.data.seed) == (10_000, 1_000, 42)
    assert (cfg.train.batch_size, cfg.optim.lr, cfg.optim.schedule) == (64, 1e-3, "cosine")
    assert (cfg.loss.kind, cfg.model.kind) == ("imitation", "trc")
    assert cfg.model.size == "medium"  # type: ignore[union-attr]


def test_the_preconditioned_form_is_refused_for_nonlinear_plants() -> None:
    with pytest.raises(SettingsError, match="preconditioned is for linear plants"):
        make({"problem": "vanderpol"}, {"model": {"kind": "trc", "form": "preconditioned"}})


def test_mismatch_is_refused_where_nothing_is_uncertain() -> None:
    with pytest.raises(SettingsError, match="double_integrator has no uncertain parameter"):
        make({"evaluation": {"mismatch": 0.8}})


def test_every_setting_of_the_task_says_what_it_does() -> None:
    from ganglion.core.settings import describe

    assert all(len(row.help) > 15 for row in describe(Config) if not row.name.endswith(".kind"))


def test_horizon_and_start_box_are_part_of_the_world_and_noise_is_not() -> None:
    base = make().settings
    worlds = [
        registry.override("control", base, o).world()
        for o in ({"problem.num_steps": 7}, {"problem.start_scale": 2.0}, {"labels": "clipped_lqr"})
    ]
    assert all(w != base.world() for w in worlds)
    noisy = registry.override("control", base, {"evaluation.process_noise": 0.1})
    assert noisy.world() == base.world()


def test_references_differ_by_plant() -> None:
    linear = set(make().references())
    assert linear == {"oracle", "lqr", "lqr_steady", "zero", "random", "admm_5", "admm_10",
                      "admm_20"}  # fmt: skip
    assert set(make({"problem": "vanderpol"}).references()) == linear - {
        "admm_5", "admm_10", "admm_20",
    }  # fmt: skip


def test_the_task_does_not_import_torch() -> None:
    code = (
        "import sys, numpy as np; from ganglion import registry; "
        "t = registry.make('control', registry.resolve('control')); "
        "c = t.generate(4, 'test', np.random.default_rng(0)); "
        "t.evaluate(t.references()['lqr'], c, np.random.default_rng(0)); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
