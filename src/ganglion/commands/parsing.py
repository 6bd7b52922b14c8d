"""A parser whose every refusal is one sentence that names the nearest known name."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from ganglion.core.errors import SettingsError, nearest, unknown


class Parser(argparse.ArgumentParser):
    """Options and positionals of one verb, in any order; errors are SettingsError."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(
            prog=prog, description=description, allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        self.flags: dict[str, argparse.Action] = {}
        self.words: list[str] = []  # positionals by destination

    def add_argument(self, *names: Any, **options: Any) -> argparse.Action:
        """Add an argument and remember its name for hints and shell completion."""
        action = super().add_argument(*names, **options)
        for flag in action.option_strings:
            getattr(self, "flags", {})[flag] = action  # --help is added before there is a table
        if not action.option_strings:
            self.words.append(action.dest)
        return action

    def read(self, words: Sequence[str]) -> argparse.Namespace:
        """Parse `words`; SettingsError in one sentence, SystemExit(0) after --help."""
        for word in words:
            flag = word.partition("=")[0]
            if word == "--":
                break
            if flag.startswith("--") and flag not in {"--help", *self.flags}:
                raise SettingsError(self._unknown(word))
        args, rest = self.parse_known_intermixed_args(list(words))
        if rest:
            raise SettingsError(self._unknown(rest[0]))
        return args

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print under a usage dump."""
        required = "the following arguments are required: "
        if message.startswith(required):
            missing = message.removeprefix(required)
            raise SettingsError(f"`{self.prog}` needs {missing}; see `{self.prog} --help`.")
        text = message.removeprefix("argument ")
        raise SettingsError(f"{text[:1].upper() + text[1:]}".rstrip(".") + ".")

    def _unknown(self, word: str) -> str:
        flag, equals, value = word.partition("=")
        if not flag.startswith("-"):
            return f"`{self.prog}` takes no further argument {word!r}; see `{self.prog} --help`."
        if "settings" in self.words and "." in flag:
            setting = flag.lstrip("-") + "=" + (value if equals else "VALUE")
            return f"Unknown option {flag!r}. Settings are given without dashes: {setting}."
        near = nearest(flag, self.flags)
        hint = f" Did you mean {near!r}?" if near else ""
        return f"`{self.prog}` has no option {flag!r}.{hint} See `{self.prog} --help`."


def whole(low: int, high: int | None = None) -> Callable[[str], int]:
    """Return a type for whole numbers from `low` to `high`."""

    def read(text: str) -> int:
        limits = f"from {low} up" if high is None else f"from {low} to {high}"
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if value < low or (high is not None and value > high):
            raise argparse.ArgumentTypeError(f"expected a whole number {limits}, got {text!r}")
        return value

    return read


def one_of(kind: str, names: Sequence[str]) -> Callable[[str], str]:
    """Return a type for one name of a few."""

    def read(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(unknown(kind, text, names))
        return text

    return read


def checkpoint(text: str) -> str | int:
    """Read best, last, step=N or N."""
    if text in ("best", "last"):
        return text
    digits = text.removeprefix("step=")
    if digits.isdecimal():
        return int(digits)
    raise argparse.ArgumentTypeError(f"expected best, last or step=N, got {text!r}")


def layer(words: Sequence[str], known: Sequence[str] = ()) -> dict[str, Any]:
    """Turn the `name=value` words of a command line into one layer of settings."""
    from ganglion.core.settings import combine, parse_override

    for index, word in enumerate(words):
        if "=" in word:
            continue
        following = words[index + 1] if index + 1 < len(words) else None
        if following is not None and "=" not in following:
            raise SettingsError(
                f"Settings are given as name=value: write {word}={following}, not "
                f"{word!r} {following!r}."
            )
        near = nearest(word, known)
        hint = f" Did you mean {near!r}?" if near else ""
        raise SettingsError(f"Settings are given as name=value, got {word!r}.{hint}")
    return combine([parse_override(word) for word in words])
