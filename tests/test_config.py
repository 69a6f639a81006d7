from __future__ import annotations

import io
import os
import warnings
from pathlib import Path

import pytest
from hostile import bounded, corpus
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field
from ruamel.yaml import YAML

from pipeline.config import LocalPath, Name, Section, bind, bind_each, in_order
from pipeline.errors import ConfigError, Problem
from pipeline.untrusted import require_plain
from pipeline.yaml_text import MOST_BYTES, override, parse_yaml, read_config, to_yaml


class Inner(Section):
    learning_rate: float = Field(0.1, gt=0)
    epochs: int = 3


class Outer(Section):
    train: Inner = Inner()
    students: dict[str, Inner] = Field(default_factory=dict)
    items: tuple[Inner, ...] = ()


KNOWN = ("train", "students", "items", "report")


def problems(raw: dict) -> str:
    with pytest.raises(ConfigError) as error:
        bind(raw, Outer, KNOWN, "some.yaml")
    assert error.value.exit_code == 2
    return str(error.value)


def test_yaml_is_version_1_2():
    assert parse_yaml("a: 1e-4\nb: no\nc: 0o17\nd: 12:30", "text") == {"a": 1e-4, "b": "no", "c": 15, "d": "12:30"}


def test_yaml_round_trip_keeps_order():
    value = {"z": 1, "a": {"y": [1, 2.5, None, True], "b": "no"}}
    again = parse_yaml(to_yaml(value), "text")
    assert again == value
    assert list(again) == ["z", "a"]


WORDS = st.lists(
    st.sampled_from(["no", "1e-4", "- ", "a:", "x-", "#", "'", "\\", "cache-teacher", "/a/long/path" * 7]), max_size=12
).map(" ".join)
PLAIN = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(allow_nan=False),
        st.text(max_size=40),
        WORDS,
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9) | WORDS, inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=60)
@given(PLAIN)
def test_bytes_are_those_of_the_emitter_in_python_and_are_read_back(value: object) -> None:
    stream = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style, yaml.sort_base_mapping_type_on_output = False, False
    yaml.dump(value, stream)
    assert to_yaml(value) == stream.getvalue()


@settings(max_examples=100)
@given(st.text("ab1:-#'\"{}[]*!|>,.\n  ~?&%\t", max_size=18).map("k: ".__add__) | PLAIN.map(to_yaml))
def test_values_and_errors_are_those_of_the_parser_in_python(text: str) -> None:
    try:
        with warnings.catch_warnings(action="ignore"):
            expected = YAML(typ="safe", pure=True).load(text)
        require_plain(expected, 1000)
    except Exception as error:  # dates that are none, for example, raise others than YAMLError
        first = str(error).splitlines()[0]
        with pytest.raises(ConfigError) as caught, warnings.catch_warnings(action="ignore"):
            parse_yaml(text, "text")
        assert first in str(caught.value)
    else:
        assert repr(parse_yaml(text, "text")) == repr(expected)


def test_who_parses_a_text_again_gets_values_of_their_own():
    first = parse_yaml("a: {b: [1]}", "text")
    first["a"]["b"].append(2)
    assert parse_yaml("a: {b: [1]}", "text") == {"a": {"b": [1]}}


def test_every_problem_is_reported_at_once_with_key_expected_got_and_nearest_name():
    text = problems(
        {
            "trian": {},
            "train": {"learning_rat": 1, "epochs": "many"},
            "students": {"small": {"learning_rate": -1}},
            "items": [{}, {"epoch": 2}],
        }
    )
    assert text.startswith("5 problems in the configuration some.yaml")
    assert "trian: unknown name 'trian'" in text
    assert "did you mean 'train'?" in text
    assert "train.learning_rat: unknown key" in text
    assert "expected: one of learning_rate, epochs" in text
    assert "did you mean 'learning_rate'?" in text
    assert "train.epochs: Input should be a valid integer" in text
    assert "got: 'many'" in text
    assert "students.small.learning_rate: Input should be greater than 0" in text
    assert "items.1.epoch: unknown key" in text


def test_sections_of_other_stages_are_left_alone():
    assert bind({"report": {"anything": 1}, "train": {"epochs": 9}}, Outer, KNOWN).train.epochs == 9


def test_valid_sections_and_entries_are_bound_though_others_are_not():
    raw = {
        "items": [{"epoch": 1}],
        "students": {"good": {"epochs": 2}, "bad": {"epochs": "many", "learning_rate": 0}, "worse": 1},
        "train": {"epochs": 9},
        "trian": {},
    }
    valid, found = bind_each(raw, Outer, KNOWN)
    assert valid == {"train": Inner(epochs=9), "students": {"good": Inner(epochs=2)}}
    with pytest.raises(ConfigError) as error:
        bind(raw, Outer, KNOWN)
    assert error.value.problems == tuple(in_order(found, raw))  # the same as all at once
    assert [problem.key for problem in in_order(found, raw)] == [
        "items.0.epoch",
        "students.bad.learning_rate",
        "students.bad.epochs",
        "students.worse",
        "trian",
    ]


def test_bound_each_by_itself_or_all_at_once_is_the_same():
    raw = {"train": {"epochs": 5}, "items": [{}, {"learning_rate": 1}], "report": {"anything": 1}}
    valid, found = bind_each(raw, Outer, KNOWN)
    assert found == []
    assert Outer(**valid) == bind(raw, Outer, KNOWN)
    assert valid["students"] == {}


def test_a_section_of_named_things_that_is_none_is_not_valid():
    valid, found = bind_each({"students": [1]}, Outer, KNOWN)
    assert "students" not in valid
    assert [problem.key for problem in found] == ["students"]
    valid, found = bind_each({"students": {7: {}, "a": {}}}, Outer, KNOWN)
    assert list(valid["students"]) == ["a"]
    assert len(found) == 1


def test_problems_are_listed_once_and_in_the_order_of_the_file():
    raw = {"b": 1, "a.x": 1, "a": 1}
    listed = [Problem(key, "") for key in ("(top level)", "a.y", "a.x", "b.1", "a.y", "b.0", "c")]
    assert [problem.key for problem in in_order(listed, raw)] == ["b.1", "b.0", "a.x", "a.y", "(top level)", "c"]


def test_sections_are_frozen():
    with pytest.raises(Exception, match="frozen"):
        Inner().epochs = 4


@pytest.mark.parametrize("opened", ["[a, ", "{a: ", "? ", "- "])
def test_nesting_that_libyaml_would_die_of_is_refused(opened: str) -> None:
    """It has no limit of its own: the process would end without a word."""
    with pytest.raises(ConfigError, match="nested too deeply"):
        parse_yaml(opened * (MOST_BYTES // len(opened)), "text")


def test_overrides():
    raw = {"train": {"epochs": 3}, "items": [{"epochs": 1}], "none": None}
    changed = override(raw, ["train.epochs=5", "items.0.epochs=7", "none.deep.er=1e-3", "new=[a, {b: 1}]"])
    assert changed == {
        "train": {"epochs": 5},
        "items": [{"epochs": 7}],
        "none": {"deep": {"er": 1e-3}},
        "new": ["a", {"b": 1}],
    }
    assert raw["train"]["epochs"] == 3


def test_bad_overrides_are_all_named():
    with pytest.raises(ConfigError) as error:
        override({"train": {"epochs": 3}}, ["train", "train.epochs.more=1", "=2", "train.epochs=[1"])
    assert len(error.value.problems) == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file"),
        (b"a: [1, 2", "is not valid YAML"),
        (b"a: 1\na: 2", "is not valid YAML"),
        (b"- 1\n- 2", "is not a mapping of sections"),
        (b"\xff\xfe\x00", "is not a text file"),
    ],
)
def test_unreadable_files(tmp_path: Path, content: bytes | None, message: str):
    path = tmp_path / "config.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read_config(path)


@pytest.mark.parametrize("file", corpus("config"), ids=lambda file: file.stem)
def test_the_corpus_is_refused_at_once_and_nothing_is_executed(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    with bounded(), pytest.raises(ConfigError) as caught:
        bind(read_config(file), Outer, KNOWN, file)
    text = str(caught.value)
    assert str(file) in text
    assert len(text) < 2000
    assert all(line.isprintable() for line in text.split("\n"))
    assert not list(tmp_path.iterdir())


def test_a_configuration_of_a_gigabyte_is_not_read(tmp_path: Path):
    path = tmp_path / "config.yaml"
    path.touch()
    os.truncate(path, 1 << 40)
    with bounded(), pytest.raises(ConfigError, match="too long for a configuration"):
        read_config(path)


def test_aliases_are_values_of_their_own():
    raw = parse_yaml("students: {a: &x {epochs: 1}, b: *x}", "text")
    assert override(raw, ["students.a.epochs=2"]) == {"students": {"a": {"epochs": 2}, "b": {"epochs": 1}}}


@pytest.mark.parametrize(
    "text", ["a=&x [*x]", "a=.nan", "a=2001-01-01", "a=[" * 50, "a" + ".a" * 100 + "=1", 'a="\\ud800"']
)
def test_overrides_are_plain_values(text: str):
    with pytest.raises(ConfigError):
        override({}, [text])


class Named(Section):
    things: dict[Name, int]


@pytest.mark.parametrize("name", ["a b", "", "../x", "-a", ".a", "a/b", "ä", "a\n"])
def test_names_are_refused_in_words(name: str):
    with pytest.raises(ConfigError, match="a name begins with a letter or digit, and has"):
        bind({"things": {name: 1}}, Named, ["things"])
    assert bind({"things": {"resnet20_x4.b-1": 1}}, Named, ["things"]).things


class Placed(Section):
    path: LocalPath


@pytest.mark.parametrize(
    ("written", "meant"), [("~/a.h5", "/home/me/a.h5"), ("a/~/b", "a/~/b"), ("~nobody-at-all/a", "~nobody-at-all/a")]
)
def test_a_tilde_is_the_home_folder(written: str, meant: str, monkeypatch: pytest.MonkeyPatch):
    """A folder with that name would be made else, and whoever removes it removes more."""
    monkeypatch.setenv("HOME", "/home/me")
    assert bind({"path": written}, Placed, ["path"]).path == Path(meant)
