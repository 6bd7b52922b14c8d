"""Settings as data: frozen models, layers, dotted overrides, and errors that name the nearest.

Layers, later ones win: defaults < what the preset says < file < `key=value`. A variant is a
discriminated union over `kind`; `model=trc` means `model.kind=trc`. The kind is resolved over all
layers first; what a lower layer said about another kind's settings is then dropped.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ganglion.core.errors import SettingsError, nearest

_DEEPEST = 16  # levels of nesting that any settings have

T = TypeVar("T", bound="Settings")
Raw = Mapping[str, Any]


class Settings(BaseModel):
    """Base of every settings model: frozen, no unknown names, no silent conversions.

    `alternatives` names fields of which a higher layer's choice clears the others (steps, epochs).
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=()
    )
    alternatives: ClassVar[tuple[str, ...]] = ()


def setting(default: Any, help: str, *, unit: str = "1", **limits: Any) -> Any:
    """Declare one setting: its default, help (what, and when to change it), unit and limits.

    limits are pydantic's: ge, gt, le, lt, min_length, max_length, multiple_of.
    """
    return Field(default=default, description=help, json_schema_extra={"unit": unit}, **limits)


def variant(default: Settings, help: str) -> Any:
    """Declare a discriminated union over `kind` with its default variant."""
    return Field(default=default, description=help, discriminator="kind")


# ---------------------------------------------------------------- resolving


def resolve(cls: type[T], layers: Sequence[Raw]) -> T:
    """Build `cls` from nested layers, lowest first; SettingsError names the wrong setting."""
    return validate(cls, merge(cls, layers))


def merge(cls: type[Settings], layers: Sequence[Raw], where: str = "") -> dict[str, Any]:
    """Merge nested layers, lowest first, into one mapping with every kind filled in.

    where is the dotted name under which `cls` lies, with its last dot; errors name it.
    """
    for layer in layers:
        _check_names(cls, layer, where, cls)
    out: dict[str, Any] = {}
    for name, field in cls.model_fields.items():
        said = [layer[name] for layer in layers if name in layer]
        options = _variants(field.annotation)
        if options:
            out[name] = _merge_variant(where + name, options, field.default, said)
        elif _is_settings(field.annotation):
            _need_mapping(where + name, said)
            base = field.default.model_dump(mode="json")  # a task may set other defaults
            inside = f"{where}{name}."
            out[name] = merge(field.annotation, [base, *said], inside)  # type: ignore[arg-type]
        elif said:
            out[name] = copy.deepcopy(said[-1])
    return _drop_alternatives(cls, layers, out, where)


def _merge_variant(
    name: str, options: Mapping[str, type[Settings]], default: Any, said: Sequence[Any]
) -> dict[str, Any]:
    layers = [{"kind": s} if isinstance(s, str) else s for s in said]
    _need_mapping(name, layers)
    kind = default.kind
    kinds = []  # the kind in force at each layer
    for layer in layers:
        kind = layer.get("kind", kind)
        if not isinstance(kind, str) or kind not in options:
            near = nearest(str(kind), options)
            hint = f" Did you mean {near!r}?" if near else ""
            raise SettingsError(
                f"Unknown {name} {kind!r}.{hint} Known: {', '.join(sorted(options))}."
            )
        kinds.append(kind)
    same = [layer for layer, k in zip(layers, kinds, strict=True) if k == kind]
    _refuse_of_others(name, kind, options, same)
    if kind == default.kind:
        same.insert(0, default.model_dump(mode="json"))
    return {**merge(options[kind], same, f"{name}."), "kind": kind}


def _refuse_of_others(
    name: str, kind: str, options: Mapping[str, type[Settings]], layers: Sequence[Raw]
) -> None:
    known = options[kind].model_fields
    for key in (key for layer in layers for key in layer if key not in known):
        owners = [f"{name}={k}" for k, option in options.items() if key in option.model_fields]
        if owners:
            raise SettingsError(
                f"Unknown setting {name + '.' + key!r} with {name}={kind}: it belongs to "
                f"{' or '.join(owners)}. Known here: "
                f"{', '.join(sorted(f'{name}.{k}' for k in known))}."
            )


def _drop_alternatives(
    cls: type[Settings], layers: Sequence[Raw], out: dict[str, Any], where: str
) -> dict[str, Any]:
    group = cls.alternatives
    for layer in reversed(layers):
        chosen = [g for g in group if layer.get(g) is not None]
        if len(chosen) > 1:
            raise SettingsError(f"{where}{chosen[0]} and {where}{chosen[1]} exclude each other.")
        if chosen:
            for other in set(group) - set(chosen):
                out[other] = None
            break
    return out


def validate(cls: type[T], raw: Raw) -> T:
    """Validate one nested mapping strictly; the first fault becomes one sentence."""
    try:
        text = json.dumps(raw, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise SettingsError(f"Settings must be plain finite values: {error}.") from error
    try:
        return cls.model_validate_json(text, strict=True)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(_without_kinds(cls, fault["loc"])) or "settings"
        given = repr(fault["input"])
        got = "" if isinstance(fault["input"], dict) or len(given) > 200 else f", got {given}"
        reason = fault["msg"].removeprefix("Value error, ")
        reason = reason[0].lower() + reason[1:]
        raise SettingsError(f"{where}: {reason}{got}. {_hint(cls, where)}".strip()) from None


def _hint(cls: type[Settings], where: str) -> str:
    for row in describe(cls):
        if row.name == where:
            limits = f", {row.limits}" if row.limits else ""
            return f"It is {row.type}{limits}; default {json.dumps(row.default)}."
    return ""


def parse_override(text: str) -> dict[str, Any]:
    """Turn `optim.lr=5e-4` into {"optim": {"lr": 0.0005}}; values are JSON, else plain text."""
    name, equals, value = text.partition("=")
    parts = name.strip().split(".")
    if not equals or not all(parts) or len(parts) > _DEEPEST:
        raise SettingsError(f"Settings are given as name=value, got {text[:200]!r}.")
    nested: Any = parse_value(value.strip())
    if _depth(nested) > _DEEPEST:
        raise SettingsError(f"The value of {name.strip()} is nested too deeply for a setting.")
    for part in reversed(parts):
        nested = {part: nested}
    return dict(nested)


def parse_value(text: str) -> Any:
    """Read one value of the command line: JSON, a Python-style number, or plain text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # no JSON; or a number of over 4,300 digits
        pass
    if any(c.isdigit() for c in text) and "_" not in text:
        with contextlib.suppress(ValueError):
            return float(text)
    return {"True": True, "False": False, "None": None}.get(text, text)


def combine(overrides: Sequence[Raw]) -> dict[str, Any]:
    """Merge nested overrides of one layer; a later value replaces an earlier one."""
    out: dict[str, Any] = {}
    for override in overrides:
        _deep_update(out, override)
    return out


def check_names(cls: type[Settings], layers: Sequence[Raw]) -> None:
    """SettingsError for the first name that no variant of `cls` knows."""
    for layer in layers:
        _check_names(cls, layer, "", cls)


def said(cls: type[Settings], layers: Sequence[Raw]) -> dict[str, Any]:
    """Return what the layers say together; a bare kind of a variant becomes {"kind": kind}."""
    out = combine(layers)
    for name, field in cls.model_fields.items():
        if isinstance(out.get(name), str) and _variants(field.annotation):
            out[name] = {"kind": out[name]}
    return out


def _deep_update(out: dict[str, Any], new: Raw) -> None:
    for name, value in new.items():
        old = out.get(name)
        if isinstance(value, Mapping):
            if isinstance(old, str):
                old = {"kind": old}
            base = dict(old) if isinstance(old, Mapping) else {}
            _deep_update(base, value)
            out[name] = base
        elif isinstance(old, Mapping) and isinstance(value, str):
            out[name] = {**old, "kind": value}
        else:
            out[name] = value


def dotted(flat: Raw) -> dict[str, Any]:
    """Turn {"problem.start_scale": 1.5} into its nested form."""
    parts = []
    for name, value in flat.items():
        nested: Any = value
        for part in reversed(name.split(".")):
            nested = {part: nested}
        parts.append(nested)
    return combine(parts)


def read_file(path: Path) -> dict[str, Any]:
    """Read a settings file (JSON or YAML) as a nested mapping; SettingsError where it is bad."""
    try:
        if path.stat().st_size > 1_000_000:
            raise SettingsError(f"{path} is larger than 1 MB: not a settings file.")
        raw = _SettingsLoader(path.read_text(encoding="utf-8")).get_single_data()
    except OSError as error:
        raise SettingsError(f"Cannot read the settings file {path}: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        reason = str(error).split("\n")[0]
        raise SettingsError(f"{path} is neither JSON nor YAML: {reason}.") from error
    if not isinstance(raw, dict) or not all(isinstance(k, str) for k in raw):
        raise SettingsError(f"{path} must hold a mapping of settings, e.g. 'optim: {{lr: 1e-3}}'.")
    if _depth(raw) > _DEEPEST:
        raise SettingsError(f"{path} is nested too deeply for settings.")
    return {k: _numbers(v) for k, v in raw.items()}


def _numbers(value: Any) -> Any:
    """YAML 1.1 reads 1e-3 as text; read such text as the number that it is."""
    if isinstance(value, dict):
        return {str(k): _numbers(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_numbers(v) for v in value]
    read = parse_value(value) if isinstance(value, str) else value
    return read if isinstance(read, int | float) and not isinstance(read, bool) else value


def _depth(value: Any) -> int:
    """Return how deeply lists and mappings are nested, without recursion."""
    depth, level = 0, [value]
    while level := [x for x in level if isinstance(x, dict | list)]:
        level = [i for x in level for i in (x.values() if isinstance(x, dict) else x)]
        depth += 1
    return depth


class _SettingsLoader(yaml.SafeLoader):
    """YAML without what a settings file never needs and a hostile one abuses."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):  # a few aliases of aliases fill any memory
            raise yaml.YAMLError("aliases (*name) are not read; write the settings out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value]
        if twice := next((n for i, n in enumerate(names) if n in names[:i]), None):
            raise yaml.YAMLError(f"{twice!r} stands twice in one mapping")
        return super().construct_mapping(node, deep)


def digest(value: Any) -> str:
    """Return the SHA-256 of settings or a JSON value in canonical form."""
    raw = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    text = json.dumps(raw, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def difference(old: Raw, new: Raw, where: str = "") -> dict[str, tuple[Any, Any]]:
    """Return dotted name -> (old, new) for every leaf that differs."""
    out: dict[str, tuple[Any, Any]] = {}
    for name in sorted({*old, *new}):
        a, b = old.get(name), new.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            out.update(difference(a, b, f"{where}{name}."))
        elif a != b:
            out[where + name] = (a, b)
    return out


# ---------------------------------------------------------------- describing


@dataclass(frozen=True)
class Described:
    """One setting as help, web form and docs show it."""

    name: str
    type: str
    default: Any
    unit: str
    limits: str
    help: str


def describe(
    cls: type[Settings], where: str = "", base: Settings | None = None
) -> Iterator[Described]:
    """Yield every setting of `cls` in order, the settings of each variant under its field.

    base, where given, holds the defaults instead of those of the class.
    """
    for name, field in cls.model_fields.items():
        options = _variants(field.annotation)
        if options:
            kinds = " | ".join(options)
            yield Described(
                where + name, kinds, field.default.kind, "1", "", field.description or ""
            )
            seen: set[tuple[str, str]] = set()
            for kind, option in options.items():
                for row in describe(option, f"{where}{name}."):
                    tail = row.name.rsplit(".", 1)[1]
                    if tail != "kind" and (row.name, row.help) not in seen:
                        seen.add((row.name, row.help))
                        yield Described(
                            row.name, row.type, row.default, row.unit, row.limits,
                            f"[{kind}] {row.help}",
                        )  # fmt: skip
        elif _is_settings(field.annotation):
            inner = getattr(base, name, field.default)
            yield from describe(field.annotation, f"{where}{name}.", inner)  # type: ignore[arg-type]
        else:
            extra = field.json_schema_extra
            unit = extra.get("unit", "1") if isinstance(extra, dict) else "1"
            default = getattr(base, name, field.get_default(call_default_factory=True))
            default = list(default) if isinstance(default, tuple) else default
            yield Described(
                where + name, _type_name(field.annotation), default, str(unit),
                _limits(field.metadata), field.description or "",
            )  # fmt: skip


def _limits(metadata: Sequence[Any]) -> str:
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    parts = [
        f"{sign} {getattr(m, key)}"
        for m in metadata
        for key, sign in signs.items()
        if getattr(m, key, None) is not None
    ]
    return ", ".join(parts)


def _type_name(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is Literal:
        return " | ".join(
            json.dumps(a) if not isinstance(a, str) else a for a in get_args(annotation)
        )
    if origin in (Union, types.UnionType):
        return " | ".join(_type_name(a) for a in get_args(annotation))
    if origin is tuple:
        each = get_args(annotation)
        length = "" if each[-1] is Ellipsis else f"{len(each)}: "
        return f"list of {length}{_type_name(each[0])}"
    if origin is Annotated:
        plain, *limits = get_args(annotation)
        found = [m for limit in limits for m in getattr(limit, "metadata", [limit])]
        return " ".join(part for part in (_type_name(plain), _limits(found)) if part)
    names = {int: "whole number", float: "number", bool: "true | false", str: "text"}
    return names.get(annotation, "none" if annotation is type(None) else str(annotation))


def names_of(cls: type[Settings], where: str = "") -> list[str]:
    """Return every dotted name of `cls`, those of all variants included."""
    return sorted({row.name for row in describe(cls, where)})


def _check_names(cls: type[Settings], layer: Raw, where: str, root: type[Settings]) -> None:
    known: dict[str, Any] = {n: f.annotation for n, f in cls.model_fields.items()}
    for name, value in layer.items():
        if name not in known:
            raise SettingsError(_unknown(f"{where}{name}", where, known, root))
        if isinstance(value, Mapping):
            if _is_settings(known[name]):
                _check_names(known[name], value, f"{where}{name}.", root)
            elif options := _variants(known[name]):
                everywhere = {"kind"} | {f for o in options.values() for f in o.model_fields}
                for inner in value:
                    if inner not in everywhere:
                        listed = dict.fromkeys(everywhere)
                        full = f"{where}{name}."
                        raise SettingsError(_unknown(full + inner, full, listed, root))


def _unknown(name: str, where: str, siblings: Raw, root: type[Settings]) -> str:
    near = nearest(name, [where + s for s in siblings])
    if near is None:
        everything = names_of(root)
        near = nearest(name, everything)
        tail = [n for n in everything if n.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1]]
        near = tail[0] if tail else near
    hint = f" Did you mean {near!r}?" if near else ""
    listed = ", ".join(sorted(where + s for s in siblings))
    return f"Unknown setting {name!r}.{hint} Known here: {listed}."


def _variants(annotation: Any) -> dict[str, type[Settings]]:
    if get_origin(annotation) not in (Union, types.UnionType):
        return {}
    options = [a for a in get_args(annotation) if _is_settings(a) and "kind" in a.model_fields]
    if len(options) != len(get_args(annotation)):
        return {}
    return {get_args(o.model_fields["kind"].annotation)[0]: o for o in options}


def _without_kinds(cls: type[Settings], loc: Sequence[Any]) -> list[str]:
    """Return a fault's path as the user writes it: pydantic puts the kind after a variant."""
    parts, here, names = list(loc), cls, []
    while parts:
        name = parts.pop(0)
        names.append(str(name))
        field = here.model_fields.get(name) if isinstance(name, str) else None
        annotation = field.annotation if field is not None else None
        if (options := _variants(annotation)) and parts and parts[0] in options:
            here = options[parts.pop(0)]
        elif _is_settings(annotation):
            here = annotation  # type: ignore[assignment]
        else:
            return names + [str(p) for p in parts]
    return names


def _is_settings(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Settings)


def _need_mapping(name: str, said: Sequence[Any]) -> None:
    for value in said:
        if not isinstance(value, Mapping):
            raise SettingsError(f"{name}: expected settings below it, got {value!r}.")
