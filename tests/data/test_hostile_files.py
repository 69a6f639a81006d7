"""Packed data sets and image files that come from anywhere: a DataError explains them, and soon."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from data_files import image_bytes, noise, write_packed
from faults import Faults
from hostile import bounded, changed_bytes, corpus, few, in_child, many
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.data import PackedDataset, Samples
from pipeline.data.formats import UNBACKED_PIXELS, UndecodableError
from pipeline.data.images import decode_image
from pipeline.data.sources import hdf5, image_folder
from pipeline.errors import DataError, PipelineError


def use(path: Path) -> None:
    """Everything that reads a packed data set."""
    dataset = PackedDataset.open(path)
    for name in dataset.splits:
        split = dataset.split(name)
        if split.count:
            split.read(np.arange(min(split.count, 100)))
            Samples(split).pixel_digest()
            Samples(split).ids_digest()


def use_as_source(path: Path) -> None:
    source = hdf5.open_source(hdf5.Options(path=path))
    for split in source.splits:
        for _ in zip(range(100), source.items(split), strict=False):
            pass


CORPUS = corpus("packed")


@pytest.fixture(scope="module")
def survived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The names of the files of the corpus that a process of its own opened in either way, and was refused."""
    log = tmp_path_factory.mktemp("corpus") / "survived"

    def open_all() -> None:
        with log.open("w", buffering=1) as names:
            for file in CORPUS:
                with pytest.raises(DataError):
                    use(file)
                with contextlib.suppress(PipelineError):
                    use_as_source(file)
                names.write(f"{file.name}\n")

    log.touch()
    with contextlib.suppress(AssertionError):  # each file that is not in the list fails its test
        in_child(open_all)
    return log


@pytest.mark.parametrize("file", CORPUS, ids=lambda file: file.stem)
def test_the_corpus_is_refused(file: Path, survived: Path, faults: Faults) -> None:
    with faults("a hostile packed data set of the corpus"):
        if file.name not in survived.read_text().split("\n"):  # it, or one before it, ended the process of all
            assert in_child(lambda: use(file)) == "DataError"
            in_child(lambda: use_as_source(file))
        with bounded(), pytest.raises(DataError) as caught:
            use(file)
        text = str(caught.value)
        assert str(file) in text
        assert len(text) < 3000
        assert all(line.isprintable() for line in text.split("\n"))


Make = Callable[[h5py.Group, str], object]


def array(**options: Any) -> Make:
    return lambda group, name: group.create_dataset(name, **options)


def files(*contents: bytes) -> Make:
    def make(group: h5py.Group, name: str) -> None:
        dataset = group.create_dataset(name, (len(contents),), h5py.vlen_dtype(np.uint8), chunks=(2,), maxshape=(None,))
        for row, content in enumerate(contents):
            dataset[row] = np.frombuffer(content, np.uint8)

    return make


def nothing(group: h5py.Group, name: str) -> None:
    pass


def link(kind: Any, *arguments: str) -> Make:
    def make(group: h5py.Group, name: str) -> None:
        group[name] = kind(*arguments)

    return make


text, four = h5py.string_dtype(), noise(3, 4, 5, 3)
SMALL = image_bytes(noise(4, 4, 3))
EVERYWHERE: list[Make] = [
    nothing,
    lambda group, name: group.create_group(name),
    array(data=h5py.Empty("f")),
    array(data=3),
    array(shape=(0,), dtype=np.uint8),
    array(shape=(2**50,), dtype=np.int64),
    array(shape=(2**33,), dtype=np.int64, chunks=(2**20,), compression="gzip"),
    array(shape=(2**16, 2**16, 2**16), dtype=np.uint8, chunks=(1, 1, 2**16)),
    array(shape=(3,), dtype=h5py.ref_dtype),
    array(data=np.zeros(3, [("a", "i4"), ("b", "S3")])),
    array(data=np.zeros(3, np.complex64)),
    link(h5py.SoftLink, "/train/images"),
    link(h5py.SoftLink, "/nowhere"),
    link(h5py.ExternalLink, "/etc/passwd", "/"),
    link(h5py.ExternalLink, "other.h5", "/train/images"),
]
IMAGES: list[Make] = [
    array(data=four),
    array(data=four, chunks=(1, 4, 5, 3), compression="gzip", shuffle=True, fletcher32=True),
    array(data=four, chunks=(2, 4, 5, 3), compression="lzf"),
    array(data=four, chunks=(2, 4, 5, 3), scaleoffset=0),
    array(data=noise(3, 4, 5, 3).astype(np.int8)),
    array(data=noise(3, 4, 5)),
    array(data=noise(3, 4, 5, 2)),
    array(data=noise(3, 1, 1, 1)),
    array(shape=(3, 2**12, 2**12, 3), dtype=np.uint8, chunks=(1, 2**12, 2**12, 3)),
    array(shape=(3, 2**17, 2**17, 1), dtype=np.uint8),
    files(SMALL, SMALL, SMALL),
    files(SMALL, b"", b"not an image"),
    files(SMALL, SMALL[:40], SMALL),
    array(shape=(3,), dtype=h5py.vlen_dtype(np.uint16)),
    array(shape=(3,), dtype=h5py.vlen_dtype(np.uint8), chunks=(1,), compression="gzip"),
]
LABELS: list[Make] = [
    array(data=np.array([0, 1, 0])),
    array(data=np.array([0, 1, 0], ">i2")),
    array(data=np.array([0, 1, 2**63], np.uint64)),
    array(data=np.array([0, 1, 2**60])),
    array(data=np.array([0, 1, -1])),
    array(data=np.array([0.0, 1.0, np.nan])),
    array(data=np.array([[0], [1], [0]])),
    array(data=np.array([True, False, True])),
    array(data=np.array([0, 1])),
]
IDS: list[Make] = [
    array(data=["a", "b", "c"], dtype=text),
    array(data=["a", "b", "c"], dtype=text, chunks=(2,), compression="gzip", shuffle=True),
    array(data=["a", "b", "c"], dtype=text, chunks=(2,), compression="lzf"),
    array(data=np.array([b"a", b"b", b"c"])),
    array(data=np.array([b"a", b"\xff", b"c"])),
    array(data=["a", "a", "c"], dtype=text),
    array(data=["\x1b[2J", "\u202e", "c"], dtype=text),
    array(data=["", "b", "x" * 5000], dtype=text),
    array(shape=(3,), dtype=text),
    array(data=[1, 2, 3]),
]
NAMES: list[Any] = [None, '["a", "b"]', "[]", "[1]", '{"a": 1}', '["a", "a"]', "[" * 2000, b"\xff", 3, h5py.Empty("f")]


@st.composite
def builds(draw: st.DrawFn) -> Callable[[Path], None]:
    """Writes a packed data set in which anything may be something else."""

    def one(kinds: list[Make]) -> Make:
        return draw(st.sampled_from(kinds) if draw(st.integers(0, 3)) else st.sampled_from(EVERYWHERE))

    splits = {name: (one(IMAGES), one(LABELS), one(IDS)) for name in draw(st.sampled_from([["train"], ["a", "b"], []]))}
    beside, names, latest = one([nothing]), draw(st.sampled_from(NAMES)), draw(st.booleans())

    def build(path: Path) -> None:
        with h5py.File(path, "w", libver="latest" if latest else "earliest") as file:
            for name, makes in splits.items():
                group = file.create_group(name)
                for part, make in zip(("images", "labels", "ids"), makes, strict=True):
                    make(group, part)
            beside(file, "beside")
            if names is not None:
                file.attrs["class_names"] = names

    return build


def fuzz_structure(folder: Path, build: Callable[[Path], None]) -> None:
    path = folder / "built.h5"
    build(path)
    for reader in (use, use_as_source):
        with bounded():
            try:
                reader(path)
            except DataError as error:
                assert all(line.isprintable() for line in str(error).split("\n"))  # noqa: PT017 - it may be fine


@few
@given(build=builds())
def test_any_structure(tmp_path_factory: pytest.TempPathFactory, build: Callable[[Path], None]) -> None:
    fuzz_structure(tmp_path_factory.getbasetemp(), build)


@pytest.mark.long
@many
@given(build=builds())
def test_very_many_structures(tmp_path_factory: pytest.TempPathFactory, build: Callable[[Path], None]) -> None:
    fuzz_structure(tmp_path_factory.getbasetemp(), build)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Packed data sets of pixels, of image files, and compressed in HDF5's newest form."""
    folder = tmp_path_factory.mktemp("whole")
    ids = array(data=["a", "b", "c"], dtype=text)
    write_packed(folder / "a.h5")
    for name, images, version in (("b.h5", files(SMALL, SMALL, SMALL), "earliest"), ("c.h5", IMAGES[1], "latest")):
        with h5py.File(folder / name, "w", libver=version) as file:
            group = file.create_group("train")
            images(group, "images")
            ids(group, "ids")
            file.attrs["class_names"] = "[]"
    return [path.read_bytes() for path in sorted(folder.iterdir())]


def fuzz_bytes(folder: Path, content: bytes) -> None:
    path = folder / "changed.h5"
    path.write_bytes(content)
    in_child(lambda: (use(path), use_as_source(path)))


@settings(few, max_examples=12)
@given(data=st.data())
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, whole: list[bytes], data: st.DataObject) -> None:
    fuzz_bytes(tmp_path_factory.getbasetemp(), data.draw(changed_bytes(data.draw(st.sampled_from(whole)))))


@pytest.mark.long
@many
@given(data=st.data())
def test_very_many_bytes(tmp_path_factory: pytest.TempPathFactory, whole: list[bytes], data: st.DataObject) -> None:
    fuzz_bytes(tmp_path_factory.getbasetemp(), data.draw(changed_bytes(data.draw(st.sampled_from(whole)))))


def test_ratios_of_real_compression_are_read(tmp_path: Path) -> None:
    """The best that gzip can do, chunks with padding, and strings behind every filter that is known."""
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("train")
        zeros = np.zeros((1000, 32, 32, 3), np.uint8)
        group.create_dataset("images", data=zeros, chunks=(1000, 32, 32, 3), compression="gzip", compression_opts=9)
        names = [f"{i}" for i in range(1000)]
        group.create_dataset("ids", data=names, dtype=text, compression="gzip", shuffle=True)
        group.create_dataset("labels", data=np.zeros(1000, np.int64), compression="lzf")
        assert group["images"].nbytes / group["images"].id.get_storage_size() > 950
    split = PackedDataset.open(path).split("train")
    assert split.ids == tuple(names)
    assert int(split.read(np.array([0, 999])).sum()) == 0  # type: ignore[union-attr]


def test_a_file_in_a_user_block_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w", userblock_size=512) as file:
        group = file.create_group("train")
        files(SMALL, SMALL, SMALL)(group, "images")
        IDS[0](group, "ids")
    split = PackedDataset.open(path).split("train")
    assert split.ids == ("a", "b", "c")
    assert len(split.read(np.arange(3))) == 3


def png(width: int, height: int, rows: bytes = b"", *chunks: tuple[bytes, bytes]) -> bytes:
    """A grey PNG file that claims a size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    middle = b"".join(chunk(*c) for c in chunks)
    return b"\x89PNG\r\n\x1a\n" + head + middle + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def header(kind: str, width: int, height: int) -> bytes:
    """A tiny image file whose header claims another size."""
    whole = image_bytes(noise(3, 5, 3), kind)
    old, new = {
        "BMP": (struct.pack("<ii", 5, 3), struct.pack("<ii", width, height)),
        "GIF": (struct.pack("<HH", 5, 3), struct.pack("<HH", width % 2**16, height % 2**16)),
        "JPEG": (struct.pack(">HH", 3, 5), struct.pack(">HH", height % 2**16, width % 2**16)),
        "PPM": (b"5 3", f"{width} {height}".encode()),
        "PNG": (struct.pack(">II", 5, 3), struct.pack(">II", width, height)),
    }[kind]
    assert old in whole
    return whole.replace(old, new)


@pytest.mark.parametrize("kind", ["BMP", "GIF", "JPEG", "PPM", "PNG"])
@pytest.mark.parametrize("size", [(65_535, 65_535), (2**31 - 1, 2**31 - 1), (2**20, 65), (8192, 8193)])
def test_an_image_that_claims_gigabytes_is_refused_before_memory_is_taken(kind: str, size: tuple[int, int]) -> None:
    content = header(kind, *size)
    with bounded(memory=100 << 20), pytest.raises(UndecodableError):
        decode_image(content)


def test_the_largest_claim_names_itself() -> None:
    content = png(8192, UNBACKED_PIXELS // 8192 + 1)
    with pytest.raises(UndecodableError, match=r"claims 8192 x 8193 pixels, where 67,108,864 are the most"):
        decode_image(content)


def test_a_bomb_in_a_text_chunk_is_refused() -> None:
    bomb = zlib.compress(bytes(80 << 20), 1)
    content = png(2, 2, bytes(6), (b"zTXt", b"a\0\0" + bomb))
    with bounded(memory=50 << 20), pytest.raises(UndecodableError):
        decode_image(content)


def test_formats_that_run_other_programs_are_not_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow would start Ghostscript for this one."""
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path / 'ran'}\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    stream = io.BytesIO()
    Image.fromarray(noise(4, 4, 3)).save(stream, "EPS")
    with pytest.raises(UndecodableError, match="not an image of a known format"):
        decode_image(stream.getvalue())
    assert not (tmp_path / "ran").exists()


@few
@given(data=st.data())
def test_any_image_file(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"]))
    content = data.draw(changed_bytes(image_bytes(noise(6, 7, 3), kind)))
    with bounded():
        try:
            assert decode_image(content).pixels.dtype == np.uint8
        except UndecodableError as error:
            assert str(error)  # noqa: PT017 - it may be fine


def test_an_image_folder_is_not_held_up_by_a_pipe_or_a_terabyte(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "a.png").write_bytes(SMALL)
    os.mkfifo(tmp_path / "cat" / "b.png")
    (tmp_path / "cat" / "c.png").touch()
    os.truncate(tmp_path / "cat" / "c.png", 1 << 40)
    source = image_folder.open_source(image_folder.Options(path=tmp_path))
    with bounded():
        items = [item.image for item in source.items("train")]
    assert items[0] == SMALL
    assert [getattr(item, "reason", "") for item in items[1:]] == [
        "not a regular file",
        "1,099,511,627,776 bytes, where 1,073,741,824 are the most that is read",
    ]
