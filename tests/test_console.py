"""What a person sees: lines, bars, nothing."""

from __future__ import annotations

import io
import sys

import pytest

from ganglion import console
from ganglion.commands.output import figure, size, table
from ganglion.console import Pace, Plain, Quiet, Rich, choose, clock, number


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Gone(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def drive(shown: console.Console) -> None:
    count = shown.counting("rows generated")
    count(5, 10)
    count(10, 10)
    for step in (20, 40):
        shown.trained(step, 40, {"loss": 0.5, "grad_norm": 1.0}, 12_345.6)
        values = {"train_loss": 0.5, "loss": 0.25, "gap": 0.125, "success": 1.0}
        shown.judged(step, 40, values, new_best=step == 20)
    shown.say("Something [b]happened[/b].")
    shown.close()
    shown.stage("evaluate")
    shown.close()


def test_plain_lines_name_losses_metric_best_pace(capsys: pytest.CaptureFixture[str]) -> None:
    drive(Plain("gap"))
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines[0] == "rows generated 10/10"
    assert lines[1] == (
        "step 20/40  train loss 0.5  validation loss 0.25  gap 0.125  *  12,346 rows/s  ETA -"
    )
    assert "*" not in lines[2]
    assert lines[2].endswith("ETA 0s")
    assert lines[3:] == ["Something [b]happened[/b].", "evaluate ..."]


def test_the_goal_decides_which_metric_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    drive(Plain("success"))
    assert "success 1 " in capsys.readouterr().err


def test_without_a_goal_the_first_metric_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    drive(Plain())
    assert "gap 0.125" in capsys.readouterr().err


def test_a_share_is_shown_in_per_cent(capsys: pytest.CaptureFixture[str]) -> None:
    drive(Plain("gap", "%"))
    assert "gap 12.5 %" in capsys.readouterr().err


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    drive(Quiet())
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    shown = choose(json=False, quiet=False, goal="gap")
    assert isinstance(shown, Rich)
    drive(shown)
    text = terminal.getvalue()
    assert "validation loss 0.25  gap 0.125 *" in text
    assert "Something [b]happened[/b]." in text
    assert "12,346 rows/s" in text
    assert "evaluate ..." in text


def test_which_console_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(choose(json=False, quiet=True), Quiet)
    assert isinstance(choose(json=False, quiet=False), Plain)  # pytest's stderr is no terminal
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert isinstance(choose(json=True, quiet=False), Plain)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(choose(json=False, quiet=False), Plain)


def test_work_goes_on_when_the_reader_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Gone())
    drive(Plain("gap"))


def test_the_time_left_follows_from_the_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    pace = Pace()
    pace.note(10)
    assert pace.left(10, 100) is None
    now[0] = 104.0
    pace.note(30)
    # 20 steps in 4 s, 70 steps left: 14 s
    assert pace.left(30, 100) == pytest.approx(14.0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0.2, "0s"), (59.4, "59s"), (75.2, "1m15s"), (7260, "2h01m")],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert clock(seconds) == text


def test_figures() -> None:
    assert number(None) == "-"
    assert number(float("nan")) == "-"
    assert number(0.123456) == "0.1235"
    assert figure({"value": 0.5, "low": 0.25, "high": 0.75, "unit": "%"}) == "50 [25, 75] %"
    assert figure({"value": 2.0, "unit": "1"}) == "2"
    assert size(999) == "999 B"
    assert size(20_600) == "20.6 kB"
    assert table(["a", "b"], [["xx", "y"]]) == "a   b\nxx  y"
