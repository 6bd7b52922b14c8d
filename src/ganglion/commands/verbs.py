"""The verbs: what each is for, its arguments, and the function that does it. Nothing heavy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ganglion.commands.parsing import Parser, checkpoint, one_of, whole

MOST_CASES = 10_000_000  # that are drawn into memory at once


@dataclass(frozen=True)
class Verb:
    """One verb. `stopped` tells how to go on after Ctrl-C."""

    name: str
    summary: str
    handler: str  # module:function under ganglion.commands
    arguments: Callable[[Parser], None]
    stopped: str = ""

    def parser(self) -> Parser:
        """Build the verb's parser, global options included."""
        parser = Parser(f"ganglion {self.name}", self.summary)
        self.arguments(parser)
        everywhere(parser)
        return parser


def everywhere(parser: Parser) -> None:
    """Add the options that every verb takes."""
    parser.add_argument(
        "--home", type=Path, metavar="DIR",
        help="root of runs/ and datasets/ (default: GANGLION_HOME, else this folder)",
    )  # fmt: skip
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")


# ---------------------------------------------------------------- shared arguments


def _task(parser: Parser) -> None:
    parser.add_argument("task", metavar="TASK", help="see `ganglion tasks`")


def _run(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", help="id, name, folder, or latest")


def _settings(parser: Parser) -> None:
    parser.add_argument(
        "settings", metavar="k=v", nargs="*", help="settings, e.g. optim.lr=5e-4 train.steps=2000"
    )


def _layers(parser: Parser) -> None:
    parser.add_argument("--preset", metavar="P", help="see `ganglion tasks` (default: standard)")
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings in YAML or JSON")
    _settings(parser)


def _workers(parser: Parser) -> None:
    parser.add_argument(
        "--workers", type=whole(1, 1024), default=1, metavar="N",
        help="processes that generate data; the bytes are the same for any number",
    )  # fmt: skip


def _out(parser: Parser, help: str, metavar: str = "FILE") -> None:
    parser.add_argument("--out", type=Path, metavar=metavar, help=help)


def _cases(parser: Parser) -> None:
    parser.add_argument("--data", type=Path, metavar="DIR", help="dataset whose cases to use")
    parser.add_argument("--cases", type=whole(1, MOST_CASES), metavar="N", help="number of cases")
    parser.add_argument("--seed", type=whole(0), metavar="S", help="draw fresh cases of this seed")
    parser.add_argument("--scenarios", action="store_true", help="also in every scenario")


def _checkpoint(parser: Parser) -> None:
    parser.add_argument(
        "--checkpoint", type=checkpoint, default="best", metavar="best|last|step=N",
        help="which checkpoint (default: best)",
    )  # fmt: skip


# ---------------------------------------------------------------- one function per verb


def _nothing(parser: Parser) -> None:
    return None


def _config(parser: Parser) -> None:
    _task(parser)
    _layers(parser)
    parser.add_argument("--schema", action="store_true", help="JSON schema of the settings")
    parser.add_argument(
        "--space", nargs="?", const="", metavar="NAME|FILE",
        help="check and print a search space; without a name, list those that come with the task",
    )  # fmt: skip


def _generate(parser: Parser) -> None:
    _task(parser)
    _layers(parser)
    _out(parser, "dataset folder (default: datasets/TASK/DIGEST)", "DIR")
    _workers(parser)


def _dataset(parser: Parser) -> None:
    parser.add_argument("path", metavar="PATH", type=Path, help="dataset folder or foreign file")
    parser.add_argument("--task", metavar="T", help="task of a foreign file")
    parser.add_argument("--format", metavar="F", help="format (default: by the file's ending)")
    _settings(parser)


def _data_show(parser: Parser) -> None:
    _dataset(parser)
    parser.add_argument("--rows", type=whole(0, 1000), default=3, metavar="N", help="rows shown")
    _out(parser, "folder for pictures, where the task draws", "DIR")


def _data_import(parser: Parser) -> None:
    _dataset(parser)
    _out(parser, "dataset folder (default: datasets/TASK/import_DIGEST)", "DIR")
    parser.add_argument(
        "--split", type=one_of("split", ("train", "validation", "test")), metavar="S",
        help="all rows into one split",
    )  # fmt: skip
    parser.add_argument(
        "--fractions", default="0.8,0.1,0.1", metavar="A,B,C",
        help="shares of train, validation and test (default: 0.8,0.1,0.1)",
    )  # fmt: skip
    parser.add_argument("--seed", type=whole(0), default=0, metavar="S", help="shuffles the rows")


def _data_export(parser: Parser) -> None:
    _dataset(parser)
    _out(parser, "file to write")
    parser.add_argument("--split", default="train", metavar="S", help="which split")


def _train(parser: Parser) -> None:
    _task(parser)
    _layers(parser)
    parser.add_argument("--data", type=Path, metavar="DIR", help="a dataset folder to train on")
    parser.add_argument("--val-data", type=Path, metavar="DIR", help="other validation data")
    _out(parser, "the run folder itself (default: runs/TASK/ID)", "DIR")
    parser.add_argument("--name", help="a name for the run")
    parser.add_argument(
        "--seeds", type=whole(1, 1000), default=1, metavar="N",
        help="N runs with seed, seed + 1, ... and a table over them",
    )  # fmt: skip
    parser.add_argument(
        "--from", dest="parent", metavar="RUN", help="begin from the best weights of another run"
    )
    parser.add_argument(
        "--device", default="auto", metavar="auto|cpu|cuda", help="where to train (default: auto)"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="show the plan and its estimated time, write nothing"
    )
    _workers(parser)
    parser.add_argument(
        "--strict", action="store_true", help="refuse to go on where that is not bit for bit"
    )


def _resume(parser: Parser) -> None:
    _run(parser)
    parser.add_argument(
        "--from", dest="start", type=checkpoint, metavar="best|last|step=N",
        help="open a new run from this checkpoint; any setting may then change",
    )  # fmt: skip
    parser.add_argument("--name", help="a name for the new run (with --from)")
    _out(parser, "the new run's folder (with --from)", "DIR")
    parser.add_argument(
        "--device", metavar="auto|cpu|cuda", help="where the new run trains (with --from)"
    )
    parser.add_argument("--strict", action="store_true", help="refuse to go on inexactly")
    _settings(parser)


def _evaluate(parser: Parser) -> None:
    parser.add_argument("source", metavar="RUN|FILE.onnx|REFERENCE", help="the policy")
    parser.add_argument("--task", metavar="T", help="task of a file or reference")
    _cases(parser)
    _out(parser, "also write the JSON form here")
    _settings(parser)


def _compare(parser: Parser) -> None:
    parser.add_argument(
        "sources", nargs="+", metavar="RUN|FILE.onnx|REFERENCE|k=v",
        help="the policies, and settings to judge all of them under",
    )  # fmt: skip
    parser.add_argument("--task", metavar="T", help="task, where no run says it")
    _cases(parser)
    parser.add_argument("--policy-cmd", metavar="CMD", help="also score a program (JSON lines)")
    parser.add_argument("--policy-url", metavar="URL", help="also score a server (POST of JSON)")
    parser.add_argument("--recorded", type=Path, metavar="FILE", help="also score recorded answers")
    parser.add_argument(
        "--claims", action="store_true",
        help="also what the original's guide claims of such a run, beside random and optimum",
    )  # fmt: skip
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the table as a page")
    _out(parser, "write the JSON form here")


def _export(parser: Parser) -> None:
    _run(parser)
    parser.add_argument("--format", metavar="F", help="onnx (default), or a format of the task")
    parser.add_argument("--precision", metavar="P", help="fp32 (default), fp16, int8")
    _checkpoint(parser)
    _out(parser, "file to write (default: RUN/export/)")
    _settings(parser)


def _verify(parser: Parser) -> None:
    parser.add_argument("source", metavar="RUN|FILE.onnx", help="what to verify")


def _act(parser: Parser) -> None:
    parser.add_argument("source", metavar="RUN|FILE.onnx", help="the policy")
    parser.add_argument(
        "--input", metavar="JSON", help='{"name": [...]}, @FILE, or - for stdin (default: an '
        "example)",
    )  # fmt: skip


def _serve(parser: Parser) -> None:
    parser.add_argument(
        "sources", nargs="+", metavar="[NAME=]RUN|FILE.onnx|DIR",
        help="policies; DIR holds numbered versions. The first answers where none is named",
    )  # fmt: skip
    parser.add_argument("--host", default="127.0.0.1", metavar="H", help="default: 127.0.0.1")
    parser.add_argument(
        "--port", type=whole(0, 65535), default=8080, metavar="N", help="default: 8080; 0: any"
    )
    parser.add_argument("--split", metavar="90:10", help="share requests by their id")
    parser.add_argument("--shadow", metavar="SOURCE", help="also ask this one, unseen")
    parser.add_argument("--pairs", type=Path, metavar="DIR", help="keep both answers (--shadow)")
    parser.add_argument("--workers", type=whole(1, 64), default=1, metavar="N", help="processes")
    parser.add_argument(
        "--out-of-range", type=one_of("choice", ("refuse", "warn")), default="refuse",
        metavar="refuse|warn", help="inputs beyond their range: refused, or clipped with a warning",
    )  # fmt: skip
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="tokens, one a line")
    parser.add_argument(
        "--allow-host", action="append", metavar="NAME", help="a name that requests may address"
    )
    parser.add_argument("--seed", type=whole(0), metavar="S", help="of noise that requests omit")


def _view(parser: Parser) -> None:
    _run(parser)
    _out(parser, "file to write (.png, .gif or .html)")


def _runs(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", nargs="?", help="show the checkpoints of one run")
    parser.add_argument("--task", metavar="T", help="only runs of this task")
    parser.add_argument("--status", metavar="S", help="only runs in this state")
    parser.add_argument("--delete", nargs="+", metavar="RUN", help="delete these runs")


def _chaos(parser: Parser) -> None:
    _task(parser)
    _layers(parser)
    parser.add_argument("--kills", type=whole(1, 1000), default=5, metavar="N", help="kills a run")
    parser.add_argument("--runs", type=whole(1, 1000), default=1, metavar="N", help="killed runs")
    parser.add_argument("--seed", type=whole(0), default=0, metavar="S", help="of the moments")


def _init(parser: Parser) -> None:
    parser.add_argument("name", metavar="NAME", help="name of the new task and its folder")


def _completion(parser: Parser) -> None:
    parser.add_argument(
        "shell", metavar="bash|zsh|fish", type=one_of("shell", ("bash", "zsh", "fish")),
        help="which shell",
    )  # fmt: skip


_GO_ON = "The same command goes on from there."

VERBS = {
    verb.name: verb
    for verb in (
        Verb("tasks", "what can be trained: task, what is learned, presets",
             "describing:tasks", _nothing),
        Verb("config", "resolved settings with help, units, ranges, when to change them",
             "describing:config", _config),
        Verb("generate", "make the dataset that the settings ask for",
             "datasets:generate", _generate, _GO_ON),
        Verb("data check", "validate a dataset or a foreign file", "datasets:check", _dataset),
        Verb("data show", "print a dataset's card and its first rows",
             "datasets:show", _data_show),
        Verb("data import", "make a dataset of a foreign file", "datasets:imported", _data_import),
        Verb("data export", "write one split in a foreign format",
             "datasets:exported", _data_export),
        Verb("train", "data if needed -> train -> evaluate -> export -> verify -> report",
             "training:train", _train,
             "If a run had begun (`ganglion runs`), `ganglion resume latest` goes on."),
        Verb("resume", "go on after a stop, a kill or a pre-emption, bit for bit",
             "training:resume", _resume, "`ganglion resume` with the same run goes on."),
        Verb("evaluate", "score one policy", "judging:evaluate", _evaluate),
        Verb("compare", "one table of policies, oracle and baselines included",
             "judging:compare", _compare),
        Verb("export", "write a run's policy for use elsewhere", "judging:export", _export),
        Verb("verify", "every digest; parity of the export; latency", "judging:verify", _verify),
        Verb("act", "one decision, for pipes and quick looks", "judging:act", _act),
        Verb("serve", "answer over HTTP and WebSocket with exported policies",
             "serving:serve", _serve),
        Verb("view", "draw what a policy does", "judging:view", _view),
        Verb("runs", "list runs, show one, delete some", "listing:runs_", _runs),
        Verb("doctor", "what is wrong or missing here, and what mends it",
             "machine:doctor", _nothing),
        Verb("chaos", "kill -9 proof on these settings", "machine:chaos", _chaos),
        Verb("init", "an installable folder with a task of your own that trains at once",
             "machine:init", _init),
        Verb("completion", "print a completion script for your shell",
             "machine:completion", _completion),
    )
}  # fmt: skip


def overview() -> str:
    """Return the text of `ganglion --help`."""
    width = max(map(len, VERBS))
    lines = [f"  {v.name.ljust(width)}  {v.summary}" for v in VERBS.values()]
    return "\n".join(
        [
            "usage: ganglion [--home DIR] [--quiet] [--json] [--version] VERB ...", "",
            "Train small policies for robots and prove what they are worth.", "", *lines, "",
            "RUN is an id, a name, a folder, or latest. `ganglion VERB --help` says more.",
            "Exit codes: 0 done, 1 failed, 2 usage or settings, 65 bad data, 69 service missing,",
            "73 cannot write, 75 pre-empted (`ganglion resume` goes on).",
        ]
    )  # fmt: skip
