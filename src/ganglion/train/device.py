"""The device, its threads, and what is free on it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch

from ganglion.core.errors import ServiceError, SettingsError, TrainingError
from ganglion.train.settings import TrainSettings


def choose(name: str) -> str:
    """Turn auto, cpu or cuda[:N] into a device that is there; an error says what is missing."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return name
    if not re.fullmatch(r"cuda(:\d+)?", name):
        raise SettingsError(f"Unknown device {name!r}. Known: auto, cpu, cuda, cuda:N.")
    if not torch.cuda.is_available():
        raise ServiceError(
            "No CUDA device is usable here; use --device cpu. See `ganglion doctor`."
        )
    if ":" in name and int(name[5:]) >= torch.cuda.device_count():
        raise ServiceError(f"There is no {name}; this machine has {torch.cuda.device_count()}.")
    return name


def prepare(cfg: TrainSettings) -> None:
    """Set the thread count and the kernels that the settings ask for, for this process."""
    torch.set_num_threads(cfg.threads)
    if cfg.deterministic or torch.are_deterministic_algorithms_enabled():
        # asked for only where needed: the call imports torch's compiler, seconds of start-up
        torch.use_deterministic_algorithms(cfg.deterministic, warn_only=True)
    if cfg.deterministic:
        torch.backends.cudnn.benchmark = False


def capability() -> dict[str, str | int]:
    """Return what bit-exactness depends on: versions, CPU capability, threads."""
    return {
        "torch": torch.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }


@contextmanager
def naming_memory(step: int) -> Iterator[None]:
    """Turn a failed allocation inside the block into a TrainingError that says what to lower."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        clear = out_of_memory(error, step, "cuda" if "CUDA" in str(error) else "cpu")
        if clear is None:
            raise
        raise clear from error


def out_of_memory(error: BaseException, step: int, device: str) -> TrainingError | None:
    """Return the clear form of a failed allocation; None where `error` is something else."""
    text = str(error)
    failed = isinstance(error, MemoryError | torch.OutOfMemoryError)
    if not failed and not ("alloc" in text and "memory" in text):
        return None
    asked = re.search(r"allocate ([\d.]+) ?(bytes|[KMGTPE]iB)", text)
    wanted = f"{asked.group(1)} {asked.group(2)}" if asked else "an unknown amount"
    if asked and asked.group(2) == "bytes":
        wanted = f"{int(asked.group(1)) / 2**20:.0f} MiB"
    if device.startswith("cuda"):
        free = torch.cuda.mem_get_info(device)[0]
    else:
        free = psutil.virtual_memory().available
    return TrainingError(
        f"Out of memory in the block after step {step} on {device}: asked for {wanted}, "
        f"{free / 2**20:.0f} MiB free. The last checkpoint is good. Lower train.batch_size (raise "
        "train.accumulate to keep the effective batch) or the model's size, or try "
        "train.precision=bf16" + (" or --device cpu." if device.startswith("cuda") else ".")
    )
