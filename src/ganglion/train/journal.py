"""What a run writes while it trains: metrics, timing, TensorBoard, status, checkpoints."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ganglion.core import files
from ganglion.core.contracts import Learner, Metrics
from ganglion.core.errors import OutputError, Preempted
from ganglion.core.run import Lines, Run, State
from ganglion.train import checkpoint, device
from ganglion.train.loop import Progress
from ganglion.train.settings import TrainSettings

PATIENCE = 3  # saves that may fail in a row before training pauses


class Console(Protocol):
    """What a person sees of a training."""

    def trained(self, step: int, total: int, metrics: Metrics, rate: float) -> None: ...
    def judged(self, step: int, total: int, metrics: Metrics, new_best: bool) -> None: ...
    def say(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...


@dataclass(frozen=True)
class Plan:
    """How far training goes, and what every checkpoint says about itself."""

    total: int
    batch: int
    about: Mapping[str, Any]


class RunJournal:
    """The journal of one run folder; its lock is held by the caller."""

    def __init__(
        self,
        run: Run,
        cfg: TrainSettings,
        plan: Plan,
        console: Console,
        stop: Callable[[], str | None],
    ) -> None:
        self._run, self._cfg, self._plan = run, cfg, plan
        self._console, self.stopping = console, stop
        self._metrics = Lines(run.folder / "metrics.jsonl")
        self._timing = Lines(run.folder / "timing.jsonl")
        self._board = _board(run.folder / "tensorboard") if cfg.tensorboard else None
        self._saved_at, self._saved_step = time.monotonic(), 0
        self._status_at = 0.0
        self._failed_saves = 0
        self._last: dict[str, float] = {}

    # ------------------------------------------------------------ the loop's calls

    def trained(self, step: int, metrics: Metrics, seconds: float) -> None:
        """Log one update."""
        began = time.perf_counter()
        before = self._saved_step if not self._last else int(self._last["step"])
        self._last = {"step": step, **metrics}
        self._metrics.append({"kind": "train", "step": step, **metrics})
        per_second = max(1, step - before) / max(seconds, 1e-9)
        self._scalars("train", step, metrics)
        self._console.trained(step, self._plan.total, metrics, per_second * self._plan.batch)
        self._heartbeat(step, metrics)
        self._timing.append(
            {
                "kind": "train", "step": step, "seconds": seconds, "steps_per_s": per_second,
                "rows_per_s": per_second * self._plan.batch,
                "log_s": time.perf_counter() - began, "time": time.time(),
            }
        )  # fmt: skip

    def noted(self, note: Mapping[str, Any]) -> None:
        """Log an event that a person should know."""
        self._metrics.append({"kind": "event", **note})
        self._console.say(str(note.get("message", note)))

    def judged(self, step: int, metrics: Metrics, seconds: float, new_best: bool) -> None:
        """Log one validation."""
        line = {"kind": "validation", "step": step, **metrics, "new_best": new_best}
        self._metrics.append(line)
        self._timing.append({"kind": "validation", "step": step, "seconds": seconds})
        self._scalars("validation", step, metrics, flush=True)
        shown = {**{f"train_{k}": v for k, v in self._last.items() if k == "loss"}, **metrics}
        self._console.judged(step, self._plan.total, shown, new_best)

    def due(self, step: int) -> bool:
        """Say whether a checkpoint is due by time or by steps."""
        every = self._cfg.checkpoint_every
        if every and step // every > self._saved_step // every:
            return True
        return time.monotonic() - self._saved_at >= self._cfg.checkpoint_seconds

    def save(self, learner: Learner, progress: Progress) -> None:
        """Save a checkpoint; a full disk first costs a retry, then pauses the run as blocked.

        OutputError where the folder became unwritable for another reason.
        """
        progress.offset = self._metrics.offset
        state = {"learner": learner.state_dict(), "progress": progress.to_json()}
        about = {**self._plan.about, **device.capability(), "best": progress.best}
        about |= {"updates": progress.updates, "created": time.time()}
        must = progress.finished or self.stopping() is not None
        while True:
            need = self._try_save(learner.step, state, about)
            if need is None:
                break
            self._failed_saves += 1
            if self._failed_saves < PATIENCE and not must:
                self._console.say(f"Disk full: no checkpoint at step {learner.step}; going on.")
                break
            self._pause(need)
        self._saved_at, self._saved_step = time.monotonic(), learner.step
        checkpoint.prune(self._folder, learner.step, progress.best_step, self._cfg.keep_every)

    # ------------------------------------------------------------ saving

    @property
    def _folder(self) -> Path:
        return self._run.folder / "checkpoints"

    def _try_save(
        self, step: int, state: Mapping[str, Any], about: Mapping[str, Any]
    ) -> int | None:
        """Return None once saved, or the bytes that there was no room for."""
        try:
            if not self._metrics.flush(durably=True):
                return 1 << 20
            checkpoint.save(self._folder, step, state, about)
        except OSError as error:
            if not files.is_full(error):
                raise OutputError(
                    f"Cannot write a checkpoint into {self._folder}: {error.strerror}. The last "
                    "good one is kept."
                ) from error
            return _size(state)
        if self._failed_saves >= PATIENCE:
            self._console.warn("There is room again; training goes on.")
        self._failed_saves = 0
        return None

    def _pause(self, need: int) -> None:
        text = f"disk full, need {need / 1e6:.1f} MB"
        if self._failed_saves == PATIENCE or self._failed_saves % 60 == 0:
            self._console.warn(f"Paused: {text}. Free some space and it goes on by itself.")
        self._set("blocked", message=text)
        for _ in range(10):
            time.sleep(0.1)
            if self.stopping() and self._failed_saves > PATIENCE:
                raise Preempted(
                    f"{self.stopping()} while paused ({text}); an older checkpoint is kept."
                )

    # ------------------------------------------------------------ status and scalars

    def _heartbeat(self, step: int, metrics: Metrics) -> None:
        if time.monotonic() - self._status_at < 1.0:
            return
        self._status_at = time.monotonic()
        self._set("running", stage="train", step=step, total=self._plan.total,
                  loss=metrics.get("loss"))  # fmt: skip

    def _set(self, state: State, **details: Any) -> None:
        try:
            self._run.set(state, **details)
        except OSError as error:
            if not files.is_full(error):
                raise OutputError(
                    f"Cannot write into {self._run.folder}: {error.strerror}."
                ) from error

    def _scalars(self, kind: str, step: int, metrics: Metrics, flush: bool = False) -> None:
        if self._board is None:
            return
        try:
            for name, value in metrics.items():
                self._board.add_scalar(f"{kind}/{name}", value, step)
            if flush:
                self._board.flush()
        except OSError as error:
            self._console.say(f"TensorBoard events stop here: {error.strerror or error}.")
            self._board = None

    def resume(self, progress: Progress) -> None:
        """Cut metrics.jsonl back to where the checkpoint was taken."""
        self._metrics.truncate(progress.offset)

    def close(self) -> None:
        """Write out what waits."""
        self._metrics.flush()
        self._timing.flush()
        if self._board is not None:
            with contextlib.suppress(OSError):
                self._board.close()


def _size(state: Mapping[str, Any]) -> int:
    total = 1 << 16
    stack: list[Any] = [state]
    while stack:
        value = stack.pop()
        if isinstance(value, Mapping):
            stack += list(value.values())
        elif isinstance(value, list | tuple):
            stack += list(value)
        else:
            total += int(getattr(value, "nbytes", 32))
    return total


def _board(folder: Path) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder))
