"""Compiled loops and simplejpeg against torch and Pillow: the same bytes, for every image and operation."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, features
from torch import Tensor

from pipeline.data import jpeg
from pipeline.data.decoding import Decoding
from pipeline.data.formats import UndecodableError
from pipeline.data.images import as_rgb, decode_image
from pipeline.store.format.provenance import versions
from pipeline.views import ViewsConfig, build_views, digest, sizes_of
from pipeline.views import resample as resampling
from pipeline.views.operation import ResizeFilter
from pipeline.views.operations._chance import mirrored
from pipeline.views.resample import LARGE_IMAGE, resample, resample_by_torch

pytest.importorskip("numba")
pytest.importorskip("simplejpeg")

lengths = st.integers(1, 40)
CHAINS: tuple[list[dict[str, Any]], ...] = (
    [{"name": "resized-crop", "size": 224}, {"name": "horizontal-flip"}],
    [{"name": "resized-crop", "size": [20, 300], "interpolation": "bicubic", "ratio": [0.1, 10]}],
    [{"name": "resize", "size": 230}, {"name": "center-crop", "size": 224}, {"name": "vertical-flip"}],
    [{"name": "resize", "size": [97, 61], "interpolation": "bicubic"}],
)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=60, deadline=None)
@given(
    st.data(), st.sampled_from((1, 3, 4)), lengths, lengths, lengths, lengths, st.sampled_from(("bilinear", "bicubic"))
)
def test_loops_give_the_bytes_of_torch(
    data: st.DataObject, C: int, H: int, W: int, h: int, w: int, interpolation: ResizeFilter
) -> None:
    top, left = data.draw(st.integers(0, H - 1)), data.draw(st.integers(0, W - 1))
    boxes = torch.tensor([[top, left, data.draw(st.integers(1, H - top)), data.draw(st.integers(1, W - left))]] * 2)
    images = noise(2, H, W, C).permute(0, 3, 1, 2)  # as files are read
    images[1] = (images[1] > 127) * 255  # edges, which a cubic filter leaves the range at
    loops = resampling._compiled_resize()
    assert loops is not None
    for layout in (images, images.contiguous()):
        found = resampling._by_loops(loops, layout, boxes, (h, w), interpolation)
        assert torch.equal(found, resample_by_torch(images, boxes, (h, w), interpolation))


@pytest.mark.parametrize("box", [[150, 0, 100, 200], [0, 150, 200, 100], [-1, 0, 9, 9], [0, 0, 9, 0]])
def test_loops_read_nothing_outside_an_image(box: list[int]) -> None:
    """Each length and corner may be one of an image of this size, and both together not."""
    with pytest.raises(IndexError, match="not inside its image"):
        resample(noise(2, 3, 200, 200), torch.tensor([[0, 0, 200, 200], box]), (20, 20))


def test_large_images_alone_are_resized_by_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    loops = resampling._by_loops
    monkeypatch.setattr(resampling, "_by_loops", lambda *given: (seen.append(given[1].shape), loops(*given))[1])
    side = int(LARGE_IMAGE**0.5) + 1
    for H, size in ((16, 8), (side - 1, 8), (side, 8), (16, side)):
        box = torch.tensor([[0, 0, H, H]])
        resample(noise(1, 1, H, H), box, (size, size))
    assert seen == [(1, 1, side, side), (1, 1, 16, 16)]


@pytest.mark.parametrize("axis", [2, 3])
def test_large_images_are_mirrored_as_numpy_does(axis: int) -> None:
    images, chosen = noise(3, 3, 180, 190), torch.tensor([1, 0, 1])
    result = mirrored(images, chosen, axis).numpy()
    assert np.array_equal(result[[0, 2]], np.flip(images.numpy()[[0, 2]], axis))
    assert np.array_equal(result[1], images.numpy()[1])


def file(pixels: NDArray[np.uint8], mode: str, kind: str = "JPEG", **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, kind, **options)
    return stream.getvalue()


def what_comes(encoded: bytes, rules: Decoding) -> object:
    try:
        found = decode_image(encoded, rules)
    except UndecodableError as error:
        return str(error)
    return found.pixels.shape, found.pixels.tobytes(), found.format


def odd_files(pixels: NDArray[np.uint8], random: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    exif = Image.Exif()
    exif[0x0112] = int(random.integers(1, 9))
    for name, mode, options in (
        ("4:4:4", "RGB", {"subsampling": 0}),
        ("4:2:2", "RGB", {"subsampling": 1}),
        ("4:2:0", "RGB", {"subsampling": 2, "quality": int(random.integers(1, 101)), "exif": exif}),
        ("RGB", "RGB", {"keep_rgb": True}),
        ("restarts", "RGB", {"restart_marker_blocks": 1, "optimize": True}),
        ("progressive", "RGB", {"progressive": True}),
        ("grey", "L", {}),
        ("CMYK", "CMYK", {}),
    ):
        yield name, file(pixels, mode, **options)
    whole = file(pixels, "RGB")
    yield "cut", whole[: int(random.integers(2, len(whole)))]
    yield "without its end", whole[:-2]
    yield "with more behind it", whole + b"\xff\xd8more"
    broken = bytearray(whole)
    for place in random.integers(2, len(broken), 3):
        broken[place] = random.integers(0, 256)
    yield "broken", bytes(broken)


@pytest.mark.parametrize("size", [(1, 1), (9, 8), (37, 50)])
def test_files_are_decoded_as_pillow_does(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(sum(size))
    quick = []
    for rules in (Decoding(), Decoding(orientation="ignore", background=None, profile="ignore")):
        for name, encoded in odd_files(random.integers(0, 256, (*size, 3), np.uint8), random):
            opened = Image.open(io.BytesIO(encoded)) if name not in ("cut", "broken") else None
            if opened and jpeg.plain_jpeg_pixels(encoded, opened) is not None:
                quick.append(name)
            found = what_comes(encoded, rules)
            with monkeypatch.context() as without:
                without.setattr(jpeg, "_decoder", lambda: None)
                assert found == what_comes(encoded, rules), name
    assert quick == 2 * ["4:4:4", "4:2:2", "4:2:0", "RGB", "restarts", *quick[5 : len(quick) // 2]]
    assert not {"progressive", "grey", "CMYK", "without its end"} & set(quick)


def test_a_cache_records_what_decodes() -> None:
    found = versions()
    assert found["simplejpeg"] == version("simplejpeg")
    assert found["pillow"] == version("pillow")
    assert found["numba"] == version("numba")
    assert found["libjpeg-turbo of pillow"] == features.version("libjpeg_turbo")


def test_where_numba_fails_torch_resizes_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*given: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("pipeline.views.compiled_resample.resize", broken)
    resampling._compiled_resize.cache_clear()
    try:
        with pytest.warns(UserWarning, match="numba fails: no space left"):
            assert resampling._compiled_resize() is None
        images, box = noise(1, 3, 200, 200), torch.tensor([[0, 0, 200, 200]])
        assert torch.equal(resample(images, box, (20, 20)), resample_by_torch(images, box, (20, 20)))
    finally:
        resampling._compiled_resize.cache_clear()


def test_numba_that_cannot_be_imported_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is there, and has been broken by another package: not only by an ImportError."""
    monkeypatch.delitem(sys.modules, "pipeline.views.compiled_resample", raising=False)
    monkeypatch.setattr("numba.njit", property())  # no function: whatever is raised then is no ImportError
    resampling._compiled_resize.cache_clear()
    try:
        with pytest.warns(UserWarning, match="numba fails"):
            assert resampling._compiled_resize() is None
        monkeypatch.setitem(sys.modules, "numba", None)
        resampling._compiled_resize.cache_clear()
        assert resampling._compiled_resize() is None
    finally:
        resampling._compiled_resize.cache_clear()


def digests(files: list[bytes], chain: list[dict[str, Any]]) -> list[object]:
    """Of a view of each file, or what is said of it."""
    views, found = build_views(ViewsConfig.model_validate({"operations": chain}), None), []
    for i, encoded in enumerate(files):
        try:
            pixels = as_rgb(decode_image(encoded).pixels)
        except UndecodableError as error:
            found.append(str(error))
            continue
        images = [torch.from_numpy(pixels).permute(2, 0, 1)]
        found.append(int(digest(views.apply(images, views.parameters(0, np.array([i]), sizes_of(images))))[0]))
    return found


@pytest.mark.long
@pytest.mark.parametrize("part", range(10))
def test_ten_thousand_images_of_all_sizes_and_kinds(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(part)
    for number in range(84):  # twelve files of each
        height, width = (int(most ** random.random()) for most in (3001, 4001))
        if number == 0:
            height, width = 3000, 4000
        few = random.integers(0, 256, (9, 12, 3), np.uint8)
        pixels = np.asarray(Image.fromarray(few).resize((width, height), Image.Resampling.BICUBIC))
        grain = random.integers(-20, 21, pixels.shape, np.int8)
        files = [encoded for _, encoded in odd_files((pixels + grain).clip(0, 255).astype(np.uint8), random)]
        chain = CHAINS[number % len(CHAINS)]
        if chain[0].get("size") == 230 and not 0.1 < height / width < 10:
            chain = CHAINS[0]  # its other side would be of tens of thousands of pixels
        found = digests(files, chain)
        with monkeypatch.context() as without:
            without.setattr(jpeg, "_decoder", lambda: None)
            without.setattr(resampling, "_compiled_resize", lambda: None)
            assert found == digests(files, chain), (number, height, width)
