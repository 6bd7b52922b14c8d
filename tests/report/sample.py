"""A realistic report for the tests: a control task with oracle, baselines, curves and an export."""

from __future__ import annotations

import hashlib
import io
import math
from typing import Any

import numpy as np
from PIL import Image


def estimate(value: float, spread: float, unit: str, better: str = "lower") -> dict[str, Any]:
    return {"value": value, "low": value - spread, "high": value + 0.9 * spread, "unit": unit,
            "better": better, "cases": 1000}  # fmt: skip


def policy(name: str, kind: str, gap: float, success: float, **more: Any) -> dict[str, Any]:
    metrics = {
        "gap": estimate(gap, 0.12 * gap, "%"),
        "success": estimate(success, 0.02 * (1 - success) + 1e-4, "%", "higher"),
        "error": estimate(0.021 + 0.3 * gap, 0.002, "m"),
        "effort": estimate(4.31 - 0.05 * gap, 0.11, "m²/s³"),
        "violation": estimate(0.0 if gap < 0.1 else gap / 9, gap / 50, "1"),
    }
    digest = hashlib.sha256(name.encode()).hexdigest()
    return {"name": name, "kind": kind, "digest": digest, "metrics": metrics,
            "efficiency": None, **more}  # fmt: skip


def efficiency(parameters: int | None, p50: float) -> dict[str, Any]:
    return {"parameters": parameters,
            "file_bytes": 4 * (parameters or 0) + 31_200,
            "peak_memory_bytes": 46_300_000, 
            "latency_us": {"p50": p50, "p99": 2.3 * p50}}  # fmt: skip


def policies(worse: float = 1.0) -> list[dict[str, Any]]:
    return [
        policy("brisk-heron", "run", 6.1e-5 * worse, 0.9997, efficiency=efficiency(530_123, 212.0)),
        policy("brisk-heron.onnx", "onnx", 6.1e-5 * worse, 0.9997,
               efficiency=efficiency(530_123, 61.4)),
        policy("oracle", "reference", 0.0, 1.0, efficiency=efficiency(None, 1840.0)),
        policy("lqr", "reference", 0.0413 * worse, 0.912, efficiency=efficiency(30, 8.2)),
        policy("admm10", "reference", 0.0021 * worse, 0.994, efficiency=efficiency(None, 402.0)),
        policy("zero", "reference", 3.4, 0.03),
        policy("random", "reference", 5.9, math.nan),
    ]  # fmt: skip


def curves(points: int = 200) -> dict[str, list[dict[str, Any]]]:
    rng = np.random.default_rng(0)
    train, validation = [], []
    for i in range(points):
        step, share = 20 * (i + 1), (i + 1) / points
        loss = 5.2 * math.exp(-7 * share) + 0.004
        row = {"step": step, "loss": loss * math.exp(0.15 * rng.standard_normal()),
               "lr": 5e-4 * (1 + math.cos(math.pi * share)),
               "grad_norm": 3 * math.exp(-3 * share) * math.exp(0.3 * rng.standard_normal()),
               "cost": loss * 1.7, "smooth": 0.2 + 0.01 * rng.standard_normal()}  # fmt: skip
        if i in (31, 32, 90):
            row |= {"loss": math.nan, "grad_norm": math.inf, "skipped": 1}
        train.append(row)
        if i % 10 == 9:
            gap = 2.9 * math.exp(-11 * share) + 6e-5
            validation.append({"step": step, "loss": 1.15 * loss, "gap": gap})
    return {"train": train, "validation": validation}


SETTINGS = {
    "seed": 0,
    "problem": {"kind": "double_integrator", "num_steps": 15, "horizon_s": 5.0},
    "model": {"kind": "trc", "latent_dim": 128, "outer_cycles": 3, "dropout": 0.0},
    "data": {"train": 10_000, "validation": 1_000, "test": 1_000, "seed": 42, "fresh": False},
    "train": {"steps": 4_000, "batch_size": 256, "accumulate": 1, "patience": 0, "block": 20,
              "precision": "fp32", "compile": False, "threads": 1, "tensorboard": True},
    "optim": {"lr": 1e-3, "weight_decay": 0.0, "clip_norm": 1.0, "schedule": "cosine"},
}  # fmt: skip


def report() -> dict[str, Any]:
    """Return the whole form."""
    metric = [("gap", "%", "lower", "Cost above the oracle's, over the oracle's cost."),
              ("success", "%", "higher", "Cases that end within 0.1 m of the target."),
              ("error", "m", "lower", "Distance from the target at the end."),
              ("effort", "m²/s³", "lower", ""), ("violation", "1", "lower", "")]  # fmt: skip
    manifest = {
        "versions": {"ganglion": "0.1.0", "python": "3.11.2", "torch": "2.11.0", "numpy": "2.4.6"},
        "git": {"commit": "4be1c9d", "dirty": False}, "threads": 1, "seed": 0,
        "hardware": {"cpu": "AMD EPYC 7B13", "cores": 2, "memory_bytes": 8_589_934_592},
        "command": ["ganglion", "train", "control", "problem.num_steps=15", "optim.lr=1e-3"],
        "dataset": {"folder": "datasets/control/ab12", "digest": "ab12" * 16},
    }  # fmt: skip
    array = {"shape": [10_000, 2], "dtype": "float32", "unit": "m", "sha256": "9f" * 32}
    return {
        "version": 1, "task": "control", "problem": "double_integrator", "cases": 1000, "seed": 7,
        "goal": "gap",
        "metrics": [{"name": n, "unit": u, "better": b, "per": None, "help": h}
                    for n, u, b, h in metric],
        "policies": policies(),
        "scenarios": [
            {"name": name, "overrides": overrides, "digest": digest * 16, "cases": 1000,
             "policies": policies(worse)}
            for name, overrides, digest, worse in [
                ("starts x1.5", {"problem": {"spread": 1.5}}, "1c0d", 3.0),
                ("horizon x2", {"problem": {"horizon_s": 10.0, "num_steps": 30}}, "22fe", 41.0),
                ("mass +20 %", {"problem": {"mass_kg": 1.2}}, "77aa", 530.0)]
        ],
        "run": {"id": "run_20260131_235959_9f3a2c", "name": "brisk-heron",
                "created": "2026-01-31T23:59:59Z", "status": "succeeded", "steps": 4000,
                "seconds": 93.4, "cpu_seconds": 92.1, "settings": SETTINGS,
                "changed": {"problem.num_steps": [10, 15], "model.latent_dim": [64, 128],
                            "optim.lr": [5e-4, 1e-3]}, "manifest": manifest},
        "data": {"digest": "ab12" * 16, "recipe": {"task": "control", "seed": 42},
                 "splits": {"train": {"start": array, "controls": {**array, "shape": [10_000, 15]}},
                            "test": {"start": {**array, "shape": [1_000, 2]}}}},
        "curves": curves(), "best_step": 3800,
        "export": {"path": "export/policy.onnx", "digest": "e3b0" * 16, "bytes": 2_151_692,
                   "opset": 20, "parity": {"max_abs": 3.1e-7, "inputs": 1000, "tolerance": 1e-4},
                   "latency_us": {"p50": 61.4, "p99": 141.0}, "ok": True, "refused": None,
                   "variants": [{"name": "fp16", "bytes": 1_081_000, "max_abs": 8.1e-4}]},
        "worst": [{"case": c, "metrics": {"gap": g, "error": 0.04},
                   "inputs": {"start": [1.97, -0.41], "target": [0.0, 0.0]}}
                  for c, g in [(412, 0.0031), (77, 0.0019), (903, math.nan)]],
        "diagnosis": [{"finding": "not finite",
                       "seen": "3 of 200 updates had a loss or gradient that is not finite.",
                       "advice": ["optim.lr=0.0005 (now 0.001)", "ganglion data check PATH"]}],
        "figures": [{"name": "trajectories", "caption": "States and controls of eight cases."},
                    {"name": "worst_cases", "caption": "The worst cases beside the oracle."}],
        "efficiency_quotes": [
            {"name": "Qwen 2.5-3B", "parameters": "50M trainable", "latency_ms": 100,
             "memory_mb": 6000, "source": "guide"},
            {"name": "TRC (guide)", "parameters": 530_000, "latency_ms": 5, "memory_mb": 20,
             "source": "guide"}],
        "seeds": [{"name": f"brisk-heron-{s}", "seed": s, "steps": 4000,
                   "metrics": {"gap": estimate(g, 1e-5, "%")}}
                  for s, g in enumerate([6.1e-5, 7.3e-5, 5.4e-5])],
    }  # fmt: skip


def picture(width: int = 320, height: int = 180, kind: str = "PNG") -> bytes:
    """Return a small gradient as PNG or GIF."""
    ramp = np.linspace(0, 255, width, dtype=np.uint8)
    pixels = np.stack([np.tile(ramp, (height, 1))] * 3, axis=-1)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()
