"""Completion scripts: verbs, options, tasks, presets and setting names, as they are now."""

from __future__ import annotations

from ganglion import registry
from ganglion.commands.verbs import VERBS
from ganglion.core.settings import names_of


def script(shell: str) -> str:
    """Return the completion script of bash, zsh or fish.

    bash: source <(ganglion completion bash); zsh: source <(ganglion completion zsh);
    fish: ganglion completion fish | source. Print it again after installing a task.
    """
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell]()


def _tables() -> tuple[dict[str, list[str]], dict[str, list[str]], dict[str, list[str]]]:
    """Return options by verb, settings by task, presets by task."""
    options = {name: sorted([*verb.parser().flags, "--help"]) for name, verb in VERBS.items()}
    tasks = registry.names()
    settings = {t: [f"{n}=" for n in names_of(registry.settings(t))] for t in tasks}
    presets = {t: list(registry.settings(t).presets) for t in tasks}
    return options, settings, presets


def _first_words() -> list[str]:
    return list(dict.fromkeys(name.partition(" ")[0] for name in VERBS))


def _with_task() -> list[str]:
    return [name for name, verb in VERBS.items() if verb.parser().words[:1] == ["task"]]


def _bash() -> str:
    options, settings, presets = _tables()
    seconds = " ".join(n.partition(" ")[2] for n in VERBS if " " in n)
    lines = [
        "# ganglion completion for bash: source <(ganglion completion bash)",
        "_ganglion() {",
        '  local word="${COMP_WORDS[COMP_CWORD]}" verb="${COMP_WORDS[1]}" task="${COMP_WORDS[2]}"',
        '  local before="${COMP_WORDS[COMP_CWORD-1]}" words=""',
        f'  if [ "$COMP_CWORD" -eq 1 ]; then words="{" ".join(_first_words())}"',
        f'  elif [ "$verb" = data ] && [ "$COMP_CWORD" -eq 2 ]; then words="{seconds}"',
        '  elif [ "$before" = --preset ]; then case "$task" in',
        *[f'    {t}) words="{" ".join(names)}" ;;' for t, names in presets.items()],
        '  esac; else [ "$verb" = data ] && verb="data $task"; case "$verb" in',
    ]
    with_task = _with_task()
    for name, flags in options.items():
        lines.append(f'    "{name}") words="{" ".join(flags)}"')
        if name in with_task:
            lines.append(f'      if [ "$COMP_CWORD" -eq 2 ]; then words="{" ".join(settings)}"')
            lines.append('      else case "$task" in')
            lines += [
                f'        {t}) words="$words {" ".join(names)}" ;;' for t, names in settings.items()
            ]
            lines.append("      esac; fi")
        lines[-1] += " ;;"
    lines += [
        "  esac; fi",
        '  COMPREPLY=($(compgen -W "$words" -- "$word"))',
        '  [[ "${COMPREPLY[0]}" == *= ]] && compopt -o nospace',
        "  return 0",
        "}",
        "complete -o default -F _ganglion ganglion",
    ]
    return "\n".join(lines)


def _zsh() -> str:
    head = "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit"
    return f"# ganglion completion for zsh: source <(ganglion completion zsh)\n{head}\n{_bash()}"


def _fish() -> str:
    options, settings, presets = _tables()
    lines = ["# ganglion completion for fish: ganglion completion fish | source"]
    firsts = " ".join(_first_words())
    for name in _first_words():
        verb = VERBS.get(name)
        about = verb.summary if verb else "validate, show and convert datasets"
        lines.append(
            f"complete -c ganglion -n 'not __fish_seen_subcommand_from {firsts}' -f -a {name} "
            f"-d '{about}'"
        )
    for name, flags in options.items():
        first, _, second = name.partition(" ")
        here = f"__fish_seen_subcommand_from {second or first}"
        if second:
            here = f"__fish_seen_subcommand_from data; and {here}"
            lines.append(
                f"complete -c ganglion -n '__fish_seen_subcommand_from data' -f -a {second}"
            )
        lines += [f"complete -c ganglion -n '{here}' -l {flag[2:]}" for flag in flags if flag[2:]]
    for name in _with_task():
        here = f"__fish_seen_subcommand_from {name}"
        for task, names in settings.items():
            lines.append(f"complete -c ganglion -n '{here}' -f -a {task}")
            inside = f"{here}; and __fish_seen_subcommand_from {task}"
            lines.append(f"complete -c ganglion -n '{inside}' -f -a '{' '.join(names)}'")
            lines.append(
                f"complete -c ganglion -n '{inside}' -x -l preset -a '{' '.join(presets[task])}'"
            )
    return "\n".join(lines)
