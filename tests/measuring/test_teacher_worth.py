"""What a cached teacher can teach, against counting by hand, and from caches of every kind."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from experiment import COUNT, source

import pipeline.measuring.teacher_accuracy
import pipeline.measuring.teacher_worth
from pipeline.commands import check, inspect
from pipeline.measuring.measured import TeacherWorth
from pipeline.measuring.metrics import measure
from pipeline.measuring.teacher_worth import effective_rank, open_for_worth, teacher_worth
from pipeline.store.reader import TeacherCache
from stages import cache_teacher

MAIN = Path("artifacts/caches/tiny.zarr")
VIEWS = 2


def everything() -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Logits, embeddings and labels of all views, in float64."""
    cache = TeacherCache.open(MAIN)
    read = [cache.read(view, np.arange(COUNT)) for view in cache.views]
    embeddings = [each.embedding for each in read if each.embedding is not None]
    labels = np.tile(cache.labels, len(read))
    return torch.cat([each.logits for each in read]).double(), torch.cat(embeddings).double(), labels


def worth(*, whole: bool) -> TeacherWorth:
    found = teacher_worth(open_for_worth(MAIN), whole=whole)
    assert found is not None
    return found


@pytest.mark.parametrize("at_once", [50, 4 << 20])
def test_all_views_are_counted_one_by_one(here: Path, at_once: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pipeline.measuring.teacher_worth, "NUMBERS_AT_ONCE", at_once)
    logits, embeddings, labels = everything()
    found = worth(whole=True)
    entropies, sure, raw, soft, margins = [], [], [], [], []
    for row in logits.tolist():
        powers = [math.exp(z - max(row)) for z in row]
        p = sorted((power / sum(powers) for power in powers), reverse=True)
        entropies.append(-sum(each * math.log(each) for each in p))
        sure.append(p[0])
        soft.append(p[0] / p[1])
        first, second = sorted(row, reverse=True)[:2]
        margins.append(first - second)
        raw += [first / second] if second > 0 else []
    known = measure(logits, labels)
    assert found.views == found.cached == found.labeled == len(logits)
    assert found.accuracy == pytest.approx(known.top1)
    assert found.ece == pytest.approx(known.ece)
    assert found.entropy == pytest.approx(np.mean(entropies))
    assert found.confidence == pytest.approx(np.mean(sure))
    assert found.ratio_softmax == pytest.approx(np.mean(soft))
    assert found.margin == pytest.approx(np.mean(margins))
    assert found.ratio_of == len(raw) / len(logits)
    assert found.ratio_logits == (pytest.approx(np.mean(raw)) if raw else None)
    shares = np.linalg.svd(embeddings.numpy() - embeddings.numpy().mean(0), compute_uv=False) ** 2
    shares /= shares.sum()
    shares = shares[shares > 1e-30]
    assert found.rank == pytest.approx(math.exp(-(shares * np.log(shares)).sum()), rel=1e-6)
    assert found.vectors == len(embeddings)


def test_some_views_are_those_of_the_accuracy_and_the_rank_is_of_the_smaller_product(
    here: Path, monkeypatch: pytest.MonkeyPatch
):
    logits, embeddings, labels = everything()
    few = worth(whole=False)
    assert (few.views, few.cached) == (COUNT, VIEWS * COUNT)
    first = logits[:COUNT].argmax(1).numpy() == labels[:COUNT]
    assert few.accuracy == pytest.approx(first.mean())
    assert few.vectors == COUNT
    chosen = embeddings[:COUNT].numpy()
    assert few.rank == pytest.approx(effective_rank(np.linalg.eigvalsh(np.cov(chosen.T))), rel=1e-6)
    monkeypatch.setattr(pipeline.measuring.teacher_worth, "RANKED", 5)
    fewest = worth(whole=False)
    chosen = chosen[np.linspace(0, COUNT - 1, 5).round().astype(int)]
    assert fewest.vectors == 5
    assert fewest.rank == pytest.approx(effective_rank(np.linalg.eigvalsh(np.cov(chosen.T))), rel=1e-5)


@pytest.mark.parametrize(
    ("variances", "rank"),
    [([2.0] * 7, 7), ([3.0, 0.0, 0.0], 1), ([0.0, -1e-18], 0), ([0.5, 0.25, 0.25], math.exp(1.5 * math.log(2)))],
)
def test_effective_rank(variances: list[float], rank: float):
    assert effective_rank(np.array(variances)) == pytest.approx(rank)


def test_logits_beyond_measure(here: Path):
    """Of the ratio of probabilities the mean is beyond any float: null for programs, and a power for people."""
    tally = pipeline.measuring.teacher_worth._Tally(3)
    tally.add(torch.tensor([[2e4, 1e4, -1.0], [3.0, 1.0, 0.0]]), np.array([0, -1]))
    tally.add(torch.tensor([[-1.0, -2.0, -3.0]]), np.array([2]))
    found = TeacherWorth(3, 3, **tally.facts())
    assert found.labeled == 2
    assert found.accuracy == 0.5
    assert found.ratio_softmax == math.inf
    assert found.facts()["ratio_softmax"] is None
    assert found.margin == pytest.approx((1e4 + 2 + 1) / 3)
    assert found.ratio_logits == pytest.approx((2 + 3) / 2)  # the third's second largest is negative
    assert found.ratio_of == pytest.approx(2 / 3)
    said = [*found.lines()][1]
    assert "logits of too few views (67%)" in said  # the ratio of a few may be any
    assert "probabilities beyond 1e308 (geometric mean e^3334)" in said
    assert "logits 2.5 (90% of views)" in [*replace(found, ratio_of=0.9).lines()][1]


def test_the_calibration_error_is_of_bins():
    """0.9 right and 0.92 wrong are in one of 15 bins, 0.62 right is in another: |1 - 1.82| + |1 - 0.62|, of 3."""
    tally = pipeline.measuring.teacher_worth._Tally(2)
    tally.add(torch.tensor([[0.9, 0.1], [0.08, 0.92]]).log(), np.array([0, 0]))
    tally.add(torch.tensor([[0.62, 0.38], [0.5, 0.5]]).log(), np.array([0, -1]))
    assert tally.facts()["ece"] == pytest.approx((0.82 + 0.38) / 3)


def test_a_sample_of_few_classes_says_so_and_has_no_rank(here: Path, monkeypatch: pytest.MonkeyPatch):
    """Data sorted by class, as folders of images are: 12 classes of 4, and a few rows of the first and last block."""
    monkeypatch.setattr(TeacherCache, "labels", property(lambda cache: np.arange(COUNT) // 4))
    monkeypatch.setattr(pipeline.measuring.teacher_accuracy, "BLOCKS", 2)
    monkeypatch.setattr(pipeline.measuring.teacher_accuracy, "SAMPLED", 10)
    found = worth(whole=False)  # rows 0, 5, 10, 14, 19, 40, 42, 44, 45, 47
    assert (found.classes, found.cached_classes, found.vectors) == (7, 12, 10)
    monkeypatch.setattr(pipeline.measuring.teacher_accuracy, "SAMPLED", 4)
    found = worth(whole=False)  # rows 0, 19, 40, 47
    assert (found.classes, found.rank, found.vectors) == (4, None, None)
    first, rest = found.lines()
    assert first.endswith(f"4 of {VIEWS * COUNT} views, which are of 4 of 12 classes")
    assert rest.endswith("no effective rank of so few classes: `pipeline inspect --whole` reads all")
    whole = worth(whole=True)
    assert (whole.classes, whole.cached_classes, whole.vectors) == (12, 12, VIEWS * COUNT)
    assert "classes" not in "".join(whole.lines())


def test_a_cache_without_labels_has_neither_accuracy_nor_calibration(here: Path, monkeypatch: pytest.MonkeyPatch):
    known = worth(whole=False)
    monkeypatch.setattr(TeacherCache, "labels", property(lambda cache: np.full(COUNT, -1)))
    nothing = {"labeled": 0, "accuracy": None, "ece": None, "classes": None, "cached_classes": None}
    assert worth(whole=False) == replace(known, **nothing)


def test_a_cache_of_embeddings_alone_has_their_rank_alone(here: Path):
    path = Path("embedding.zarr")
    overrides = ("teacher.head=none", "signals.features=null", f"store.path={path}")
    cache_teacher.run(source(*overrides), part="training", replace=False, wait=False)
    found, both = teacher_worth(open_for_worth(path)), worth(whole=False)
    assert found is not None
    assert found.rank == pytest.approx(both.rank, rel=1e-5)
    assert (found.confidence, found.entropy, found.margin, found.accuracy) == (None, None, None, None)
    first, rest = found.lines()
    assert first == f"{COUNT} of {VIEWS * COUNT} views"
    assert rest.startswith("effective rank")


@pytest.mark.parametrize("k", [1, 2, 4])
def test_a_cache_of_the_largest_logits_says_at_most(here: Path, k: int):
    path = Path("largest.zarr")
    overrides = (f"signals.logits.encoding={{name: topk, k: {k}}}", "signals.features=null", f"store.path={path}")
    cache_teacher.run(source(*overrides), part="training", replace=False, wait=False)
    found, exact = teacher_worth(open_for_worth(path)), worth(whole=False)
    assert found is not None
    assert found.kept == (k if k < 4 else None)
    assert found.accuracy == exact.accuracy
    assert found.confidence == pytest.approx(exact.confidence, rel=1e-3)
    first, *rest = found.lines()
    assert ("entropy at most " in first) == (k < 4)
    assert exact.entropy is not None
    assert found.entropy is not None
    if k < 4:
        assert found.entropy > exact.entropy
    if k == 1:
        assert (found.ratio_logits, found.ratio_of, found.ratio_softmax, found.margin) == (None,) * 4
        assert "largest to second" not in "".join(rest)
    else:
        assert found.margin == pytest.approx(exact.margin, rel=1e-2)


def test_commands_say_it_and_how_many_views_it_is_of(here: Path, capsys: pytest.CaptureFixture[str]):
    check.run(source(), as_json=False)
    told = capsys.readouterr().out
    assert f"worth     {MAIN}: right on " in told
    assert f"{COUNT} of {VIEWS * COUNT} views" in told
    check.run(source(), as_json=True)
    assert json.loads(capsys.readouterr().out)["teacher_worth"][str(MAIN)] == worth(whole=False).facts()
    inspect.run(source(), MAIN, sheet=None, as_json=False, whole=True)
    told = capsys.readouterr().out
    assert f"all {VIEWS * COUNT} views" in told
    assert "effective rank" in told
    inspect.run(source(), MAIN, sheet=None, as_json=True, whole=True)
    (facts,) = json.loads(capsys.readouterr().out)
    assert facts["worth"] == worth(whole=True).facts()
    assert not MAIN.with_name("tiny.statistics").exists()  # it writes nothing


def test_a_damaged_cache_is_described_all_the_same(here: Path, capsys: pytest.CaptureFixture[str]):
    file = next(path for path in MAIN.glob("logits/c/**/*") if path.is_file())
    file.write_bytes(bytes(file.stat().st_size))
    inspect.run(source(), MAIN, sheet=None, as_json=True, whole=True)
    captured = capsys.readouterr()
    assert json.loads(captured.out)[0]["worth"] is None
    assert "note: what the teacher is worth is not known" in captured.err
