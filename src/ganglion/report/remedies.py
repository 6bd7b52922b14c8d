"""What to try, as settings with values: computed from what the run was set to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ganglion.report import numbers
from ganglion.report.grid import flatten

_WIDTHS = ("dim", "latent_dim", "hidden", "hidden_size", "width", "channels")
_DEPTHS = ("depth", "layers", "blocks")
_SIZES = ("small", "medium", "large")


class Remedies:
    """Advice in terms of one run's settings.

    A setting that the run does not have is not named, nor a value that it would refuse: where the
    facts have `accepts`, it says whether changed settings ({dotted name: value}) fit the rest.
    """

    def __init__(self, settings: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        self._settings = flatten(settings)
        self._facts = facts

    def get(self, name: str, default: Any = None) -> Any:
        """Return a setting by its dotted name."""
        return self._settings.get(name, default)

    def _find(self, endings: Sequence[str]) -> list[str]:
        wanted = [n for n in self._settings if n.startswith("model.")] + list(self._settings)
        return [n for e in endings for n in dict.fromkeys(wanted) if n.rsplit(".", 1)[-1] == e]

    def change(self, name: str, value: Any, why: str = "") -> list[str]:
        """Advise `name=value (now ...)`; nothing where the run has no such setting."""
        if name not in self._settings or self._settings[name] == value:
            return []
        accepts = self._facts.get("accepts")
        if accepts is not None and not accepts({name: value}):
            return []
        now = numbers.plain(self._settings[name]) if self._settings[name] is not None else "none"
        text = f"{name}={_written(value)} (now {now})"
        return [f"{text}: {why}" if why else text]

    # ------------------------------------------------------------ rate and length

    def rate(self, factor: float, why: str = "") -> list[str]:
        """Advise another learning rate."""
        now = numbers.finite(self.get("optim.lr"))
        return [] if now is None else self.change("optim.lr", _tidy(now * factor), why)

    def longer(self, factor: float = 2.0) -> list[str]:
        """Advise more epochs, or steps where epochs are not set."""
        for name in ("train.epochs", "train.steps"):
            now = numbers.finite(self.get(name))
            if now is not None:
                return self.change(name, round(now * factor), "train longer")
        return []

    def patience(self, value: int, why: str) -> list[str]:
        """Advise how many validations to wait."""
        return self.change("train.patience", value, why)

    # ------------------------------------------------------------ data

    def check_data(self, why: str = "") -> list[str]:
        """Advise `ganglion data check`."""
        path = self._facts.get("data_path")
        if path is None and self.get("data.fresh") is True:
            return []
        text = f"ganglion data check {path or 'PATH'}"
        return [f"{text}: {why}" if why else text]

    def more_data(self, least: int = 0) -> list[str]:
        """Advise more training rows, at least twice as many as now."""
        now = numbers.finite(self.get("data.train"))
        if now is None or self.get("data.fresh") is True:
            return []
        return self.change("data.train", max(least, 2 * round(now)), "more data")

    def augmentation(self) -> list[str]:
        """Advise to switch augmentation on, where the run has it and it is off."""
        found = [n for n in self._settings if n.rsplit(".", 1)[-1].startswith("augment")]
        off = [n for n in found if self._settings[n] in (False, 0, 0.0)]
        return [a for n in off for a in self.change(n, True, "augmentation")]

    # ------------------------------------------------------------ regularisation and size

    def dropout(self, value: float) -> list[str]:
        """Advise another dropout where the model has one."""
        name = next(iter(self._find(["dropout"])), "")
        return self.change(name, value)

    def more_dropout(self) -> list[str]:
        """Advise dropout .2, or .1 above what it is (at most .5)."""
        name = next(iter(self._find(["dropout"])), "")
        now = numbers.finite(self.get(name)) or 0.0
        return self.change(name, 0.2 if now < 0.2 else min(0.5, round(now + 0.1, 2)))

    def more_decay(self) -> list[str]:
        """Advise weight decay .05, or twice what it is."""
        now = numbers.finite(self.get("optim.weight_decay")) or 0.0
        return self.change("optim.weight_decay", 0.05 if now < 0.05 else _tidy(2 * now))

    def no_decay(self) -> list[str]:
        """Advise weight decay 0 where there is some."""
        return self.change("optim.weight_decay", 0.0)

    def larger(self) -> list[str]:
        """Advise a larger model: the next size, or twice the width, then one more layer."""
        return self._sized(1) or [
            *self._scaled(_WIDTHS, lambda n: 2 * n, "a larger model"),
            *self._scaled(_DEPTHS, lambda n: n + 1, "a deeper model"),
        ]

    def smaller(self, why: str = "a smaller model") -> list[str]:
        """Advise a smaller model: the size before, or half the width."""
        return self._sized(-1, why) or self._scaled(_WIDTHS, lambda n: max(1, n // 2), why)

    def _sized(self, by: int, why: str = "") -> list[str]:
        now = self.get("model.size")
        if now not in _SIZES or not 0 <= _SIZES.index(now) + by < len(_SIZES):
            return []
        said = why or ("a larger model" if by > 0 else "a smaller model")
        return self.change("model.size", _SIZES[_SIZES.index(now) + by], said)

    def _scaled(self, endings: Sequence[str], change: Any, why: str) -> list[str]:
        for name in self._find(endings):
            now = self.get(name)
            if isinstance(now, int) and not isinstance(now, bool) and now > 0:
                return self.change(name, change(now), why)
        return []

    def auxiliary_weight(self) -> list[str]:
        """Advise a small weight of an auxiliary loss where the run has one that is off."""
        names = self._find(["aux_loss_weight"])
        return [a for n in names if not self.get(n) for a in self.change(n, 0.01)]

    # ------------------------------------------------------------ memory and speed

    def less_memory(self, *, on_gpu: bool) -> list[str]:
        """Advise smaller batches (same effective size), image, model, precision, or the CPU."""
        out = []
        batch = self.get("train.batch_size")
        if isinstance(batch, int) and batch > 1:
            out += self.change("train.batch_size", batch // 2)
            more = 2 * (self.get("train.accumulate") or 1)
            kept = self.change("train.accumulate", more)
            out = [f"{out[0]} with {kept[0]}: the effective batch stays"] if kept else out
        out += self._scaled(("image_size", "image"), lambda n: n // 2, "smaller images")
        out += self.smaller()
        if self.get("train.precision") == "fp32":
            out += self.change("train.precision", "bf16")
        return [*out, "--device cpu: slower, but with the host's memory"] if on_gpu else out

    def faster(self, limit: str, *, on_gpu: bool) -> list[str]:
        """Advise what speeds up the limiting part: "data", "compute" or "logging"."""
        if limit == "data":
            fresh = self.get("data.fresh") is True
            out = self.change("data.fresh", False, "generate once, read it many times")
            return [
                *(out if fresh else []),
                *self._more("data.workers", 2),
                "put the dataset on a local disk that fits in memory",
            ]
        if limit == "logging":
            return [
                *self.change("train.tensorboard", False),
                *self._more("train.eval_every", 2, "validate less often"),
                *self._more("train.checkpoint_seconds", 6, "save less often"),
                *self._more("train.block", 5, "look at the device less often"),
            ]
        precision = self.change("train.precision", "bf16") if on_gpu else []
        device = [] if on_gpu else ["--device cuda, where there is a GPU"]
        return [*self.change("train.compile", True), *precision, *device, *self.smaller()]

    def _more(self, name: str, factor: int, why: str = "") -> list[str]:
        now = numbers.finite(self.get(name))
        if now is None:
            return []
        return self.change(name, max(factor, round(now * factor)), why)


def _tidy(value: float) -> float:
    return float(f"{value:.3g}")


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return numbers.number(value).replace(",", "") if isinstance(value, float) else str(value)
