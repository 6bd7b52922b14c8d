from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ganglion.core.contracts import Signature, TensorSpec
from ganglion.core.errors import DataError, ServiceError, SettingsError
from ganglion.export.external import CommandPolicy, RecordedPolicy

from .toys import child

DOUBLE = Signature({"x": TensorSpec((2,))}, {"y": TensorSpec((2,))})
GOOD = """
x = json.loads(line)["inputs"]["x"]
print(json.dumps({"outputs": {"y": [[2 * v for v in row] for row in x]}}))
"""


def test_a_command_answers_batch_after_batch(tmp_path: Path) -> None:
    with CommandPolicy(child(tmp_path, GOOD), DOUBLE) as policy:
        for batch in (1, 3, 5000):  # the last is longer than a pipe holds
            x = np.random.default_rng(batch).standard_normal((batch, 2)).astype(np.float32)
            answer = policy.act({"x": x})["y"]
            assert answer.dtype == np.float32
            np.testing.assert_allclose(answer, 2 * x, rtol=1e-6)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("print('hello')", "gave a bad answer. It is not JSON"),
        ("print(json.dumps([1]))", 'gave a bad answer. It has no "outputs"'),
        ("print(json.dumps({'outputs': {}}))", "Output 'y' is missing"),
        ("print(json.dumps({'outputs': {'y': [[1]]}}))", r"'y' has shape \(1, 1\); expected"),
        ("print(json.dumps({'outputs': {'y': [[1, 2], [3]]}}))", "'y' is no array of float32"),
        ("print(json.dumps({'outputs': {'y': 'high'}}))", "'y' is no array of float32"),
        ('print(\'{"outputs": {"y": [[NaN, 1]]}}\')', "not JSON with finite numbers"),
        ('print(\'{"outputs": {"y": [[1e300, 1]]}}\')', "'y' is not finite"),
        ('print(\'{"outputs": {"y": [[null, 1]]}}\')', "'y' is not finite"),
        ("print('{}\\n{}')", "more than one line as its answer"),
        ("sys.exit('out of coffee')", "ended with code 1: out of coffee"),
        ("raise ValueError('bad luck')", "ended with code 1: ValueError: bad luck"),
        ("import os; os.kill(os.getpid(), 9)", "ended with code -9"),
        ("time.sleep(60)", r"gave no answer in 1\.5 s"),
    ],
)
def test_a_bad_child_is_ended_and_named(body: str, message: str, tmp_path: Path) -> None:
    policy = CommandPolicy(child(tmp_path, body), DOUBLE, timeout_s=1.5)
    with pytest.raises(ServiceError, match=message):
        policy.act({"x": np.array([[1, 2]])})
    with pytest.raises(ServiceError, match="has been closed"):
        policy.act({"x": np.array([[1, 2]])})


def test_a_child_that_reads_nothing_times_out(tmp_path: Path) -> None:
    command = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]
    with (
        CommandPolicy(command, DOUBLE, timeout_s=0.5) as policy,
        pytest.raises(ServiceError, match="gave no answer"),
    ):
        policy.act({"x": np.zeros((20_000, 2))})


def test_a_command_that_is_not_there_is_told() -> None:
    with pytest.raises(ServiceError, match="'no-such-command' cannot be started: No such file"):
        CommandPolicy(["no-such-command"], DOUBLE)
    with pytest.raises(ServiceError, match="'' cannot be started"):
        CommandPolicy([], DOUBLE)


def test_arguments_are_not_read_by_a_shell(tmp_path: Path) -> None:
    program = "import sys, json; sys.stdin.readline(); sys.exit(sys.argv[1])"
    with (
        CommandPolicy([sys.executable, "-c", program, "; touch x $HOME"], DOUBLE) as policy,
        pytest.raises(ServiceError, match=r": ; touch x \$HOME$"),
    ):
        policy.act({"x": np.array([[1, 2]])})


def test_bad_inputs_do_not_end_the_child(tmp_path: Path) -> None:
    with CommandPolicy(child(tmp_path, GOOD), DOUBLE) as policy:
        with pytest.raises(SettingsError, match="'x' is not finite"):
            policy.act({"x": np.array([[np.nan, 1]])})
        assert policy.act({"x": np.array([[1, 2]])})["y"].tolist() == [[2, 4]]


def test_close_ends_the_child_and_its_children(tmp_path: Path) -> None:
    program = (
        "import subprocess, sys, json\n"
        "sleep = [sys.executable, '-S', '-c', 'import time; time.sleep(60)']\n"
        "grandchild = subprocess.Popen(sleep)\n"
        "sys.stdin.readline()\n"
        "print(json.dumps({'outputs': {'y': [[grandchild.pid, 0]]}}), flush=True)\n"
        "sys.stdin.readline()"
    )
    policy = CommandPolicy([sys.executable, "-c", program], DOUBLE)
    pid = int(policy.act({"x": np.array([[1, 2]])})["y"][0, 0])
    policy.close()
    policy.close()
    deadline = time.monotonic() + 5
    while _runs(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_recorded_answers_come_in_order_and_end(tmp_path: Path) -> None:
    path = tmp_path / "recorded.npz"
    np.savez(path, y=np.arange(6, dtype=np.float64).reshape(3, 2))
    policy = RecordedPolicy(path, DOUBLE)
    assert policy.act({"x": np.zeros((2, 2))})["y"].tolist() == [[0, 1], [2, 3]]
    assert policy.act({"x": np.zeros((1, 2))})["y"].tolist() == [[4, 5]]
    with pytest.raises(DataError, match="holds 3 answers; 4 were asked for"):
        policy.act({"x": np.zeros((1, 2))})
    policy.rewind()
    assert policy.act({"x": np.zeros((1, 2))})["y"].tolist() == [[0, 1]]


def test_recorded_answers_are_found_by_their_inputs(tmp_path: Path) -> None:
    path = tmp_path / "recorded.npz"
    x = np.array([[1.0, 2.0], [3.0, 4.0]])
    arrays = {"y": 2 * x, "input.x": x}
    np.savez(path, **arrays)  # type: ignore[arg-type]
    policy = RecordedPolicy(path, DOUBLE)
    assert policy.act({"x": x[::-1]})["y"].tolist() == [[6, 8], [2, 4]]
    with pytest.raises(DataError, match="holds no answer for row 1"):
        policy.act({"x": np.array([[1, 2], [9, 9]])})


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"z": np.zeros((1, 2))}, "holds no output 'y'; it holds z"),
        ({"y": np.zeros((1, 3))}, r"'y' has shape \(1, 3\); expected \(1, 2\)"),
        ({"y": np.full((1, 2), np.nan)}, "'y' is not finite"),
        ({"y": np.array([{}], dtype=object)}, "cannot be read as .npz"),
        ({"y": np.zeros((1, 2)), "input.x": np.zeros((2, 2))}, "1 answers for other inputs 'x'"),
    ],
)
def test_a_recording_that_does_not_fit_is_refused(
    arrays: dict[str, np.ndarray], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "recorded.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=message):
        RecordedPolicy(path, DOUBLE)


def test_a_file_that_is_no_recording_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("no")
    for name in ("text.npz", "none.npz"):
        with pytest.raises(DataError, match=r"cannot be read as \.npz"):
            RecordedPolicy(tmp_path / name, DOUBLE)
