"""AdamW, its parameter groups, and the learning rate as a pure function of the step."""

from __future__ import annotations

import math

from torch import nn, optim

from ganglion.train.settings import OptimSettings


def build(module: nn.Module, cfg: OptimSettings) -> optim.AdamW:
    """Return fused AdamW over two groups: matrices decay; biases, norms and scalars do not.

    Source: Loshchilov and Hutter, Decoupled Weight Decay Regularization, arXiv 1711.05101.
    """
    trained = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": cfg.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [g for g in groups if g["params"]]
    return optim.AdamW(groups, lr=cfg.lr, betas=cfg.betas, fused=True)


def rate(cfg: OptimSettings, step: int, total: int, scale: float = 1.0) -> float:
    """Return the learning rate of the update that begins at `step` of `total`.

    scale carries what cannot follow from the step: drops of `plateau` and of the non-finite guard.
    Warm-up is linear and ends at the peak; cosine goes from the peak to final_lr x peak:
    final + (1 - final) (1 + cos(pi t)) / 2 (arXiv 1608.03983, equation 5, one cycle).
    """
    if step < cfg.warmup_steps:
        return scale * cfg.lr * (step + 1) / cfg.warmup_steps
    share = (step - cfg.warmup_steps) / max(1, total - cfg.warmup_steps)
    if cfg.schedule == "cosine":
        wave = (1 + math.cos(math.pi * min(1.0, share))) / 2
        return scale * cfg.lr * (cfg.final_lr + (1 - cfg.final_lr) * wave)
    if cfg.schedule == "step":
        return scale * cfg.lr * cfg.step_gamma ** math.floor(share / cfg.step_share + 1e-9)
    return scale * cfg.lr


class Plateau:
    """Counts validations without a better value and says when the rate should fall."""

    def __init__(self, cfg: OptimSettings) -> None:
        self._cfg = cfg
        self.best: float | None = None
        self.stalled = 0
        self.scale = 1.0

    def observe(self, value: float) -> None:
        """Take one validation value, lower is better; NaN is never better."""
        if not math.isnan(value) and (self.best is None or value < self.best):
            self.best, self.stalled = value, 0
            return
        self.stalled += 1
        if self.stalled >= self._cfg.plateau_patience:
            self.scale *= self._cfg.plateau_factor
            self.stalled = 0
