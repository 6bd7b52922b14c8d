"""Generation by several processes: the same bytes, and nothing left behind by a kill."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from ganglion import pipeline
from ganglion.core import dataset
from ganglion.core.errors import DataError
from tiny import settings

COUNTS = {"data": {"validation": 60, "test": 40, "shard": 20}}
MANY = {"data": {"validation": 20_000, "test": 40, "shard": 20}}
START = """
import sys
from pathlib import Path
from ganglion import pipeline, registry
if __name__ == "__main__":
    cfg = registry.settings("control").model_validate_json(sys.argv[2])
    pipeline.generate("control", cfg, Path(sys.argv[1]), workers=2)
"""


def test_one_process_and_two_write_the_same_bytes(tmp_path: Path) -> None:
    cfg = settings(COUNTS)
    seen: list[tuple[int, int]] = []
    one = pipeline.generate("control", cfg, tmp_path / "one")
    two = pipeline.generate(
        "control", cfg, tmp_path / "two", workers=2, progress=lambda *done: seen.append(done)
    )
    assert one.digest == two.digest
    assert seen[-1] == (100, 100)
    for path in one.folder.rglob("*.npy"):
        twin = two.folder / path.relative_to(one.folder)
        assert path.read_bytes() == twin.read_bytes()
    assert pipeline.generate("control", cfg, tmp_path / "one").digest == one.digest  # reused


@contextmanager
def begun(folder: Path) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """A generation by two workers that has stored its first shard, and the workers."""
    script = folder.with_suffix(".py")
    script.write_text(START)
    command = [sys.executable, str(script), str(folder), settings(MANY).model_dump_json()]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        workers: list[psutil.Process] = []
        try:
            end = time.monotonic() + 60
            while not list(folder.glob("parts/*/*.npz")):
                assert time.monotonic() < end
                time.sleep(0.02)
            workers = psutil.Process(process.pid).children(recursive=True)
            yield process, workers
        finally:
            process.kill()
            for worker in workers:
                with contextlib.suppress(psutil.NoSuchProcess):
                    worker.kill()


def test_a_killed_generation_leaves_no_process_and_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "ds"
    with begun(folder) as (process, workers):
        assert len(workers) >= 2
        process.kill()
        process.wait()
        _, alive = psutil.wait_procs(workers, timeout=10)
        assert not alive
    with pytest.raises(DataError, match="generation did not finish"):
        dataset.open_dataset(folder)


def test_a_killed_worker_ends_the_generation_in_one_sentence(tmp_path: Path) -> None:
    with begun(tmp_path / "ds") as (process, workers):
        for worker in workers:
            if "spawn_main" in " ".join(worker.cmdline()):
                worker.kill()
        told = process.communicate(timeout=30)[1].splitlines()[-1]
    assert process.returncode == 1
    assert told.startswith("ganglion.core.errors.GanglionError: A process that generated data was")
