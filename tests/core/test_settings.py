from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganglion import registry
from ganglion.core import settings as core
from ganglion.core.errors import SettingsError
from ganglion.core.settings import Settings, parse_override, setting, variant


class Small(Settings):
    kind: Literal["small"] = "small"
    width: int = setting(8, "Width of small.", ge=1)


class Deep(Settings):
    kind: Literal["deep"] = "deep"
    width: int = setting(64, "Width of deep.", ge=1)
    layers: int = setting(4, "Layers.", ge=1, le=9)


class Inner(Settings):
    cost: Literal["plain", "deep"] = setting("plain", "A value that is also a kind's name.")
    rate: float = setting(0.1, "Rate.", unit="1/s", gt=0.0)


class Loop(Settings):
    alternatives: ClassVar[tuple[str, ...]] = ("steps", "epochs")
    steps: int | None = setting(100, "Steps.", ge=1)
    epochs: int | None = setting(None, "Epochs.", ge=1)


class Whole(Settings):
    seed: int = setting(0, "Seed.")
    name: str = setting("x", "Name.")
    pair: tuple[float, float] = setting((1.0, 2.0), "Two numbers.")
    inner: Inner = Inner(rate=0.5)  # another default than the class's own
    loop: Loop = Loop()
    model: Small | Deep = variant(Small(), "The model.")


def resolve(*layers: dict[str, Any]) -> Whole:
    return core.resolve(Whole, layers)


def words(*texts: str) -> Whole:
    return resolve(core.combine([core.parse_override(t) for t in texts]))


# ---------------------------------------------------------------- layers


def test_later_layers_win_and_keep_what_they_do_not_say() -> None:
    got = resolve({"seed": 1, "inner": {"rate": 2.0}}, {"seed": 2}, {"inner": {"cost": "deep"}})
    assert (got.seed, got.inner.rate, got.inner.cost) == (2, 2.0, "deep")


def test_a_parents_default_outranks_the_default_of_the_class() -> None:
    assert resolve().inner.rate == 0.5
    assert resolve({"inner": {"cost": "deep"}}).inner.rate == 0.5


@pytest.mark.parametrize(
    "texts", list(itertools.permutations(["model=deep", "model.layers=9", "model.width=3"]))
)
def test_a_kind_may_stand_before_or_after_its_settings(texts: tuple[str, ...]) -> None:
    assert words(*texts).model == Deep(layers=9, width=3)


def test_a_bare_name_means_the_kind() -> None:
    assert words("model=deep") == words("model.kind=deep")


def test_what_a_lower_layer_said_of_another_kind_is_dropped() -> None:
    assert resolve({"model": {"width": 5}}, {"model": "deep"}).model == Deep()
    assert resolve({"model": {"kind": "deep", "layers": 2}}, {"model": "small"}).model == Small()
    kept = resolve({"model": {"kind": "deep", "layers": 2}}, {"model": {"width": 3}})
    assert kept.model == Deep(layers=2, width=3)


def test_the_higher_layers_choice_of_alternatives_clears_the_other() -> None:
    assert resolve({"loop": {"steps": 5}}, {"loop": {"epochs": 2}}).loop == Loop(
        steps=None, epochs=2
    )
    assert resolve({"loop": {"epochs": 2}}, {"loop": {"steps": 5}}).loop == Loop(steps=5)
    assert resolve({"loop": {"epochs": 2}}, {"seed": 3}).loop == Loop(steps=None, epochs=2)


def test_a_dump_resolves_back_to_the_same_settings() -> None:
    made = words("model=deep", "loop.epochs=3", "inner.rate=7")
    assert resolve(made.model_dump(mode="json")) == made


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("inner.rte=1", r"Unknown setting 'inner\.rte'\. Did you mean 'inner\.rate'\?"),
        ("rate=1", r"Unknown setting 'rate'\. Did you mean 'inner\.rate'\?"),
        ("modell=deep", r"Did you mean 'model'\?"),
        ("model=dep", r"Unknown model 'dep'\. Did you mean 'deep'\? Known: deep, small\."),
        ("model.kind=[1]", r"Unknown model \[1\]"),
        (
            "model.layers=3",
            r"'model\.layers' with model=small: it belongs to model=deep\. Known.*: .*model\.width",
        ),
        ("model=3", r"model: expected settings below it, got 3"),
        ("inner=3", r"inner: expected settings below it, got 3"),
        ("inner.cost=x", r"inner\.cost: .*got 'x'\. It is plain \| deep; default \"plain\"\."),
        ("seed=1.5", r"seed: .*valid integer.*got 1\.5\. It is whole number"),
        ("seed=true", r"seed: .*valid integer"),
        ("seed=null", r"seed: "),
        ("name=3", r"name: .*valid string"),
        ("inner.rate=fast", r"inner\.rate: .*valid number, got 'fast'.*> 0\.0"),
        ("inner.rate=0", r"inner\.rate: .*greater than 0"),
        ("inner.rate=NaN", r"plain finite values"),
        ("inner.rate=1e999", r"plain finite values"),
        ("model=deep model.layers=10", r"model\.layers: .*less than or equal to 9"),
        ("pair=[1]", r"pair\.1: field required"),
    ],
)
def test_a_wrong_setting_is_one_sentence_that_helps(text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said) as caught:
        words(*text.split())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["seed", "=3", "a..b=1", ".a=1", "a." * 3000 + "a=1"])
def test_only_name_equals_value_is_read(text: str) -> None:
    with pytest.raises(SettingsError, match="Settings are given as name=value"):
        core.parse_override(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-4", 5e-4), ("1.", 1.0), ("-3", -3), ("[1, 2]", [1, 2]), ("true", True),
        ("True", True), ("None", None), ("1_000", "1_000"), ("0x10", "0x10"), ("deep", "deep"),
        ('"3"', "3"), ("", ""), ("a=b", "a=b"),
    ],
)  # fmt: skip
def test_values_are_json_else_text(text: str, value: object) -> None:
    got = core.parse_value(text)
    assert (got, type(got)) == (value, type(value))


@given(st.text(max_size=30), st.text(max_size=60))
def test_any_word_is_a_setting_or_a_settings_error(name: str, value: str) -> None:
    for text in (f"{name}={value}", f"inner.rate={value}", f"model={value}"):
        try:
            words(text)
        except SettingsError as error:
            assert "\n" not in str(error) or "\n" in text  # noqa: PT017


@pytest.mark.parametrize(
    "value", ["[" * 400 + "]" * 400, "9" * 5000, '{"a":' * 99 + "1" + "}" * 99]
)
def test_hostile_values_are_refused(value: str) -> None:
    for name in ("inner.rate", "model", "seed"):
        with pytest.raises(SettingsError) as caught:
            words(f"{name}={value}")
        assert len(str(caught.value)) < 1000


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Whole().seed = 3


# ---------------------------------------------------------------- files


@pytest.mark.parametrize(
    "text",
    ['{"inner": {"rate": 1e-3}, "model": "deep"}', "inner:\n  rate: 1e-3\nmodel: deep\n",
     "inner: {rate: .001}\nmodel: {kind: deep}\n"],
)  # fmt: skip
def test_a_file_is_json_or_yaml(text: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.any"
    path.write_text(text)
    assert resolve(core.read_file(path)) == words("inner.rate=0.001", "model=deep")


def test_text_in_a_file_stays_text(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text('name: "true"\n')
    assert resolve(core.read_file(path)).name == "true"


LAUGHS = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in itertools.pairwise("abcdefghij")
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LAUGHS, "aliases"),
        ("a: &a [*a]", "aliases"),
        ("seed: 1\nseed: 2\n", "'seed' stands twice"),
        ("!!python/object/apply:os.system ['true']", "neither JSON nor YAML"),
        ("seed: !!python/name:os.system", "neither JSON nor YAML"),
        ("[1, 2]", "must hold a mapping"),
        ("", "must hold a mapping"),
        ("1: 2", "must hold a mapping"),
        ("a: [", "neither JSON nor YAML"),
        ("[" * 5000, "neither JSON nor YAML"),
        ("inner: " + "{a: " * 60 + "1" + "}" * 60, "nested too deeply"),
        ("\x00", "neither JSON nor YAML"),
        ("a: " + "x" * 1_000_001, "larger than 1 MB"),
    ],
)
def test_a_hostile_file_is_one_sentence(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=said) as caught:
        core.read_file(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_date_in_a_file_is_no_setting(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("name: 2026-01-31\n")
    with pytest.raises(SettingsError, match="plain finite values"):
        resolve(core.read_file(path))


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"\x80"])
def test_bytes_that_are_no_text_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match="neither JSON nor YAML"):
        core.read_file(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.yaml: No such file"):
        core.read_file(tmp_path / "none.yaml")


# ---------------------------------------------------------------- describing


def test_every_setting_is_described_with_default_unit_and_limits() -> None:
    found = {row.name: row for row in core.describe(Whole)}
    rate = found["inner.rate"]
    assert (rate.type, rate.default, rate.unit, rate.limits) == ("number", 0.5, "1/s", "> 0.0")
    assert found["loop.steps"].type == "whole number | none"
    assert found["model"].type == "small | deep"
    assert found["model"].default == "small"
    assert found["model.layers"].help == "[deep] Layers."
    assert found["inner.cost"].type == "plain | deep"
    shown = [row.help for row in core.describe(Whole) if row.name == "model.width"]
    assert shown == ["[small] Width of small.", "[deep] Width of deep."]
    assert set(core.names_of(Whole)) == set(found)


def test_difference_lists_leaves_under_their_dotted_names() -> None:
    old, new = (
        Whole().model_dump(mode="json"),
        words("model=deep", "seed=3").model_dump(mode="json"),
    )
    assert core.difference(old, new) == {
        "model.kind": ("small", "deep"), "model.layers": (None, 4), "model.width": (8, 64),
        "seed": (0, 3),
    }  # fmt: skip


def test_a_digest_does_not_depend_on_the_order_of_names() -> None:
    raw = Whole().model_dump(mode="json")
    turned = json.loads(json.dumps(dict(reversed(raw.items()))))
    assert core.digest(raw) == core.digest(turned) == core.digest(Whole())
    assert core.digest(words("seed=1")) != core.digest(Whole())


def test_dotted_names_become_nested() -> None:
    assert core.dotted({"a.b": 1, "a.c": 2, "d": 3}) == {"a": {"b": 1, "c": 2}, "d": 3}


def test_a_presets_variant_takes_its_settings_from_the_command_line() -> None:
    # `--preset guide` chooses model=trc, so model.size is known though the default model lacks it
    cfg = registry.resolve("control", "guide", [parse_override("model.size=large")])
    assert cfg.model_dump()["model"]["size"] == "large"
    with pytest.raises(SettingsError, match=r"Unknown setting 'model.size'"):
        registry.resolve("control", "quick", [parse_override("model.size=large")])
