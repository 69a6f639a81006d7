from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import CacheCorrupt
from pipeline.publishing.ledger import LEDGER_FILE, Ledger, decode_line, encode_line

names = st.text(st.characters(codec="utf-8"), max_size=12)
checksums = st.dictionaries(names, st.integers(0, 2**32 - 1), max_size=4)
entries = st.lists(st.tuples(names, checksums), min_size=1, max_size=6, unique_by=lambda entry: entry[0])


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody cuts the power here: hundreds of lines need not reach the disk."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def write(path: Path, units: list[tuple[str, dict[str, int]]]) -> bytes:
    ledger = Ledger(path)
    for unit, files in units:
        ledger.append(unit, files)
    return (path / LEDGER_FILE).read_bytes()


@given(names, checksums)
def test_a_line_is_read_as_it_was_written(unit: str, files: dict[str, int]) -> None:
    assert decode_line(encode_line(unit, files)) == (unit, files)


@given(names, checksums, st.data())
def test_a_changed_line_is_noticed(unit: str, files: dict[str, int], data: st.DataObject) -> None:
    line = encode_line(unit, files)
    place = data.draw(st.integers(0, len(line) - 1))
    bit = data.draw(st.integers(0, 7))
    changed = line[:place] + bytes([line[place] ^ (1 << bit)]) + line[place + 1 :]
    assert decode_line(changed) is None


@given(entries, st.data())
def test_whatever_a_death_leaves_is_a_prefix_and_goes_on(
    units: list[tuple[str, dict[str, int]]], data: st.DataObject
) -> None:
    with folder() as path:
        whole = write(path, units)
        (path / LEDGER_FILE).write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
        read = Ledger(path)
        assert list(read.units.items()) == units[: len(read.units)]
        for unit, files in units[len(read.units) :]:
            read.append(unit, files)
        assert (path / LEDGER_FILE).read_bytes() == whole
        assert Ledger(path).units == dict(units)


@given(entries, st.binary(max_size=30))
def test_rubbish_behind_the_last_line_is_ignored(units: list[tuple[str, dict[str, int]]], rubbish: bytes) -> None:
    with folder() as path:
        whole = write(path, units)
        (path / LEDGER_FILE).write_bytes(whole + rubbish.replace(b"\n", b""))
        ledger = Ledger(path)
        assert ledger.units == dict(units)
        ledger.append("one more", {})
        assert (path / LEDGER_FILE).read_bytes() == whole + encode_line("one more", {})


def test_a_damaged_line_before_the_last_is_refused(tmp_path: Path) -> None:
    whole = write(tmp_path, [("a", {"x": 1}), ("b", {"x": 2})])
    (tmp_path / LEDGER_FILE).write_bytes(whole.replace(b"00000001", b"00000003"))
    with pytest.raises(CacheCorrupt, match=r"line 1\b"):
        Ledger(tmp_path)


def test_half_a_line_that_a_full_disk_took_is_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(tmp_path)
    ledger.append("a", {})
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", _full)
        with pytest.raises(OSError, match="full"):
            ledger.append("b", {})
    ledger.append("c", {})
    assert list(Ledger(tmp_path).units) == ["a", "c"]


def _full(descriptor: int) -> None:
    raise OSError("full")
