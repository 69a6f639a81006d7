"""The store with the real data, views and models."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from intact import verify_files
from PIL import Image

from pipeline.data import DataConfig, Item, PackedDataset, Samples, pack, select
from pipeline.inspection.summary import describe, summary_text
from pipeline.models import build_network
from pipeline.progress import Silent
from pipeline.signals import FeaturesConfig, SignalsConfig
from pipeline.signals.lowpass import lowpass
from pipeline.store.format.layout import CacheExtent
from pipeline.store.format.requirements import CacheRequirement
from pipeline.store.format.sections import DataIdentity, ViewsIdentity
from pipeline.store.making.caching import make_cache
from pipeline.store.making.layout_for import layout_for
from pipeline.store.reader import TeacherCache
from pipeline.views import ViewsConfig, build_views, digest, sizes_of

SIGNALS = SignalsConfig(features=FeaturesConfig(blocks=2, grid=4))


class Noise:
    """A source of random images of 10 classes: of one size, or PNG files of differing sizes."""

    class_names: Sequence[str] = tuple("abcdefghij")
    splits: Sequence[str] = ("train",)
    description = "noise"

    def __init__(self, differing: bool) -> None:
        self._differing = differing

    def count(self, split: str) -> int:
        return 30

    def items(self, split: str) -> Iterator[Item]:
        generator = np.random.default_rng(0)
        for number in range(30):
            size = (32 + number % 3, 40 - number % 4) if self._differing else (32, 32)
            image: Any = generator.integers(0, 256, (*size, 3), dtype=np.uint8)
            if self._differing:
                stream = io.BytesIO()
                Image.fromarray(image).save(stream, "PNG")
                image = stream.getvalue()
            yield Item(image, number % 10, f"noise-{number}")


def packed(folder: Path, differing: bool) -> Samples:
    path = folder / "noise.h5"
    pack(Noise(differing), path, Silent())
    config = DataConfig.model_validate({"path": path, "holdout": {"count": 10}})
    return select(PackedDataset.open(path), config)[0]


@pytest.mark.parametrize("differing", [False, True])
def test_what_is_stored_is_what_replayed_views_say(tmp_path: Path, differing: bool) -> None:
    samples = packed(tmp_path, differing)
    crop = {"name": "resized-crop", "size": 32} if differing else {"name": "pad-crop"}
    config = ViewsConfig.model_validate({"count": 2, "operations": [crop, {"name": "horizontal-flip"}]})
    views = build_views(config, None if differing else (32, 32))
    network = build_network("cifar_resnet8", 10, seed=0)
    path = make_cache(
        network,
        samples,
        views,
        SIGNALS,
        target=tmp_path / "cache.zarr",
        precision="float32",
        micro_batch=8,
        device="cpu",
        notify=print,
    )
    verify_files(path)
    cache = TeacherCache.open(path)
    cache.require(CacheRequirement(data=DataIdentity.of(samples), views=ViewsIdentity.of(views), numbers=views.numbers))
    assert cache.count == 20
    rows = np.random.default_rng(1).permutation(20)
    network.eval()
    for view in cache.views:
        images = samples.read(rows)
        stored = cache.view_parameters(view, rows)
        assert np.array_equal(stored, views.parameters(view, samples.positions[rows], sizes_of(images)))
        pixels = views.apply(images, stored)
        assert np.array_equal(digest(pixels), cache.view_digests(view, rows))
        with torch.no_grad():
            said = network(pixels)
        got = cache.read(view, rows)
        torch.testing.assert_close(got.logits, said.logits, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(got.embedding, said.embedding, rtol=1e-3, atol=1e-4)
        assert list(got.features) == ["block2", "block3"]
        for tap, stored_map in got.features.items():
            torch.testing.assert_close(stored_map, lowpass(said.features[tap], 4), rtol=1e-3, atol=1e-4)
        assert got.head is not None
        assert got.embedding is not None
        assert got.head.linear
        torch.testing.assert_close(got.head(got.embedding), got.logits, rtol=1e-2, atol=1e-2)
    assert samples.labels is not None
    assert np.array_equal(cache.labels, samples.labels)


def test_bfloat16_is_another_cache_and_the_same_bytes_each_time(tmp_path: Path) -> None:
    samples = packed(tmp_path, differing=False)
    views = build_views(ViewsConfig(), (32, 32))
    network = build_network("cifar_resnet8", 10, seed=0)

    def run(name: str, precision: Any) -> TeacherCache:
        target = tmp_path / name
        arguments: Any = {"precision": precision, "micro_batch": 8, "device": "cpu", "notify": print}
        return TeacherCache.open(make_cache(network, samples, views, SIGNALS, target=target, **arguments))

    one, two, other = run("a", "bfloat16"), run("b", "bfloat16"), run("c", "float32")
    assert one.manifest.fingerprint == two.manifest.fingerprint != other.manifest.fingerprint
    everything = np.arange(20)
    first, second, third = (cache.read(0, everything) for cache in (one, two, other))
    assert torch.equal(first.logits, second.logits)
    for tap in first.features:
        assert torch.equal(first.features[tap], second.features[tap])
        assert not torch.equal(first.features[tap], third.features[tap])
    torch.testing.assert_close(first.logits, third.logits, rtol=0.1, atol=0.1)


def test_the_cache_knows_that_its_head_reads_final(tmp_path: Path) -> None:
    samples = packed(tmp_path, differing=False)
    views = build_views(ViewsConfig.model_validate({"count": 1, "operations": [{"name": "pad-crop"}]}), (32, 32))
    options = {
        "img_size": 32,
        "patch_size": 4,
        "window_size": 4,
        "embed_dim": 12,
        "depths": [1, 1],
        "num_heads": [1, 2],
    }
    swin = build_network("swin_tiny_patch4_window7_224", 10, input_size=32, options=options, seed=0)
    torch.nn.init.normal_(swin.model.get_classifier().weight, std=0.1)
    signals = SignalsConfig.model_validate({"features": {"blocks": ["final"], "grid": 2, "encoding": "float32"}})
    extent = CacheExtent(samples=20, views=1, parameters=len(views.parameter_names), micro_batch=8)
    cache = TeacherCache.open(
        make_cache(
            swin, samples, views, signals, target=tmp_path / "c.zarr", precision="float32", micro_batch=8, device="cpu"
        )
    )
    assert cache.manifest.layout == layout_for(swin, signals, extent)
    head, said = cache.head, cache.read(0, np.arange(20))
    assert head is not None
    assert (head.linear, head.linear_final) == (False, True)
    assert (cache.shapes.linear, cache.shapes.linear_final) == (False, True)
    torch.testing.assert_close(head(said.features["final"].mean((2, 3))), said.logits.float(), rtol=1e-3, atol=1e-3)
    assert "head 10 x 24, linear on the mean of final" in summary_text(describe(cache.path)[0])
