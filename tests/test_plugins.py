"""One way to name a plug-in, whatever its kind: `{name, **options}`, or the bare name."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import Field

from pipeline import plugins
from pipeline.config import Section, bind
from pipeline.data.config import DataConfig
from pipeline.errors import ConfigError
from pipeline.objectives import ObjectivesConfig
from pipeline.signals import SignalsConfig
from pipeline.store.encodings import load_encoding, resolved_encoding
from pipeline.views import ViewsConfig


class Sections(Section):
    data: DataConfig | None = None
    views: ViewsConfig = ViewsConfig()
    signals: SignalsConfig = SignalsConfig()
    objectives: ObjectivesConfig = Field(default_factory=dict)


def named(kind: str, choice: Any) -> Sections:
    """Sections that name one plug-in of a kind, as far as it is known without a network."""
    raw = {
        "source": {"data": {"path": "x.h5", "source": choice}},
        "operation": {"views": {"operations": [choice]}},
        "objective": {"objectives": {"mine": [choice]}},
        "encoding": {"signals": {"logits": {"encoding": choice}}},
        "filter": {"signals": {"features": {"filter": choice}}},
        "extra": {"signals": {"extras": [choice]}},
    }[kind]
    sections = bind(raw, Sections, list(Sections.model_fields))
    if kind == "encoding":
        load_encoding(sections.signals.logits.encoding, "logits", (10,))
    return sections


KINDS = {
    "source": ("data.source", "digits", "digts"),
    "operation": ("views.operations.0", "horizontal-flip", "horizontal-flop"),
    "objective": ("objectives.mine.0", "kd", "kdd"),
    "encoding": ("signals.logits.encoding", "float16", "float17"),
    "filter": ("signals.features.filter", "mean", "maen"),
    "extra": ("signals.extras.0", "channel-gram/block2", "chanel-gram/block2"),
}
"""Where each kind stands in a configuration, one of it that needs no options, and a typo."""

each_kind = pytest.mark.parametrize("kind", KINDS)


def refused(kind: str, choice: Any) -> str:
    with pytest.raises(ConfigError) as error:
        named(kind, choice)
    assert len(error.value.problems) == 1
    return str(error.value.problems[0])


@each_kind
def test_a_bare_name_is_a_mapping_without_options(kind: str) -> None:
    name = KINDS[kind][1]
    bare, mapping = named(kind, name), named(kind, {"name": name})
    if kind == "encoding":  # kept as it was written: which there are is known to the store
        chosen = [sections.signals.logits.encoding for sections in (bare, mapping)]
        assert resolved_encoding(chosen[0], "logits") == resolved_encoding(chosen[1], "logits") == name
    else:
        assert bare.model_dump(mode="json") == mapping.model_dump(mode="json")


@each_kind
def test_a_typo_names_the_nearest_in_the_same_words(kind: str) -> None:
    key, name, typo = KINDS[kind]
    plain, wanted = typo.partition("/")[0], name.partition("/")[0]
    for choice, place in ((typo, key), ({"name": typo}, f"{key}.name")):
        text = refused(kind, choice)
        assert text.startswith((f"{place}: unknown name '{plain}'", f"{key}.name: unknown name '{plain}'"))
        assert f"expected: one of {wanted}" in text or f", {wanted}" in text
        assert f"got: '{plain}" in text
        assert f"do: did you mean '{wanted}'?" in text


@each_kind
def test_a_mapping_without_a_name_says_so_at_its_key(kind: str) -> None:
    key = KINDS[kind][0]
    for nameless in ({}, {"nme": "x"}, {"name": None}):
        assert refused(kind, nameless).startswith(f"{key}.name: the name is missing")
    assert refused(kind, {"name": 3}).startswith(f"{key}.name: is no name")


@each_kind
@pytest.mark.parametrize("choice", [3, 1.5, True, ["mean"]])
def test_what_is_neither_a_name_nor_a_mapping_is_refused(kind: str, choice: object) -> None:
    assert refused(kind, choice).startswith(f"{KINDS[kind][0]}: is no name and no mapping that has one")


@each_kind
def test_an_unknown_option_is_refused_at_its_key(kind: str) -> None:
    key, name, _ = KINDS[kind]
    assert refused(kind, {"name": name, "no_such_option": 1}).startswith(f"{key}.no_such_option: unknown key")


def test_every_problem_of_the_options_is_reported() -> None:
    with pytest.raises(ConfigError) as error:
        plugins.choose_at("a.b", "pipeline.views.operations", {"name": "pad-crop", "pading": 1, "padding": -1})
    assert [problem.key for problem in error.value.problems] == ["a.b.padding", "a.b.pading"]


def test_a_name_with_braces_is_quoted_as_it_is() -> None:
    assert "unknown name '{x}'" in refused("operation", "{x}")


def test_the_options_of_a_file_without_any_are_none() -> None:
    chosen = plugins.choose("pipeline.store.encodings", "float16")
    assert (chosen.name, chosen.module.__name__) == ("float16", "pipeline.store.encodings.float16")
    assert chosen.options == plugins.NoOptions()
