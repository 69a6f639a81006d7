"""Extra signals in a cache: what the teacher's full maps say, as the encoding allows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from intact import verify_files
from numpy.typing import NDArray
from store_standins import TinyNetwork, TinySamples, TinyViews, cache, content

from pipeline.errors import CacheError, CacheMismatch, ConfigError
from pipeline.inspection.sample import sampled_batches
from pipeline.inspection.teacher import verify_teacher
from pipeline.signals import ExtraConfig, LogitsConfig, SignalsConfig
from pipeline.store.format.identity import CacheIdentity
from pipeline.store.format.layout import CacheExtent
from pipeline.store.format.signal_sections import encodings_identity
from pipeline.store.making.layout_for import layout_for
from pipeline.store.making.teacher_pass import TeacherPass
from pipeline.store.reader import TeacherCache

NAMES = ("attention-map/block1", "channel-gram/block2", "channel-gram/final", "fsp-matrix/block1")
EVERYTHING = np.arange(23)


def signals(*encodings: Any) -> SignalsConfig:
    chosen = encodings or ("float32",) * len(NAMES)
    extras = tuple(ExtraConfig(name=name, encoding=e) for name, e in zip(NAMES, chosen, strict=True))
    return SignalsConfig(embedding=None, extras=extras)


def said(view: int, network: TinyNetwork | None = None) -> dict[str, NDArray[np.float64]]:
    """The extra signals of a view of all samples, from the network's full maps, by loops over channels and samples."""
    network = (network or TinyNetwork()).eval()
    samples, views = TinySamples(), TinyViews()
    with torch.no_grad():
        pixels = views.apply(samples.read(EVERYTHING), views.parameters(view, samples.positions))
        maps = network(pixels).features
    first, second = (maps[block].double().numpy() for block in ("block1", "block2"))
    attention, gram, flow = [], [], []
    for x, y in zip(first, second, strict=True):
        squares = sum(channel**2 for channel in x)
        attention.append(squares / np.sqrt((squares**2).sum()))
        rows = [np.array([(one * other).sum() for other in y]) for one in y]
        gram.append([row / max(np.sqrt((row**2).sum()), 1e-300) for row in rows])
        halves = x.reshape(4, 4, 2, 4, 2).mean((2, 4))
        flow.append([[(one * other).mean() for other in y] for one in halves])
    grams = np.array(gram)
    return dict(zip(NAMES, (np.array(attention), grams, grams, np.array(flow)), strict=True))


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cache(tmp_path_factory.mktemp("extras") / "exact.zarr", signals=signals())


def test_what_is_cached_is_what_the_live_teacher_says_in_full(exact: Path) -> None:
    verify_files(exact)
    opened = TeacherCache.open(exact)
    assert opened.shapes.extras == {
        "attention-map/block1": (8, 8),
        "channel-gram/block2": (6, 6),
        "channel-gram/final": (6, 6),
        "fsp-matrix/block1": (4, 6),
    }
    for view in opened.views:
        live, got = said(view), opened.read(view, EVERYTHING).extras
        assert list(got) == list(NAMES)
        for name, values in got.items():
            assert values.dtype == torch.float32
            np.testing.assert_allclose(values.numpy(), live[name], rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("encoding", ["float16", "int8"])
def test_encodings_keep_their_bound(tmp_path: Path, exact: Path, encoding: str) -> None:
    stored = TeacherCache.open(cache(tmp_path / "a.zarr", signals=signals(*[encoding] * len(NAMES))))
    before = TeacherCache.open(exact).read(1, EVERYTHING).extras
    after = stored.read(1, EVERYTHING).extras
    for spec in stored.manifest.layout.signals[1:]:
        assert spec.encoding == encoding
        values = before[spec.name.removeprefix("extras/")].numpy()
        error = np.abs(after[spec.name.removeprefix("extras/")].numpy().astype(np.float64) - values)
        assert np.all(error <= spec.codec.error_bound(values))
        assert error.max() > 0


def test_encodings_are_float16_unless_they_say_otherwise_and_each_its_own() -> None:
    config = SignalsConfig.model_validate({"extras": [NAMES[0], {"name": NAMES[3], "encoding": "int8"}]})
    chosen = encodings_identity(config)
    assert chosen[f"extras/{NAMES[0]}"] == "float16"
    assert chosen[f"extras/{NAMES[3]}"] == "int8"
    wrong = SignalsConfig.model_validate({"extras": [NAMES[0], {"name": NAMES[3], "encoding": "int9"}]})
    with pytest.raises(ConfigError, match=r"signals\.extras\.1\.encoding: unknown name 'int9'"):
        encodings_identity(wrong)


def test_the_plan_before_is_the_plan_after(exact: Path) -> None:
    extent = CacheExtent(samples=23, views=3, parameters=1, micro_batch=4, rows_per_block=8)
    network: Any = TinyNetwork()
    planned, made = layout_for(network, signals(), extent), TeacherCache.open(exact).manifest.layout
    assert planned == made
    assert made.bytes_per_view == {
        "logits": 10,
        "extras/attention-map/block1": 256,
        "extras/channel-gram/block2": 144,
        "extras/channel-gram/final": 144,
        "extras/fsp-matrix/block1": 96,
    }
    assert planned.files == sum(file.is_file() for file in exact.rglob("*"))


def test_zarr_reads_them(exact: Path) -> None:
    group: Any = zarr.open_group(exact, mode="r")
    for name, values in TeacherCache.open(exact).read(2, EVERYTHING).extras.items():
        assert np.array_equal(group[f"extras/{name}"][2], values.numpy())


def test_only_those_that_are_asked_for_are_read(exact: Path) -> None:
    some = TeacherCache.open(exact, [f"extras/{NAMES[3]}"]).read(0, EVERYTHING)
    assert list(some.extras) == [NAMES[3]]
    with pytest.raises(CacheMismatch, match="lacks extras/attention-map/block2"):
        TeacherCache.open(exact, ["extras/attention-map/block2"])


def test_asking_the_teacher_again_finds_the_same(exact: Path) -> None:
    opened = TeacherCache.open(exact)
    asked = opened.manifest.identity.signals.config()
    assert tuple(extra.name for extra in asked.extras) == NAMES
    pieces: Any = (TinyNetwork(), TinySamples(), TinyViews())
    teacher = TeacherPass(*pieces, asked, device=torch.device("cpu"), precision="float32", micro_batch=4)
    report = verify_teacher(opened, teacher, sampled_batches(opened.manifest.layout, 4, views=30, seed=0))
    assert report.problems == []
    assert {each.signal for each in report.deviations} >= {f"extras/{name}" for name in NAMES}
    assert all(each.largest == 0 for each in report.deviations if each.signal.startswith("extras/"))


def test_the_same_bytes_each_time_and_after_a_stop(tmp_path: Path, exact: Path) -> None:
    class Stopped(TinySamples):
        def read(self, samples: Any) -> torch.Tensor:
            self.reads = getattr(self, "reads", 0) + 1
            if self.reads == 9:
                raise KeyboardInterrupt
            return super().read(samples)

    target = tmp_path / "again.zarr"
    with pytest.raises(KeyboardInterrupt):
        cache(target, signals=signals(), samples=Stopped())
    again = content(cache(target, signals=signals()))
    assert again.keys() == content(exact).keys()
    skipped = {"ledger.jsonl"}
    assert all(again[name] == value for name, value in content(exact).items() if name not in skipped)


def test_taps_that_there_are_not_are_refused_with_the_entry(tmp_path: Path) -> None:
    names = ["channel-gram/block2", "attention-map/block9", "fsp-matrix/block2"]
    config = SignalsConfig.model_validate({"extras": names})
    with pytest.raises(ConfigError) as caught:
        cache(tmp_path / "a.zarr", signals=config)
    assert "signals.extras.1.name: unknown name 'attention-map/block9'" in str(caught.value)
    assert "signals.extras.2.name: unknown name 'fsp-matrix/block2'\n  expected: one of fsp-matrix/block1" in str(
        caught.value
    )
    assert "signals.extras.0" not in str(caught.value)


def test_one_that_overflows_stops_with_the_way_out(tmp_path: Path) -> None:
    network = TinyNetwork()
    with torch.no_grad():
        network.first.weight *= 1e4
    half = signals(*["float16"] * 4).model_copy(update={"logits": LogitsConfig(encoding="float32")})
    with pytest.raises(CacheError, match=r"extras/fsp-matrix/block1 exceeds 65504, the most that float16") as caught:
        cache(tmp_path / "a.zarr", network=network, signals=half)
    assert "set the encoding of fsp-matrix/block1 in signals.extras: float32" in str(caught.value)


def test_one_of_another_version_is_refused_by_name(exact: Path) -> None:
    identity = TeacherCache.open(exact).manifest.identity.plain()
    identity["signals"]["extras"] = {"unheard-of/block1": {"shape": [1], "encoding": "int8"}}
    with pytest.raises(CacheMismatch, match="cannot do what the teacher cache says of its signals"):
        CacheIdentity.model_validate(identity).signals.config()
