"""The command line: finds the verb, calls its handler, turns every error into one sentence.

The frames from `main` to the optimizer's step are main -> handler -> pipeline.train -> loop.fit ->
update; so `main` calls the handler itself, and the handlers of `commands/training.py` call the
pipeline themselves.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence

from ganglion import __version__
from ganglion.commands.parsing import Parser
from ganglion.commands.verbs import VERBS, Verb, everywhere, overview
from ganglion.core.errors import GanglionError, OutputError, SettingsError, nearest

Handler = Callable[[Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; nothing but SystemExit(0) of --help gets out."""
    verb: Verb | None = None
    for stream in ("stdout", "stderr"):  # closed by who started this
        if getattr(sys, stream) is None:
            setattr(sys, stream, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    # the matrices of oracles and evaluation are small: one thread is fastest, and steadiest
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        verb, words = find_verb(list(sys.argv[1:] if argv is None else argv))
        if verb is None:
            return _told(words)
        args = verb.parser().read(words)
        handler = find_handler(verb)
        code = handler(args)
        sys.stdout.flush()
        return code
    except SystemExit as done:  # argparse after --help
        return int(done.code or 0)
    except KeyboardInterrupt:
        return _say(f"Stopped. {verb.stopped if verb else ''}".strip(), 130)
    except BrokenPipeError:
        with contextlib.suppress(OSError, ValueError):  # nor may Python's last flush complain
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if os.environ.get("GANGLION_DEBUG") == "1":
            raise
        return _say(*told(error))


def find_verb(words: list[str]) -> tuple[Verb | None, list[str]]:
    """Split a command line into its verb and the rest, options before the verb included.

    None where only --help, --version or nothing was given. SettingsError names the nearest verb.
    """
    globals_ = Parser("ganglion", "")
    everywhere(globals_)
    before: list[str] = []
    rest = list(words)
    while rest and rest[0].startswith("-"):
        flag = rest[0].partition("=")[0]
        if flag in ("--help", "-h", "--version"):
            return None, rest[:1]
        if flag not in globals_.flags:
            near = nearest(flag, [*globals_.flags, "--help", "--version"])
            hint = f" Did you mean {near!r}?" if near else ""
            raise SettingsError(f"Unknown option {flag!r} before the verb.{hint}")
        takes = 2 if flag == "--home" and "=" not in rest[0] else 1
        before, rest = before + rest[:takes], rest[takes:]
    if not rest:
        return None, ["--help"]
    return _verb(rest, before)


def _verb(rest: list[str], before: list[str]) -> tuple[Verb | None, list[str]]:
    two = " ".join(rest[:2])
    if two in VERBS:
        return VERBS[two], before + rest[2:]
    if rest[0] in VERBS:
        return VERBS[rest[0]], before + rest[1:]
    group = [name for name in VERBS if name.startswith(rest[0] + " ")]
    if group and (len(rest) == 1 or rest[1] in ("--help", "-h")):
        return None, ["--help"]
    named = two if group else rest[0]
    near = nearest(named, group or [n.partition(" ")[0] for n in VERBS])
    hint = f" Did you mean {near!r}?" if near else ""
    listed = ", ".join(group) if group else "see `ganglion --help`"
    raise SettingsError(f"Unknown verb {named!r}.{hint} Known: {listed}.")


def find_handler(verb: Verb) -> Handler:
    """Import the function behind a verb; what it needs is imported here and not before."""
    module, _, name = verb.handler.partition(":")
    found: Handler = getattr(importlib.import_module(f"ganglion.commands.{module}"), name)
    return found


def told(error: Exception) -> tuple[str, int]:
    """Return the one sentence and the exit code of an error."""
    if isinstance(error, GanglionError):
        return str(error) or type(error).__name__, error.exit_code
    if isinstance(error, OSError) and (error.filename or error.errno in _ROOM):
        return _told_os(error)
    if isinstance(error, UnicodeEncodeError):
        return f"{error.object!r} holds bytes that are no text.", SettingsError.exit_code
    if isinstance(error, MemoryError):
        return "Out of memory; lower train.batch_size, data.shard or the model's size.", 1
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return (
        f"internal error ({what}); please report it, with the traceback that the same command "
        "shows with GANGLION_DEBUG=1.",
        1,
    )


_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _told_os(error: OSError) -> tuple[str, int]:
    if error.errno in _ROOM:
        where = f" writing {error.filename}" if error.filename else ""
        return f"The disk is full{where}; free some space and run it again.", OutputError.exit_code
    if isinstance(error, FileNotFoundError):
        return f"There is no file or folder {error.filename}.", SettingsError.exit_code
    return f"Cannot use {error.filename}: {error.strerror}.", OutputError.exit_code


def _told(words: list[str]) -> int:
    sys.stdout.write((f"ganglion {__version__}" if words == ["--version"] else overview()) + "\n")
    sys.stdout.flush()
    return 0


def _say(text: str, code: int) -> int:
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    with contextlib.suppress(OSError, ValueError):
        line = "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
        sys.stderr.write(f"ganglion: {line}\n")
    return code
