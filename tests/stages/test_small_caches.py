"""Students that learn from caches in few bytes: `topk` logits, `int8` embeddings and maps, every filter."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from experiment import source, student

from pipeline.errors import CacheMismatch
from pipeline.store.reader import TeacherCache
from stages import cache_teacher

SMALL = (
    "store.path=artifacts/caches/small.zarr",
    "signals.logits.encoding={name: topk, k: 3}",
    "signals.embedding.encoding=int8",
    "signals.features.encoding=int8",
)


def learnt(*overrides: str, objectives: str) -> dict[str, float]:
    folder = student("small", objectives, *overrides, output=Path("artifacts/student"), replace=True)
    metrics: dict[str, float] = json.loads((folder / "metrics.json").read_text())
    return metrics


def test_a_student_learns_from_few_bytes_much_as_from_all(here: Path):
    cache_teacher.run(source(*SMALL), part="training", replace=False, wait=False)
    sizes = TeacherCache.open(Path("artifacts/caches/small.zarr")).manifest.layout.bytes_per_view
    assert sum(sizes.values()) < 0.5 * 1808
    # The holdout's answers are read beside the store.
    beside = Path("artifacts/caches")
    (beside / "tiny.holdout.zarr").rename(beside / "small.holdout.zarr")
    for objectives, precision in (("kd", "float32"), ("kd", "bfloat16"), ("lfcc", "float32")):
        small = learnt(*SMALL, f"train.precision={precision}", objectives=objectives)
        exact = learnt(f"train.precision={precision}", objectives=objectives)
        assert small["final_loss"] == pytest.approx(exact["final_loss"], rel=0.02)
        assert small["final_loss"] != exact["final_loss"]


def test_a_cache_in_another_encoding_is_refused(here: Path):
    cache_teacher.run(source(*SMALL), part="training", replace=False, wait=False)
    changes = ("signals.logits.encoding={name: topk, k: 2}", "signals.embedding.encoding=float16")
    with pytest.raises(CacheMismatch) as error:
        student("small", "kd", *SMALL, *changes)
    assert "signals.logits.encoding.k: expected 2, got 3" in str(error.value)
    assert 'signals.embedding.encoding: expected "float16", got "int8"' in str(error.value)


@pytest.mark.parametrize("low_pass", ["dct", "gaussian"])
def test_lfcc_learns_through_the_filter_of_the_cache(here: Path, low_pass: str):
    overrides = (f"signals.features.filter={low_pass}", "store.path=artifacts/caches/other.zarr")
    cache_teacher.run(source(*overrides), part="all", replace=False, wait=False)
    assert learnt(*overrides, objectives="lfcc")["final_loss"] > 0
    with pytest.raises(CacheMismatch, match=rf'signals\.filter: expected "mean", got "{low_pass}"'):
        student("small", "lfcc", overrides[1])
