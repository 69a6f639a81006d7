"""Whatever happens to a file of a cache is found, and named."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults import Faults
from intact import verify_files
from store_standins import TinySamples, TinyViews, cache

from pipeline.errors import CacheMismatch, CacheNotFound, CacheUnfinished
from pipeline.inspection.files import check_files
from pipeline.publishing import fingerprint
from pipeline.publishing.ledger import encode_line
from pipeline.store.format.chunks import write_chunk
from pipeline.store.format.identity import CacheIdentity
from pipeline.store.format.manifest import Manifest
from pipeline.store.format.zarr_files import laid_out
from pipeline.store.reader import TeacherCache
from pipeline.untrusted import read_file


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two views of five samples in two row blocks: 42 files."""
    target = tmp_path_factory.mktemp("store") / "cache.zarr"
    return cache(target, samples=TinySamples(5), views=TinyViews(2), rows_per_block=4)


@pytest.fixture
def copied(store: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(store, tmp_path / "cache.zarr"))


def files(path: Path) -> list[str]:
    return sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())


def test_a_whole_cache_is_whole(store: Path) -> None:
    report = check_files(store)
    assert report.damaged == {}
    assert report.files == len(files(store)) == TeacherCache.open(store).manifest.layout.files
    assert report.bytes == sum((store / name).stat().st_size for name in files(store))


@pytest.fixture(scope="module")
def compressed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with zstd."""
    target = tmp_path_factory.mktemp("store") / "cache.zarr"
    return cache(target, samples=TinySamples(5), views=TinyViews(2), rows_per_block=4, compression="zstd")


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_a_changed_byte_of_any_file_is_found_and_no_other_file_is_blamed(
    store: Path, compressed: Path, tmp_path: Path, faults: Faults, compression: str | None
) -> None:
    """Every file, at random places; in the small files that say what the others are, many more."""
    generator, trials = random.Random(0), 0
    copied = Path(shutil.copytree(compressed if compression else store, tmp_path / "cache.zarr"))
    assert TeacherCache.open(copied).manifest.layout.compression == compression
    for names in together(files(copied)):
        whole = {name: (copied / name).read_bytes() for name in names}
        # They are read in the same way whether chunks are compressed or not.
        often = 40 if names[0] in ("zarr.json", "ledger.jsonl", ".fingerprint") and not compression else 4
        for _ in range(often):
            places = {name: generator.randrange(len(content)) for name, content in whole.items()}
            for name, place in places.items():
                damaged = bytearray(whole[name])
                damaged[place] ^= generator.randrange(1, 256)
                (copied / name).write_bytes(damaged)
            faults.count("a changed byte of any file, found by `verify`", tried=len(names), survived=0)
            assert list(check_files(copied).damaged) == names, places
            faults.count("a changed byte of any file, found by `verify`", tried=0, survived=len(names))
            trials += len(names)
        for name, content in whole.items():
            (copied / name).write_bytes(content)
    assert trials == 4 * len(files(copied)) + (0 if compression else 3 * 36)
    assert check_files(copied).damaged == {}


def together(names: list[str]) -> list[list[str]]:
    """Every file, in an order: chunks in groups, in which every third is, and each of the others by itself."""
    chunks = [name for name in names if "/c/" in name]
    return [*([name] for name in names if "/c/" not in name), *(chunks[start::3] for start in range(3))]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, half, longer, zeros, empty, Path.unlink])
def test_a_file_that_is_cut_longer_empty_or_gone_is_found(copied: Path, damage: Callable[[Path], None]) -> None:
    for names in together(files(copied)):
        whole = {name: (copied / name).read_bytes() for name in names}
        for name in names:
            damage(copied / name)
        assert list(check_files(copied).damaged) == names
        for name, content in whole.items():
            (copied / name).write_bytes(content)


def test_all_damaged_files_are_named_not_only_the_first(copied: Path) -> None:
    """Even if the manifest is among them, which says what there should be: then the ledger does."""
    for name in ("logits/c/0/1/0", "view_digest/c/1/0", "head/bias/c/0"):
        zeros(copied / name)
    (copied / "embedding/c/1/1/0").unlink()
    (copied / "notes.txt").write_text("mine")
    chunks = ["embedding/c/1/1/0", "head/bias/c/0", "logits/c/0/1/0", "notes.txt", "view_digest/c/1/0"]
    assert list(check_files(copied).damaged) == chunks
    cut(copied / ".fingerprint")
    zeros(copied / "features/zarr.json")
    assert list(check_files(copied).damaged) == sorted([*chunks, ".fingerprint", "features/zarr.json"])
    (copied / "features/zarr.json").unlink()
    zeros(copied / "zarr.json")
    assert list(check_files(copied).damaged) == sorted([*chunks, "zarr.json"])  # of fingerprints, it knows none


@pytest.mark.parametrize("pair", [("logits/c/0/0/0", "logits/c/1/0/0"), ("labels/zarr.json", "logits/zarr.json")])
def test_swapped_files_are_found(copied: Path, pair: tuple[str, str]) -> None:
    one, other = ((copied / name).read_bytes() for name in pair)
    assert one != other
    (copied / pair[0]).write_bytes(other)
    (copied / pair[1]).write_bytes(one)
    assert list(check_files(copied).damaged) == list(pair)


def test_a_ledger_without_a_unit_or_with_a_foreign_one(copied: Path) -> None:
    path = copied / "ledger.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2] + lines[3:]))
    assert check_files(copied).damaged == {"ledger.jsonl": "does not list 0/1"}
    path.write_bytes(b"".join([*lines, encode_line("7/0", {"logits/c/7/0/0": 1})]))
    assert check_files(copied).damaged == {"ledger.jsonl": "lists 7/0, of which the manifest knows nothing"}


def test_a_file_that_the_disk_cannot_read_is_named(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: Path, most: int) -> bytes:
        if path.name == "1" and "labels" not in str(path):
            raise OSError(5, "Input/output error", str(path))
        return read_file(path, most)

    monkeypatch.setattr("pipeline.publishing.folder_files.read_file", broken)
    damaged = check_files(copied).damaged
    assert set(damaged.values()) == {"cannot be read: Input/output error"}
    assert "view_digest/c/0/1" in damaged


# What was written as it is, and yet cannot be what was computed: a defect of who wrote it.


def rewrite(path: Path, name: str, change: Callable[[Any], None]) -> None:
    """Change the elements of a chunk file, with its checksum there and in the ledger."""
    plan = Manifest.read(path).layout
    spec = (plan.arrays | plan.static)[name.split("/c/")[0]]
    elements = np.frombuffer((path / name).read_bytes()[:-4], spec.dtype).reshape(spec.chunk).copy()
    change(elements)
    crc = write_chunk(path / name, elements)
    lines = []
    for line in (path / "ledger.jsonl").read_text().splitlines():
        record = json.loads(line)
        checksums = {file: int(value, 16) for file, value in record["files"].items()}
        lines.append(encode_line(record["unit"], checksums | ({name: crc} if name in checksums else {})))
    (path / "ledger.jsonl").write_bytes(b"".join(lines))


def put(place: Any, value: Any) -> Callable[[Any], None]:
    return lambda elements: elements.__setitem__(place, value)


@pytest.mark.parametrize(
    ("name", "change", "what"),
    [
        ("logits/c/0/0/0", put((0, 1, 2), np.nan), "1 of 4 rows have values that are not finite"),
        ("embedding/c/1/1/0", put((0, 0), np.inf), "1 of 1 rows have values that are not finite"),
        ("head/weight/c/0/0", put((3, 1), np.nan), "1 of 5 rows have values that are not finite"),
        ("view_digest/c/0/0", put((0, 3), 2**64 - 1), "1 of 4 rows were never written"),
        ("logits/c/1/1/0", put((0, 2), 0), "rows beyond the last sample do not hold the fill value"),
        ("view_parameters/c/1/1/0", put((0, 3), 0), "rows beyond the last sample do not hold the fill value"),
        ("labels/c/0", put(2, 5), "1 labels are not -1 to 4"),
        ("labels/c/0", put(2, -2), "1 labels are not -1 to 4"),
    ],
)
def test_values_that_nobody_computed_are_found(
    copied: Path, name: str, change: Callable[[Any], None], what: str
) -> None:
    rewrite(copied, name, change)
    assert check_files(copied).damaged == {name: what}


def test_values_that_look_like_nothing_but_may_be_are_let_pass(copied: Path) -> None:
    """An absent label, and the bits of -0.0 among the parameters, which is the fill value."""
    rewrite(copied, "labels/c/0", put(1, -1))
    rewrite(copied, "view_parameters/c/0/0/0", put((0, 0), -(2**31)))
    assert check_files(copied).damaged == {}


def signed(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the identity and make fingerprint and checksums fit again."""
    root = json.loads((path / "zarr.json").read_bytes())
    identity = root["attributes"]["identity"]
    change(identity)
    old = Manifest.model_validate(root["attributes"])
    manifest = Manifest.of(CacheIdentity.model_validate(identity), old.provenance, {"zarr.json": b"{}"})
    root["attributes"] = {**manifest.attributes(), "metadata": old.metadata}
    again = Manifest.model_validate(root["attributes"])
    root["attributes"]["checksum"] = again._checksum()
    (path / "zarr.json").write_bytes(laid_out(root))
    (path / ".fingerprint").write_text(manifest.fingerprint + "\n")


def test_a_manifest_that_contradicts_itself_is_found(copied: Path) -> None:
    signed(copied, lambda identity: identity["teacher"].update(num_classes=5))
    assert check_files(copied).damaged == {}
    signed(copied, lambda identity: identity["teacher"].update(num_classes=9))
    assert check_files(copied).damaged == {"zarr.json": "the teacher has 9 classes, its logits 5"}


def test_metadata_of_other_arrays_than_the_manifest_says_is_found(copied: Path) -> None:
    signed(copied, lambda identity: identity["signals"]["logits"].update(encoding="float32"))
    damaged = check_files(copied).damaged
    assert damaged["logits/zarr.json"] == "data_type is float16, in the manifest float32"
    assert damaged["logits/c/0/0/0"] == "44 bytes instead of 84"


# What is no cache, or none of this version.


def test_what_is_no_finished_cache_is_refused_and_not_called_damaged(copied: Path, tmp_path: Path) -> None:
    with pytest.raises(CacheNotFound, match="there is no teacher cache"):
        check_files(tmp_path / "nothing")
    with pytest.raises(CacheNotFound, match=r"no zarr\.json"):
        check_files(tmp_path)
    partial = tmp_path / f".half.{'0' * 16}.partial"
    shutil.copytree(copied, partial)
    (partial / ".fingerprint").unlink()
    for path in (partial, tmp_path / "half"):
        with pytest.raises(CacheUnfinished, match="goes on"):
            check_files(path)
    signed(copied, lambda identity: None)
    root = json.loads((copied / "zarr.json").read_bytes())
    root["attributes"]["schema"] = 3
    (copied / "zarr.json").write_bytes(laid_out(root))
    assert list(check_files(copied).damaged) == ["zarr.json"]  # nobody wrote that
    attributes = {key: value for key, value in root["attributes"].items() if key != "checksum"}
    root["attributes"]["checksum"] = fingerprint(attributes)
    (copied / "zarr.json").write_bytes(laid_out(root))
    with pytest.raises(CacheMismatch, match="another schema"):
        check_files(copied)


def test_verifying_changes_nothing(copied: Path) -> None:
    before = {name: (copied / name).stat().st_mtime_ns for name in files(copied)}
    verify_files(copied)
    assert {name: (copied / name).stat().st_mtime_ns for name in files(copied)} == before
