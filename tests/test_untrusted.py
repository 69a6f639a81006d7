from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import pytest
from hostile import bounded, changed_bytes, deep, dumps, few, hostile_values, mutated
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import PipelineError, printable
from pipeline.untrusted import DEEPEST, parse_json, read_file, require_plain

texts = st.text(st.characters(codec="utf-8"))
numbers = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
plain = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@few
@given(plain)
def test_plain_values_are_read_as_json_reads_them(value: object) -> None:
    text = json.dumps(value, ensure_ascii=False).encode()
    assert parse_json(text) == json.loads(text) == value
    require_plain(value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"NaN", "NaN is not a number of JSON"),
        (b"[-Infinity]", "-Infinity is not"),
        (b"1e999", "not finite"),
        (b"1" + b"0" * 5000, "more than 64 bits"),
        (b"18446744073709551616", "more than 64 bits"),
        (b"-9223372036854775809", "more than 64 bits"),
        (b'{"a": {"b": 1, "b": 1}}', "'b' occurs twice"),
        (b'["\\ud800"]', "surrogate"),
        (b'{"\\udfff": 1}', "surrogate"),
        (b'"\xff"', "not UTF-8"),
        ('"a"'.encode("utf-16"), "not UTF-8"),
        (deep(DEEPEST + 1).encode(), "nested more than 32"),
        (deep(100_000).encode(), "nested too deeply"),
        (b"[" * 500_000, "nested too deeply"),
        (b"", "Expecting value"),
        (b"[1] 2", "Extra data"),
    ],
)
def test_what_is_not_plain_is_refused_with_the_reason(text: bytes, why: str) -> None:
    with bounded(), pytest.raises(ValueError, match=why):
        parse_json(text)


def test_the_deepest_and_the_largest_are_read() -> None:
    parse_json(deep(DEEPEST).encode())
    assert parse_json(b"[18446744073709551615, -9223372036854775808]") == [2**64 - 1, -(2**63)]


@few
@given(mutated({"a": [1, {"b": "c"}], "d": 1.5}), st.data())
def test_anything_else_is_a_value_error(document: object, data: st.DataObject) -> None:
    text = dumps(document).encode(errors="surrogatepass")
    with contextlib.suppress(ValueError):
        parse_json(data.draw(changed_bytes(text)) if data.draw(st.booleans()) else text)


def test_what_occurs_in_many_places_counts_as_often() -> None:
    value: list[object] = [1]
    for _ in range(25):
        value = [value, value]
    with bounded(), pytest.raises(ValueError, match="more than 10,000 values"):
        require_plain(value, 10_000)
    itself: list[object] = []
    itself.append(itself)
    with pytest.raises(ValueError, match="nested more than"):
        require_plain(itself)


@pytest.mark.parametrize("value", [{1: 2}, {None: 1}, b"x", (1,), {1}, 1j, object()])
def test_other_kinds_are_not_plain(value: object) -> None:
    with pytest.raises(ValueError, match=r"is not text|neither text"):
        require_plain([value])


def test_files_are_read_up_to_a_size(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert read_file(path, 5) == b"12345"
    with pytest.raises(OSError, match="5 bytes, where 4 are the most"):
        read_file(path, 4)
    os.truncate(path, 1 << 43)
    with bounded(), pytest.raises(OSError, match="are the most"):
        read_file(path, 1 << 30)


def test_links_are_followed_only_if_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic link, which is not followed"):
        read_file(tmp_path / "b", 9)
    assert read_file(tmp_path / "b", 9, follow=True) == b"1"
    (tmp_path / "c").symlink_to("c")
    for follow in (False, True):
        with pytest.raises(OSError, match="symbolic link"):
            read_file(tmp_path / "c", 9, follow=follow)


def opened_files() -> set[str]:
    """What descriptors of this process stand for."""
    found = set()
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # another thread closed it
            found.add(str(each.readlink()))
    return found


def test_only_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(OSError, match="not a regular file"):
            read_file(path, 9)
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "nothing", 9)
    assert not opened_files() & {str(tmp_path / "pipe"), str(tmp_path), "/dev/zero"}


def test_messages_do_nothing_to_a_terminal() -> None:
    error = PipelineError("\x1b[2J\r\x07", where="a\u202eb", got="\ud800\n\x9b1m", fix="\tü 水 😀")
    assert str(error) == "\\x1b[2J\\r\\x07\n  where: a\\u202eb\n  got: \\ud800\n\\x9b1m\n  do: \\tü 水 😀"
    str(error).encode()


@few
@given(hostile_values.map(str))
def test_printable_text_stays_as_it_is(text: str) -> None:
    shown = printable(text)
    assert all(line.isprintable() for line in shown.split("\n"))
    if all(c.isprintable() or c == "\n" for c in text):
        assert shown == text
