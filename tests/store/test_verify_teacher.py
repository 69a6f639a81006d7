"""The teacher run again: what deviates is found, what may deviate is let pass, nothing is held."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from store_standins import FLOAT32, SIGNALS, TinyNetwork, TinySamples, TinyViews, cache, patient
from torch import Tensor

from pipeline.errors import CacheMismatch
from pipeline.inspection.files import check_files
from pipeline.inspection.origin import CacheOrigin, SampleCheck, check_sample
from pipeline.inspection.report import CacheReport
from pipeline.inspection.sample import sampled_batches
from pipeline.inspection.teacher import Deviation, Limits, verify_teacher
from pipeline.signals import EmbeddingConfig, FeaturesConfig, LogitsConfig, Signals, SignalsConfig
from pipeline.store.format.arrays import MicroBatch
from pipeline.store.format.layout import CacheExtent, make_layout
from pipeline.store.format.signal_sections import SignalsIdentity
from pipeline.store.making.teacher_pass import TeacherPass
from pipeline.store.reader import TeacherCache

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cache(tmp_path_factory.mktemp("store") / "cache.zarr")


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cache(tmp_path_factory.mktemp("store") / "exact.zarr", signals=FLOAT32)


def checked(path: Path, network: Any = None, samples: Any = None, views: Any = None, **check: Any) -> CacheReport:
    report, teacher_cache = CacheReport(path, "training", check_files(path)), TeacherCache.open(path)
    network, samples, views = network or TinyNetwork(), samples or TinySamples(), views or TinyViews()
    check_sample(report, teacher_cache, CacheOrigin(samples, views, network, CPU), SampleCheck(**check))
    return report


# The sample


def a_plan(samples: int, views: int, rows: int, micro_batch: int) -> Any:
    signals: dict[str, Any] = {"logits": {"shape": [3], "encoding": "float32"}, "embedding": None, "features": {}}
    signals |= {"extras": {}, "grid": None, "filter": "mean", "head": None}
    extent = CacheExtent(samples, views, parameters=0, micro_batch=micro_batch, rows_per_block=rows)
    return make_layout(SignalsIdentity.model_validate(signals), extent)


def everything(layout: Any, micro_batch: int) -> list[MicroBatch]:
    """All micro-batches, one by one."""
    blocks = ((unit, layout.block_of(unit)) for unit in layout.units)
    return [
        MicroBatch(unit, range(start, min(start + micro_batch, block.stop)))
        for unit, block in blocks
        for start in range(block.start, block.stop, micro_batch)
    ]


@patient
@given(
    samples=st.integers(1, 60),
    views=st.integers(1, 4),
    rows=st.integers(1, 60),
    micro_batch=st.integers(1, 9),
    wanted=st.integers(1, 300),
    seed=st.integers(0, 5),
)
def test_a_sample_is_of_whole_micro_batches_each_once_and_spread_over_the_cache(
    samples: int, views: int, rows: int, micro_batch: int, wanted: int, seed: int
) -> None:
    layout = a_plan(samples, views, rows, micro_batch)
    every = everything(layout, micro_batch)
    drawn = [every.index(one) for one in sampled_batches(layout, micro_batch, wanted, seed)]
    assert len(drawn) == min(math.ceil(wanted * len(every) / (samples * views)), len(every))
    assert drawn == sorted(set(drawn))
    stretch = len(every) / len(drawn)
    assert all(abs(number - (k + 0.5) * stretch) <= stretch / 2 + 1 for k, number in enumerate(drawn))


def test_seeds_draw_different_samples_and_together_everything() -> None:
    layout = a_plan(40, 3, 16, 4)
    every = everything(layout, 4)
    draws = [[every.index(one) for one in sampled_batches(layout, 4, 16, seed)] for seed in range(60)]
    assert draws[0] == [every.index(one) for one in sampled_batches(layout, 4, 16, 0)]
    assert len(set(map(tuple, draws))) > 50
    assert {number for draw in draws for number in draw} == set(range(len(every)))


def test_a_teacher_computes_what_the_cache_holds(tmp_path: Path) -> None:
    for name, config in {
        "all": SIGNALS,
        "logits": SignalsConfig(embedding=None),
        "one": SignalsConfig(features=FeaturesConfig(blocks=("block2",), grid=3)),
    }.items():
        identity = TeacherCache.open(cache(tmp_path / name, signals=config)).manifest.identity
        ours = identity.signals.config()
        assert (ours.embedding is None) == (config.embedding is None)
        assert identity.signals.features.keys() == set(
            ours.features.blocks if ours.features and isinstance(ours.features.blocks, tuple) else ()
        )
        assert ours.features is None or config.features is None or ours.features.grid == config.features.grid


# What comes out


def test_the_same_teacher_on_the_same_machine_says_the_same_bits(store: Path) -> None:
    network = TinyNetwork()
    report = checked(store, network, views=TinyViews())
    assert report.problems == []
    assert report.unchecked == []
    assert report.views is not None
    assert report.views.views == 3 * 23
    assert report.teacher is not None
    assert report.teacher.alike
    assert [each.signal for each in report.teacher.deviations] == [
        "logits", "embedding", "features/block1", "features/block2",
    ]  # fmt: skip
    for each in report.teacher.deviations:
        assert (each.views, each.largest, each.equal, each.agreement) == (
            69, 0, 1, 1 if each.signal == "logits" else None,
        )  # fmt: skip
        assert each.typical > 0
        assert each.least_cosine == pytest.approx(1)
    assert set(network.batches) == {4}  # one micro-batch at a time, whatever was requested


def test_another_teacher_is_found_by_every_signal(store: Path) -> None:
    report = checked(store, TinyNetwork(seed=1), views=TinyViews())
    text = "\n".join(report.problems)
    for name in ("logits", "embedding", "features/block1", "features/block2"):
        assert f"{name} differ by" in text
    assert "WRONG" in report.text()
    assert report.to_json()["fine"] is False


class Nudged(TinyNetwork):
    """A teacher whose logits of the first view that it sees lie a little beside."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def forward(self, images: Tensor) -> Signals:
        said = super().forward(images)
        logits = said.logits.clone()
        if len(self.batches) == 1:
            logits[0, 0] += self.by
        return Signals(logits, said.embedding, said.features, said.head)


def test_one_value_of_one_view_is_enough_on_the_same_machine(store: Path, exact: Path) -> None:
    """float32 must be the same bits; float16 may be rounded to the neighbour."""
    (problem,) = checked(exact, Nudged(1e-6)).problems
    assert "logits differ by" in problem
    assert "allowed on the same device: none" in problem
    assert checked(exact, Nudged(0)).problems == []
    assert checked(store, Nudged(1e-5)).problems == []
    (problem,) = checked(store, Nudged(0.01)).problems
    assert "the encoding's rounding" in problem


CODED = {
    "topk": SignalsConfig(
        logits=LogitsConfig(encoding={"name": "topk", "k": 2}), features=FeaturesConfig(grid=2, encoding="float32")
    ),
    "int8": SignalsConfig(embedding=EmbeddingConfig(encoding="int8"), features=FeaturesConfig(grid=2, encoding="int8")),
}


@pytest.mark.parametrize("encoding", CODED)
def test_a_coarse_encoding_of_some_values_hides_no_error_of_others(tmp_path: Path, encoding: str) -> None:
    """What `topk` drops is far from what it was, and so is a large channel of `int8`: others are held to their own."""

    class Wrong(TinyNetwork):
        """One channel is far larger than the others; `wrong` of the values that are stored precisely."""

        wrong = 0.0

        def forward(self, images: Tensor) -> Signals:
            said = super().forward(images)
            logits, maps = said.logits.clone(), {tap: x.clone() for tap, x in said.features.items()}
            logits[:, 0], logits[:, 1:] = 20 + self.wrong, 0.1 * logits[:, 1:]
            logits[:, 1] = -20
            maps["block1"][:, 0] = torch.arange(64.0).reshape(8, 8)
            maps["block1"][:, 1] *= 1 + self.wrong / 10
            return Signals(logits, said.embedding, maps, said.head)

    path = cache(tmp_path / "cache.zarr", network=Wrong(), signals=CODED[encoding])
    assert checked(path, Wrong()).problems == []
    network = Wrong()
    network.wrong = 0.5
    (problem,) = [
        line for line in checked(path, network).problems if ("logits" if encoding == "topk" else "block1") in line
    ]
    assert "the encoding's rounding, exceeded by" in problem


def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.inspection.teacher.device_name", lambda device: "another machine")


def test_another_machine_may_deviate_as_far_as_it_is_told(exact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere(monkeypatch)
    report = checked(exact, Nudged(1e-3))
    assert report.problems == []
    assert report.teacher is not None
    assert not report.teacher.alike
    assert report.teacher.deviations[0].largest == pytest.approx(1e-3, rel=1e-3)
    assert "the cache was made on" in report.text()
    assert checked(exact, Nudged(1e-3), limits=Limits(cosine=1.0)).problems
    (one, two) = checked(exact, Nudged(100), limits=Limits(cosine=0.9, agreement=0.999)).problems
    assert "least cosine of a view" in one
    assert "top-1 agreement 98.55%" in two  # of 69 views, one


def test_a_teacher_that_says_nothing_finite_deviates(exact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere(monkeypatch)
    report = checked(exact, Nudged(math.nan))
    assert report.problems
    assert report.to_json()["teacher"]["deviations"][0]["largest"] is None  # JSON has no infinity
    assert checked(exact, Nudged(math.inf)).problems


def test_an_answer_that_no_longer_fits_its_encoding_deviates(store: Path) -> None:
    (first, *_) = checked(store, Nudged(1e6)).problems
    assert "logits differ by" in first


def test_pixels_and_parameters_that_changed_are_found_before_the_teacher_runs(store: Path) -> None:
    network = TinyNetwork()
    report = checked(store, network, samples=TinySamples(seed=1))
    assert report.views is not None
    assert report.views.other_pixels == 69
    assert report.views.other_parameters == 0
    assert "first view 0 of sample 0 (image-0)" in report.problems[0]
    assert report.unchecked == ["the teacher was not run: it would see other pixels"]
    assert network.batches == []

    class Otherwise(TinyViews):
        def parameters(self, view: int, samples: Any, sizes: Any = None) -> Any:
            drawn = super().parameters(view, samples, sizes)
            return drawn + (samples[:, None] == 8) if view == 1 else drawn

    (problem,) = checked(store, views=Otherwise()).problems
    assert problem == "1 of 69 views would be drawn otherwise today, first view 1 of sample 4 (image-8)"


def test_views_are_rendered_where_the_teacher_is_not(store: Path) -> None:
    report = CacheReport(store, None, check_files(store))
    origin = CacheOrigin(TinySamples(), TinyViews(), None, CPU)  # type: ignore[arg-type]
    check_sample(report, TeacherCache.open(store), origin, SampleCheck(8))
    assert report.problems == []
    assert report.views is not None
    assert report.teacher is None


def test_a_teacher_that_sees_other_pixels_is_refused(store: Path) -> None:
    arguments: Any = {"device": CPU, "precision": "float32", "micro_batch": 4}
    samples: Any = TinySamples(seed=1)
    teacher = TeacherPass(TinyNetwork(), samples, TinyViews(), SIGNALS, **arguments)  # type: ignore[arg-type]
    opened = TeacherCache.open(store)
    with pytest.raises(CacheMismatch, match="not the pixels"):
        verify_teacher(opened, teacher, sampled_batches(opened.manifest.layout, 4, 8, 0))


# The arithmetic, against NumPy in float64 over everything at once


@patient
@given(seed=st.integers(0, 1000), cuts=st.lists(st.integers(1, 5), min_size=1, max_size=6), noise=st.floats(0, 3))
def test_running_figures_are_those_of_all_views_at_once(seed: int, cuts: list[int], noise: float) -> None:
    generator = np.random.default_rng(seed)
    stored = generator.normal(size=(sum(cuts), 4)).astype(np.float32)
    now = (stored + noise * generator.normal(size=stored.shape) * generator.integers(0, 2, stored.shape)).astype(
        np.float32
    )
    deviation, start = Deviation("logits"), 0
    for count in cuts:
        piece = slice(start, start + count)
        deviation.add(torch.from_numpy(stored[piece]), torch.from_numpy(now[piece]), torch.zeros(count, 4))
        start += count
    a, b = stored.astype(np.float64), now.astype(np.float64)
    cosines = (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))
    assert deviation.views == len(a)
    assert deviation.largest == np.abs(a - b).max()
    assert deviation.typical == pytest.approx(np.sqrt((a * a).mean()))
    assert deviation.equal == pytest.approx((a == b).mean())
    assert deviation.cosine == pytest.approx(cosines.mean())
    assert deviation.least_cosine == pytest.approx(min(cosines.min(), 1))
    assert deviation.agreement == pytest.approx((a.argmax(1) == b.argmax(1)).mean())


def test_the_cosine_of_nothing() -> None:
    deviation = Deviation("embedding")
    deviation.add(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 3))
    assert deviation.least_cosine == 1
    deviation.add(torch.zeros(1, 3), torch.ones(1, 3), torch.zeros(1, 3))
    assert deviation.least_cosine == 0
