"""Stores that come from anywhere: whatever their small files say, a CacheError explains it, and soon."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import case
from faults import Faults
from hostile import Raw, bounded, changed_bytes, corpus, deep, dumps, few, many, mutated
from hypothesis import given
from hypothesis import strategies as st
from intact import verify_files
from store_standins import TinySamples, cache, content

from pipeline import plugins
from pipeline.errors import CacheCorrupt, CacheError, CacheMismatch, ConfigError, PipelineError
from pipeline.inspection.summary import describe, summary_text
from pipeline.publishing.artifacts import FINGERPRINT, published, scratch_folder, unfinished
from pipeline.publishing.checksum import crc32c
from pipeline.publishing.ledger import LEDGER_FILE, Ledger
from pipeline.publishing.scratch import HOLDER
from pipeline.store.encodings import ENCODINGS
from pipeline.store.format.identity import IDENTITY, CacheIdentity
from pipeline.store.format.manifest import _arrays
from pipeline.store.format.provenance import RUNS
from pipeline.store.format.requirements import CacheRequirement
from pipeline.store.reader import TeacherCache


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cache(tmp_path_factory.mktemp("store") / "cache.zarr")


@pytest.fixture
def copied(store: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(store, tmp_path / "cache.zarr"))


@pytest.fixture(scope="module")
def scene(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy for many examples: each writes what it changes."""
    return Path(shutil.copytree(store, tmp_path_factory.mktemp("scene") / "cache.zarr"))


@pytest.fixture(scope="module")
def rewritten(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(store, tmp_path_factory.mktemp("rewritten") / "cache.zarr"))


@pytest.fixture
def described(store: Path, rewritten: Path) -> Iterator[Path]:
    """A copy of which nothing but the root's metadata and the fingerprint may be changed."""
    yield rewritten
    for name in ("zarr.json", FINGERPRINT):
        shutil.copyfile(store / name, rewritten / name)


def use(path: Path) -> None:
    """Everything that reads a store."""
    teacher = TeacherCache.open(path)
    rows, view = np.arange(min(teacher.count, 40)), teacher.views[0]
    teacher.read(view, rows)
    teacher.view_parameters(view, rows)
    teacher.view_digests(view, rows)
    assert len(teacher.labels) == teacher.count
    assert teacher.shapes.logits == teacher.read(view, rows).logits.shape[1]
    teacher.require(CacheRequirement(numbers=range(view, view + 1)))
    with contextlib.suppress(CacheMismatch):  # operations and filters that this version does not have
        teacher.manifest.identity.views.config()
        teacher.manifest.identity.signals.config()
    (facts,) = describe(path)
    assert all(line.isprintable() for line in summary_text(facts).split("\n"))
    verify_files(path)


def put(path: Path, root: bytes) -> None:
    """Make `root` the metadata of a store, and its fingerprint the store's."""
    (path / "zarr.json").write_bytes(root)
    if found := re.search(rb'"fingerprint": "([0-9a-f]{64})"', root):
        (path / FINGERPRINT).write_bytes(found[1] + b"\n")


def check(error: PipelineError) -> None:
    """A message for people: of some lines, that does nothing to their terminal."""
    text = str(error)
    assert len(text) < 4000
    assert all(line.isprintable() for line in text.split("\n"))


def survives(path: Path) -> None:
    try:
        with bounded():
            use(path)
    except CacheError as error:
        check(error)


@pytest.mark.parametrize("file", corpus("manifest"), ids=lambda file: file.stem)
def test_the_corpus_of_manifests_is_refused(described: Path, file: Path, faults: Faults) -> None:
    put(described, file.read_bytes())
    with faults("a hostile manifest of the corpus"):
        with bounded(), pytest.raises((CacheCorrupt, CacheMismatch)) as caught:
            TeacherCache.open(described)
        check(caught.value)
        text = str(caught.value)
        assert str(described) in text
        assert "another schema" not in text, "the corpus is of an earlier schema: nothing else was looked at"
        with bounded(), pytest.raises((CacheCorrupt, CacheMismatch)):
            verify_files(described)
        with bounded(), pytest.raises((CacheCorrupt, CacheMismatch)):
            describe(described)


@pytest.mark.parametrize("file", corpus("ledger"), ids=lambda file: file.stem)
def test_the_corpus_of_ledgers_is_refused(copied: Path, file: Path, faults: Faults) -> None:
    shutil.copyfile(file, copied / LEDGER_FILE)
    with faults("a hostile ledger of the corpus"):
        with bounded(), pytest.raises(CacheCorrupt) as caught:
            verify_files(copied)
        check(caught.value)


GONE_ON_FROM = (
    "a-line-without-end",
    "last-line-of-zeros-and-a-newline",
    "last-line-torn",
    "lone-surrogate-in-a-unit",
    "units-that-do-not-exist",
)


@pytest.mark.parametrize("file", [file for file in corpus("ledger") if file.stem in GONE_ON_FROM], ids=lambda f: f.stem)
def test_no_run_goes_on_from_the_corpus_of_ledgers_to_other_bytes(
    store: Path, copied: Path, tmp_path: Path, file: Path
) -> None:
    """The corpus as the ledger of unfinished work: refused with the way out, or what is wrong is done again."""
    name = published(copied)
    assert name is not None
    target = tmp_path / "again"
    folder = copied.rename(scratch_folder(target, name))
    shutil.copyfile(file, folder / LEDGER_FILE)
    try:
        cache(target)
    except CacheCorrupt as error:
        check(error)
        (folder / LEDGER_FILE).unlink()
        cache(target)
    assert {k: v for k, v in content(target).items() if k != LEDGER_FILE} == {
        k: v for k, v in content(store).items() if k != LEDGER_FILE
    }
    verify_files(target)


def forged(root: dict[str, Any], identity: Any, *, arrays: bool) -> str:
    """The metadata of a store with this identity, with fingerprint and checksum that fit it.

    arrays: list such arrays as it would have, if it can have any.
    """

    def digest(value: Any) -> str:
        return hashlib.sha256(dumps(value, canonical=True).encode(errors="surrogatepass")).hexdigest()

    manifest = {**root["attributes"], "identity": identity, "fingerprint": digest(identity)}
    if arrays:
        try:
            plan = CacheIdentity.model_validate(json.loads(dumps(identity))).layout
            manifest["arrays"] = {name: info.model_dump(mode="json") for name, info in _arrays(plan).items()}
        except Exception:  # then those that were there stay
            manifest["arrays"] = root["attributes"]["arrays"]
    del manifest["checksum"]
    return dumps({**root, "attributes": {**manifest, "checksum": digest(manifest)}})


def root_of(store: Path) -> dict[str, Any]:
    root: dict[str, Any] = json.loads((store / "zarr.json").read_bytes())
    del root["consolidated_metadata"]
    return root


def fuzz_identity(scene: Path, store: Path, data: st.DataObject) -> None:
    root = root_of(store)
    identity = data.draw(mutated(root["attributes"]["identity"]))
    put(scene, forged(root, identity, arrays=data.draw(st.booleans())).encode(errors="surrogatepass"))
    survives(scene)


@few
@given(data=st.data())
def test_any_identity_with_checksums_that_fit(scene: Path, store: Path, data: st.DataObject) -> None:
    fuzz_identity(scene, store, data)


@pytest.mark.long
@many
@given(data=st.data())
def test_very_many_identities(scene: Path, store: Path, data: st.DataObject) -> None:
    fuzz_identity(scene, store, data)


def fuzz_metadata(scene: Path, store: Path, data: st.DataObject) -> None:
    """Fields outside the identity, whose checksum need not fit, or any bytes."""
    if data.draw(st.booleans()):
        text = dumps(data.draw(mutated(root_of(store)))).encode(errors="surrogatepass")
    else:
        text = data.draw(changed_bytes((store / "zarr.json").read_bytes()))
    put(scene, text)
    survives(scene)


@few
@given(data=st.data())
def test_any_metadata(scene: Path, store: Path, data: st.DataObject) -> None:
    fuzz_metadata(scene, store, data)


@pytest.mark.long
@many
@given(data=st.data())
def test_very_much_metadata(scene: Path, store: Path, data: st.DataObject) -> None:
    fuzz_metadata(scene, store, data)


def fuzz_ledger(folder: Path, store: Path, data: st.DataObject) -> None:
    """Lines whose own checksums fit, in any number and order, or any bytes."""
    whole = (store / LEDGER_FILE).read_bytes()
    lines = whole.splitlines(keepends=True)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(lines) - 1))
        record = json.loads(lines[place]) if lines[place].startswith(b'{"check"') else {"unit": "0/0", "files": {}}
        record.pop("check", None)
        record = data.draw(mutated(record))
        text = dumps(record, canonical=True).encode(errors="surrogatepass")
        if isinstance(record, dict):
            record["check"] = f"{crc32c(text):08x}"
        lines[place] = dumps(record, canonical=True).encode(errors="surrogatepass") + b"\n"
    text = b"".join(lines)
    (folder / LEDGER_FILE).write_bytes(data.draw(changed_bytes(text)) if data.draw(st.booleans()) else text)
    try:
        with bounded():
            ledger = Ledger(folder)
    except CacheCorrupt as error:
        check(error)
        return
    before = dict(ledger.units)
    for files in before.values():
        assert all(0 <= checksum < 2**32 for checksum in files.values())
    ledger.append("one more", {"x": 1})
    assert Ledger(folder).units == {**before, "one more": {"x": 1}}


@few
@given(data=st.data())
def test_any_ledger(store: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    fuzz_ledger(tmp_path_factory.getbasetemp(), store, data)


@pytest.mark.long
@many
@given(data=st.data())
def test_very_many_ledgers(store: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    fuzz_ledger(tmp_path_factory.getbasetemp(), store, data)


@pytest.mark.parametrize("name", ["zarr.json", LEDGER_FILE, FINGERPRINT])
@pytest.mark.parametrize("kind", ["gigantic", "pipe", "link", "link to nowhere", "folder"])
def test_a_small_file_that_is_none_is_refused_at_once(copied: Path, tmp_path: Path, name: str, kind: str) -> None:
    """Neither read nor waited for: a terabyte (of holes), a pipe that nobody writes to, a link out of the store."""
    replace(copied / name, kind, tmp_path)
    with bounded(seconds=5), pytest.raises(CacheError) as caught:
        use(copied)
    check(caught.value)


def replace(path: Path, kind: str, elsewhere: Path) -> None:
    away = elsewhere / "away"
    path.rename(away)
    match kind:
        case "gigantic":
            path.touch()
            os.truncate(path, 1 << 40)
        case "pipe":
            os.mkfifo(path)
        case "link":
            path.symlink_to(away)
        case "link to nowhere":
            path.symlink_to(elsewhere / "nothing")
        case "folder":
            path.mkdir()


@pytest.mark.parametrize("place", ["logits/c/0/1/0", "logits/c/0", "logits", "head/weight/c/0/0", "features"])
def test_links_out_of_a_store_are_not_followed(copied: Path, tmp_path: Path, place: str, faults: Faults) -> None:
    replace(copied / place, "link", tmp_path)
    with faults("a link that leads out of a store"):
        with pytest.raises(CacheCorrupt, match=r"symbolic link(.|\n)*away(.|\n)*cache\.type"):
            use(copied)
        with pytest.raises(CacheCorrupt, match="a symbolic link, or behind one"):
            verify_files(copied)


def test_a_store_behind_a_link_is_read(store: Path, tmp_path: Path) -> None:
    """A person named it; only inside a store nothing leads away."""
    (tmp_path / "link.zarr").symlink_to(store)
    use(tmp_path / "link.zarr")


@pytest.mark.parametrize("place", ["logits", "logits/c/0", "labels/c/0"])
def test_unfinished_work_is_not_written_through_links(copied: Path, tmp_path: Path, place: str) -> None:
    name = published(copied)
    assert name is not None
    folder = copied.rename(scratch_folder(tmp_path / "again", name))
    replace(folder / place, "link", tmp_path)
    before = content(tmp_path / "away") if (tmp_path / "away").is_dir() else (tmp_path / "away").read_bytes()
    with pytest.raises(CacheCorrupt, match="symbolic link"):
        cache(tmp_path / "again", samples=TinySamples())
    assert before == (content(tmp_path / "away") if (tmp_path / "away").is_dir() else (tmp_path / "away").read_bytes())


@pytest.mark.parametrize("count", [2_000, 100_000])
def test_very_many_arrays_are_refused(copied: Path, count: int) -> None:
    root = root_of(copied)
    identity = root["attributes"]["identity"]
    taps = (f'"t{i}":{{"encoding":"float16","shape":[1,1,1]}}' for i in range(count))
    identity["signals"]["features"] = Raw("{" + ",".join(sorted(taps)) + "}")
    put(copied, forged(root, identity, arrays=False).encode())
    with bounded(), pytest.raises(CacheCorrupt, match=r"at most 100 items|are the most that is read"):
        TeacherCache.open(copied)


WRONG_RUNS = {
    "a mapping": b"{}",
    "no runs": b"[1]",
    "text for seconds": b'[{"views": 1, "seconds": "1"}]',
    "negative seconds": b'[{"views": 1, "seconds": -1.0}]',
    "a list for views": b'[{"views": [1], "seconds": 1.0}]',
    "true for views": b'[{"views": true, "seconds": 1.0}]',
    "nan": b'[{"views": 1, "seconds": NaN}]',
    "deep": deep(100_000).encode(),
    "no start": b'[{"views": 1, "seconds": 1.0, "device": "x", "versions": {}}]',
    "a list of versions": b'[{"views": 1, "seconds": 1.0, "started": "x", "device": "x", "versions": []}]',
    "torn": b'[{"views": 1',
    "not UTF-8": b'["\xff"]',
    "surrogate": b'[{"device": "\\ud800"}]',
}


@pytest.fixture
def begun(store: Path, tmp_path: Path) -> Path:
    """Unfinished work, whose target is `tmp_path / "again"`."""
    name = published(store)
    assert name is not None
    folder = scratch_folder(tmp_path / "again", name)
    folder.mkdir()
    return folder


def test_a_record_of_runs_that_is_none_is_refused_with_the_way_out(begun: Path) -> None:
    for name, text in WRONG_RUNS.items():
        with case(runs=name):
            (begun / RUNS).write_bytes(text)
            with bounded(), pytest.raises(CacheCorrupt, match="delete the file") as caught:
                cache(begun.parent / "again")
            check(caught.value)
            with bounded(), pytest.raises(CacheCorrupt, match="delete the file"):
                describe(begun)
    (begun / RUNS).unlink()
    cache(begun.parent / "again")


@pytest.mark.parametrize("kind", ["gigantic", "pipe", "link", "folder"])
def test_a_record_of_runs_of_another_kind_is_refused(begun: Path, kind: str) -> None:
    (begun / RUNS).write_text("[]")
    replace(begun / RUNS, kind, begun.parent)
    with bounded(seconds=10), pytest.raises(CacheCorrupt, match="delete the file"):
        cache(begun.parent / "again")


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"{}", b'{"pid": 1}', b"\xff", deep(100_000).encode(), b"null", b'{"pid": {"a": [1]}, "host": 3}'],
)
def test_a_holder_that_says_nothing_is_another_process(begun: Path, text: bytes) -> None:
    import fcntl

    (begun / HOLDER).write_bytes(text)
    with bounded():
        assert describe(begun)[0]["progress"]["holder"] is None
    descriptor = os.open(begun, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with bounded(seconds=10), pytest.raises(CacheError, match="got: another process"):
            cache(begun.parent / "again", wait=False)
    finally:
        os.close(descriptor)


def test_a_holder_cannot_write_to_the_terminal(begun: Path) -> None:
    import fcntl

    holder = {"pid": 1, "host": "\x1b]0;mine\x07", "since": "\u202eyadot", "command": "\x1b[2J" * 10}
    (begun / HOLDER).write_text(json.dumps(holder))
    descriptor = os.open(begun, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(CacheError) as caught:
            cache(begun.parent / "again", wait=False)
        check(caught.value)
        assert "\\x1b]0;mine\\x07" in str(caught.value)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"schema": 2}', b"\xff", deep(100_000).encode(), b'"\\ud800"'])
def test_what_an_unfinished_cache_says_of_itself_is_checked(begun: Path, text: bytes) -> None:
    (begun / IDENTITY).write_bytes(text)
    with bounded(), pytest.raises(CacheCorrupt) as caught:
        describe(begun)
    check(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "../../x",
        "..",
        "evil",
        "evil.py",
        ".evil",
        "/evil",
        "_contract",
        "-contract",
        "--init--",
        "__init__",
        "float16.os",
        "pipeline.cli",
        "__import__('os')",
        "",
        "float16\0",
    ],
)
def test_names_in_manifests_import_nothing_but_plugins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    with pytest.raises(ConfigError):
        plugins.load(ENCODINGS, name, "signals.logits.encoding")
    assert set(sys.modules) <= before
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "text", [b"", b"x" * 64, b"0" * 63, b"0" * 65, b"0" * 64 + b"\r\n", b" " + b"0" * 64, b"\xff" * 64]
)
def test_a_fingerprint_is_64_digits(copied: Path, text: bytes) -> None:
    (copied / FINGERPRINT).write_bytes(text)
    assert published(copied) is None
    with pytest.raises(CacheCorrupt, match="fingerprint"):
        TeacherCache.open(copied)


def test_strange_names_beside_a_target_are_not_unfinished_work(tmp_path: Path) -> None:
    for name in (".again.zzzzzzzzzzzzzzzz.partial", ".again..partial", ".again.0123456789abcdef.partial.x"):
        (tmp_path / name).mkdir()
    assert unfinished(tmp_path / "again") == []
