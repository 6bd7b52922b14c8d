"""`serve`: from the words of the command line to what the server is told."""

from __future__ import annotations

import hashlib
import re
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from ganglion.commands.common import home
from ganglion.commands.output import write_json
from ganglion.core import run as runs
from ganglion.core.errors import SettingsError

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(args: Namespace) -> int:
    """Serve policies until SIGTERM or Ctrl-C."""
    from ganglion.serve.workers import serve as serve_workers

    settings = settings_of(args)

    def ready(url: str, models: list[dict[str, Any]]) -> None:
        if args.json:
            write_json({"url": url, "models": models}, one_line=True)
            sys.stdout.flush()
        elif not args.quiet:
            for model in models:
                sys.stderr.write(f"{model['name']} version {model['version']}\n")
            sys.stderr.write(f"Answers on {url} (see {url}/docs); Ctrl-C stops.\n")

    def say(text: str) -> None:
        sys.stderr.write(f"ganglion: {text}\n")

    serve_workers(settings, ready, say)
    return 0


def settings_of(args: Namespace) -> Any:
    """Return the server's settings; SettingsError where the words do not go together."""
    from ganglion.serve.settings import ServeSettings

    root = home(args)
    words = [*args.sources, *([args.shadow] if args.shadow else [])]
    sources = _named([(_name(word), _path(word, root)) for word in words])
    if args.shadow and args.split:
        raise SettingsError("Give either --split or --shadow.")
    if args.pairs and not args.shadow:
        raise SettingsError("--pairs needs --shadow.")
    host = args.host.strip("[]")
    if host not in LOOPBACK and (args.token_file is None or not args.allow_host):
        raise SettingsError(
            f"--host {args.host} can be reached from elsewhere: give --token-file and --allow-host."
        )
    return ServeSettings(
        sources=sources,
        host=host,
        port=args.port,
        split=_shares(args.split, len(args.sources)),
        shadow=sources[-1][0] if args.shadow else None,
        pairs=args.pairs,
        workers=args.workers,
        out_of_range=args.out_of_range,
        tokens=_tokens(args.token_file),
        allowed_hosts=tuple(args.allow_host or ()),
        seed=args.seed,
    )


def _name(word: str) -> str:
    """Return the name that a source is served under: NAME=SOURCE, or the file's or run's name."""
    given, equals, rest = word.partition("=")
    name = given if equals else (Path(rest or word).stem if _is_file(word) else Path(word).name)
    clean = re.sub(r"[^A-Za-z0-9._-]", "-", name).strip(".-")
    if equals and clean != given:
        raise SettingsError(f"{given!r} is no name; letters, digits, '.', '_' and '-' make one.")
    return clean or "policy"


def _is_file(word: str) -> bool:
    return word.endswith(".onnx")


def _path(word: str, root: Path) -> Path:
    """Return the file or folder of versions behind a source."""
    _, equals, rest = word.partition("=")
    text = rest if equals and not Path(word).exists() else word
    path = Path(text)
    if _is_file(text):
        if not path.exists():
            raise SettingsError(f"There is no file {path}.")
        return path
    if "@" in text and not path.exists():
        raise SettingsError(
            f"{text!r} names a stage of the model catalogue, which comes with the studio; give a "
            "run, an .onnx file or a folder of versions."
        )
    if path.is_dir() and not (path / "config.json").exists():
        return path
    run = runs.find(root, text)
    exported = run.folder / "export" / "policy.onnx"
    if not exported.is_file():
        raise SettingsError(f"{run.folder} has no export; `ganglion export {text}` makes one.")
    return exported


def _named(sources: list[tuple[str, Path]]) -> tuple[tuple[str, Path], ...]:
    """Make names unique: a second `policy` is `policy-2`."""
    found: list[tuple[str, Path]] = []
    taken: set[str] = set()
    for name, path in sources:
        number, unique = 1, name
        while unique in taken:
            number += 1
            unique = f"{name}-{number}"
        taken.add(unique)
        found.append((unique, path.resolve()))
    return tuple(found)


def _shares(text: str | None, count: int) -> tuple[int, ...]:
    if text is None:
        return ()
    parts = text.split(":")
    if not all(part.isdecimal() and 0 < int(part) < 10**6 for part in parts):
        raise SettingsError(f"--split is shares such as 90:10, not {text!r}.")
    if len(parts) != count or count < 2:
        raise SettingsError(f"--split {text} has {len(parts)} shares for {count} policies.")
    return tuple(int(part) for part in parts)


def _tokens(path: Path | None) -> tuple[bytes, ...]:
    """Return the digests of the tokens in a file, one a line."""
    if path is None:
        return ()
    try:
        lines = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as problem:
        reason = getattr(problem, "strerror", None) or "it is no text"
        raise SettingsError(f"--token-file {path} cannot be read: {reason}.") from None
    if not lines or min(map(len, lines)) < 16:
        raise SettingsError(f"--token-file {path} needs a token of at least 16 letters on a line.")
    return tuple(hashlib.sha256(line.encode()).digest() for line in lines)
