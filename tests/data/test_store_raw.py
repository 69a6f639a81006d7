"""`data.source.store: raw`: pixels in a packed file, reduced as the operation `resize` reduces them."""

from __future__ import annotations

import hashlib
import io
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_files import ListSource, noise
from odd_images import oriented, photograph, saved
from PIL import Image

from pipeline.data import Item, PackedDataset, Samples, SourceOptions, images, pack, split
from pipeline.data.raw_pixels import decode_raw, encode_raw
from pipeline.errors import DataError
from pipeline.progress import Silent
from pipeline.views import ViewsConfig, build_views
from pipeline.views.shrinking import shrink, shrinking

SIDE = 12
CLEAR = np.dstack([photograph(20, 26, 4), np.arange(0, 260, 13, dtype=np.uint8)[:, None].repeat(26, 1)])
FILES = [
    saved(photograph(30, 40), "JPEG", exif=oriented(6)),
    saved(photograph(17, 45, 1), "JPEG", subsampling=2),
    saved(photograph(20, 20, 2)[:, :, 0]),
    saved(CLEAR),
    saved(photograph(9, 14, 3), "JPEG"),  # smaller: stays
]


class Options(SourceOptions):
    """Of a source of this test."""

    name: str = "list"


def packed(path: Path, files: list[Any], **options: Any) -> PackedDataset:
    items = [Item(file, 0, str(number)) for number, file in enumerate(files)]
    pack(ListSource(train=items), path, Silent(), options=Options(**options), shrink=shrink)
    return PackedDataset.open(path)


def read(dataset: PackedDataset) -> list[np.ndarray]:
    part = dataset.split("train")
    return [image.numpy() for image in part.read(np.arange(part.count))]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> PackedDataset:
    return packed(tmp_path_factory.mktemp("raw") / "x.h5", FILES, shorter_side=SIDE, store="raw")


def test_pixels_are_those_that_the_operation_resize_makes_of_the_files(raw: PackedDataset, tmp_path: Path) -> None:
    views = build_views(ViewsConfig.model_validate({"operations": [{"name": "resize", "size": SIDE}]}))
    whole = packed(tmp_path / "files.h5", FILES).split("train").read(np.arange(5))
    found = read(raw)
    for image, small in zip(whole[:4], found[:4], strict=True):
        expected = views.apply([image], np.empty((1, 0), np.int32))[0].numpy()
        assert small.shape[1:] == expected.shape[1:] != image.shape[1:]
        assert np.array_equal(small, expected)
    assert np.array_equal(found[4], whole[4])
    assert [image.shape for image in found[:2]] == [(3, 16, 12), (3, 12, 31)]  # upright; rounded down


def test_nothing_is_decoded_when_they_are_read(raw: PackedDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = read(raw)
    monkeypatch.setattr(split, "decode_image", None)
    assert all(map(np.array_equal, read(raw), expected))


def test_any_reader_of_images_understands_what_is_stored(raw: PackedDataset) -> None:
    stored = raw.split("train").stored(np.arange(5))
    for file, image in zip(stored, read(raw), strict=True):
        with Image.open(io.BytesIO(file.tobytes())) as opened:
            assert opened.format == "PPM"
            assert np.array_equal(np.asarray(opened.convert("RGB")).transpose(2, 0, 1), image)
    assert len(stored[2]) == len(b"P5\n12 12\n255\n") + 12 * 12  # grey has one channel


def test_without_a_shorter_side_no_pixel_changes(tmp_path: Path) -> None:
    as_files, as_pixels = packed(tmp_path / "a.h5", FILES), packed(tmp_path / "b.h5", FILES, store="raw")
    assert all(map(np.array_equal, read(as_pixels), read(as_files)))


def test_images_that_have_one_size_then_are_one_array(tmp_path: Path) -> None:
    dataset = packed(
        tmp_path / "x.h5", [noise(24, 36, 3), noise(18, 27, 3), noise(12, 18, 3)], shorter_side=12, store="raw"
    )
    assert dataset.split("train").image_shape == (12, 18, 3)
    assert np.array_equal(read(dataset)[1].transpose(1, 2, 0), shrink(noise(18, 27, 3), 12))
    many = packed(tmp_path / "y.h5", [noise(24, 36, 4), noise(18, 27, 4)], shorter_side=12, store="raw")
    assert many.split("train").image_shape == (12, 18, 4)
    with pytest.raises(DataError, match="an image has 4 channels, which no image file holds"):
        packed(tmp_path / "z.h5", [noise(24, 36, 4), noise(18, 20, 4)], shorter_side=12, store="raw")


def test_it_is_a_data_set_of_its_own(raw: PackedDataset, tmp_path: Path) -> None:
    reduced = {"name": "list", "shorter_side": SIDE}
    assert Options(shorter_side=SIDE, store="files").identity() == reduced
    assert Options(shorter_side=SIDE, store="raw").identity() == reduced | {"store": "raw"}
    assert raw.origin is not None
    assert raw.origin.differences(Options(shorter_side=SIDE), "refuse") == [
        'data.source.store: expected nothing, got "raw"'
    ]
    stored = raw.split("train").stored(np.arange(5))
    digest = hashlib.sha256(b'files 5 decoded by {"background":[255,255,255],"orientation":"follow"}\n')
    for file in stored:
        digest.update(len(file).to_bytes(8, "little") + file.tobytes())
    assert Samples(raw.split("train")).pixel_digest() == f"sha256:{digest.hexdigest()}"
    again = packed(tmp_path / "x.h5", FILES, shorter_side=SIDE, store="raw")
    assert again.path.read_bytes() == raw.path.read_bytes()


def test_what_was_done_is_counted_and_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    items = [Item(file, 0, str(number)) for number, file in enumerate([*FILES, FILES[0][:200]])]
    options = Options(shorter_side=SIDE, store="raw")
    report = pack(ListSource(train=items), tmp_path / "x.h5", Silent(), "skip", options, shrink=shrink)
    assert report.treated == {
        "orientation followed": 1,
        "shorter side reduced to 12": 4,
        "transparency on white": 1,
    }
    assert [line.partition(":")[0] for line in report.unreadable] == ["train/5"]


def test_threads_that_reduce_are_one_each_for_torch() -> None:
    before, seen = torch.get_num_threads(), list[int]()
    torch.set_num_threads(3)
    with shrinking() as reducing:
        assert reducing is shrink
        thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        thread.start()
        thread.join()
    seen.append(torch.get_num_threads())
    torch.set_num_threads(before)
    assert seen == [1, 3]


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 2, 1), (2, 70, 3)])
def test_what_is_written_is_read_back(shape: tuple[int, int, int]) -> None:
    pixels = noise(*shape)
    encoded = np.frombuffer(encode_raw(pixels), np.uint8)
    found = decode_raw(encoded)
    assert found is not None
    assert np.array_equal(found, pixels)
    assert np.array_equal(images.decode_image(encoded).pixels, pixels)
    assert decode_raw(encoded[:-1]) is None
    assert decode_raw(np.append(encoded, encoded[:1])) is None


def test_other_files_are_left_to_their_decoders() -> None:
    for file in (b"", b"P6\n", b"P6\n0 0\n255\n", b"P6\n1 1\n65535\n" + bytes(6), b"P6 1 1 255\n" + bytes(3), FILES[1]):
        assert decode_raw(np.frombuffer(file, np.uint8)) is None
