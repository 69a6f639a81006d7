"""Several caches in Python: of one teacher, of an ensemble, and of teachers that objectives name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from api_pieces import COUNT, augment, cached, network, opened, photos
from torch.utils.data import DataLoader

from pipeline import CachedViews, objective
from pipeline.errors import CacheMismatch, ConfigError, TrainingError
from pipeline.store.reader import TeacherCache


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Caches of a teacher with 32 channels and of one with 24."""
    first, second = (tmp_path_factory.mktemp(name) for name in ("first", "second"))
    return cached(first), cached(second, teacher=network(12, seed=1))


@pytest.fixture(scope="module")
def data(paths: tuple[Path, Path]) -> CachedViews:
    return opened(paths[0], name="first", teachers={"second": paths[1]})


def test_each_objective_reads_the_teacher_that_it_names(data: CachedViews, paths: tuple[Path, Path]) -> None:
    student = network()
    terms: list[Any] = ["kd", ("kd", 2, {"teacher": "first"}), ("kd", 0.5, {"teacher": "second"})]
    loss = objective([*terms, ("srrl", 1, {"teacher": "second"})], student, data)
    assert loss.reads == {"logits", *(f"second:{signal}" for signal in ("logits", "embedding", "head"))}
    batch = next(iter(data.loader(12, signals=loss.reads)))
    value = loss(student, batch)
    stored = [TeacherCache.open(path).read(0, batch.sample.numpy()) for path in paths]
    logits = student(batch.images).logits
    kl = [
        16
        * torch.nn.functional.kl_div((logits / 4).log_softmax(1), (each.logits / 4).softmax(1), reduction="batchmean")
        for each in stored
    ]
    found = loss.terms
    for label, expected in (("kd", kl[0]), ("kd-first", kl[0]), ("kd-second", kl[1])):
        torch.testing.assert_close(found[f"{label}/kl"], expected.detach(), rtol=1e-4, atol=1e-5)
    head = TeacherCache.open(paths[1]).head
    assert head is not None
    torch.testing.assert_close(loss.heads.others()["second"].weight, head.weight)
    total = kl[0] + 2 * kl[0] + kl[1] / 2 + found["srrl-second/feature"] + found["srrl-second/regression"]
    torch.testing.assert_close(value, total, rtol=1e-4, atol=1e-5)
    value.backward()
    assert all(p.grad is not None for p in loss.parameters())


def test_a_loader_of_ones_own_has_the_outputs_of_all_teachers(data: CachedViews, paths: tuple[Path, Path]) -> None:
    student = network()
    loss = objective(
        [("vkd", 1, {"teacher": name, "standardise": "phi-s"}) for name in ("first", "second")], student, data
    )
    batch = next(iter(DataLoader(data, batch_size=9, shuffle=True, collate_fn=data.collate)))
    assert len(batch.view.unique()) > 1
    second = TeacherCache.open(paths[1])
    for row in range(9):
        found = batch.teacher_outputs.others["second"].decode().embedding[row]  # type: ignore[union-attr, index]
        expected = second.signal("embedding", int(batch.view[row]), batch.sample[row : row + 1].numpy())[0]
        assert torch.equal(found, expected)
    assert torch.isfinite(loss(student, batch))
    assert (paths[1].parent / "cache.statistics").is_dir()


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Views 3 and 4 of the first teacher."""
    return cached(tmp_path_factory.mktemp("later"), views=augment(2, first=3))


def test_views_that_were_cached_later_are_read_with_the_others(paths: tuple[Path, Path], later: Path) -> None:
    several = opened([paths[0], later])
    assert several.source.views == (0, 1, 2, 3, 4)
    assert len(several) == 5 * COUNT
    batch = next(iter(DataLoader(several, batch_size=len(several), collate_fn=several.collate)))
    outputs = batch.teacher_outputs.decode()  # type: ignore[union-attr]
    for path, numbers in ((paths[0], (0, 1, 2)), (later, (3, 4))):
        cache = TeacherCache.open(path)
        for number in numbers:
            rows = batch.view == number
            assert batch.sample[rows].tolist() == list(range(COUNT))
            stored = cache.read(number, np.arange(COUNT))
            assert torch.equal(outputs.logits[rows], stored.logits)
            assert torch.equal(outputs.embedding[rows], stored.embedding)  # type: ignore[index, arg-type]
    seen = torch.cat([step.view.unique() for step in (next(iter(several.loader(COUNT))) for _ in range(5))])
    assert seen.sort().values.tolist() == [0, 1, 2, 3, 4]
    chosen = opened([paths[0], later], views=augment(2, first=2), teachers={"again": [later, paths[0]]})
    assert chosen.source.views == chosen.source.others["again"].views == (2, 3)


@pytest.mark.parametrize("mean", ["mean-logits", "mean-probabilities"])
def test_an_ensemble_teaches_by_the_mean_of_its_teachers(paths: tuple[Path, Path], mean: Any) -> None:
    ensemble = opened(paths[0], ensemble=paths[1], mean=mean, name="first", teachers={"second": paths[1]})
    student = network()
    loss = objective(["kd", ("vkd", 1, {"teacher": "first"}), ("kd", 1, {"teacher": "second"})], student, ensemble)
    batch = next(iter(DataLoader(ensemble, batch_size=30, shuffle=True, collate_fn=ensemble.collate)))
    caches = [TeacherCache.open(path) for path in paths]
    one, two = (
        torch.cat([cache.read(int(v), s[None].numpy()).logits for v, s in zip(batch.view, batch.sample, strict=True)])
        for cache in caches
    )
    combined = (one + two) / 2
    if mean == "mean-probabilities":
        combined = ((one.softmax(1) + two.softmax(1)) / 2).log()
    found = batch.teacher_outputs.decode().logits  # type: ignore[union-attr]
    torch.testing.assert_close(found.softmax(1), combined.softmax(1))
    loss(student, batch)
    target = (combined / 4).softmax(1)
    expected = 16 * torch.nn.functional.kl_div(
        (student(batch.images).logits / 4).log_softmax(1), target, reduction="batchmean"
    )
    torch.testing.assert_close(loss.terms["kd/kl"], expected.detach(), rtol=1e-4, atol=1e-5)
    with pytest.raises(ConfigError, match="ensemble"):
        objective("srrl", network(), ensemble)


def test_caches_that_do_not_go_together_are_refused(paths: tuple[Path, Path], later: Path, tmp_path: Path) -> None:
    first, second = paths
    with pytest.raises(CacheMismatch, match=r"another teacher than .*\n  - .*\n[\s\S]*ensemble=\[path\]"):
        opened([first, second])
    with pytest.raises(CacheMismatch, match=r"would count twice[\s\S]*CachedViews\(\[path, more\]"):
        opened(first, ensemble=later)
    with pytest.raises(CacheMismatch, match=r"lacks views 0 to 2[\s\S]*got: views 3, 4"):
        opened(first, ensemble=second, teachers={"b": later})
    with pytest.raises(CacheMismatch, match=r"lacks views 5, 6"):
        opened([first, later], views=augment(4, first=3))
    with pytest.raises(CacheMismatch, match="two caches of one teacher have views 0 to 2"):
        opened([first, cached(tmp_path)])
    for wrong, what in (({"mean": "mean"}, "did you mean 'mean-"), ({"teachers": {"b": []}}, "names no cache")):
        with pytest.raises(ConfigError, match=what):
            opened(first, **wrong)
    with pytest.raises(ConfigError, match="path: names no cache"):
        opened([])


def test_a_teacher_may_be_dropped(data: CachedViews) -> None:
    loss = objective([("kd", 1, {"teacher": n}) for n in ("first", "second")], network(), data, teacher_dropping=1.0)
    student = network()
    loss(student, next(iter(data.loader(COUNT))))
    assert float(loss.terms["dropped/first"] + loss.terms["dropped/second"]) == pytest.approx(1)
    with pytest.raises(ConfigError, match="two teachers or more"):
        objective([("kd", 1, {"teacher": "second"})], network(), data, teacher_dropping=0.5)


def test_a_teacher_with_a_dot_in_its_name_has_a_head(paths: tuple[Path, Path]) -> None:
    loss = objective([("srrl", 1, {"teacher": "vit.b"})], network(), opened(paths[0], teachers={"vit.b": paths[1]}))
    head = TeacherCache.open(paths[1]).head
    assert head is not None
    assert torch.equal(loss.heads.others()["vit.b"].weight, head.weight)


def test_what_cannot_be_is_refused(data: CachedViews, paths: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"objectives\[0\].teacher: unknown name 'secnd'"):
        objective([("kd", 1, {"teacher": "secnd"})], network(), data)
    with pytest.raises(ConfigError, match=r"in CachedViews\(path, dataset, teachers=\{'clip': \.\.\.\}\)"):
        objective([("kd", 1, {"teacher": "clip"})], network(), opened(paths[0]))
    with pytest.raises(ConfigError, match="signals: unknown name 'third'"):
        data.loader(8, signals={"third:embedding"})
    with pytest.raises(ConfigError, match="is the name of two teachers"):
        opened(paths[0], name="a", teachers={"a": paths[1]})
    with pytest.raises(ConfigError, match="teachers"):
        opened(paths[0], teachers={"a:b": paths[1]})
    loss = objective([("vkd", 1, {"teacher": "second"})], student := network(), data)
    with pytest.raises(TrainingError, match="read without second's embedding"):
        loss(student, next(iter(data.loader(8, signals={"embedding"}))))
    loss = objective([("kd", 1, {"teacher": "second"})], student := network(), data)
    with pytest.raises(TrainingError, match=r"read without second's logits[\s\S]*got: nothing"):
        loss(student, next(iter(data.loader(8, signals={"embedding"}))))
    others = photos(seed=1)
    with pytest.raises(CacheMismatch, match="data"):
        opened(paths[0], teachers={"b": cached(tmp_path, others)})
    (tmp_path / "views").mkdir()
    fewer = cached(tmp_path / "views", views=augment(2))
    with pytest.raises(CacheMismatch):
        opened(paths[0], teachers={"b": fewer})
    chosen = opened(paths[0], views=augment(2), teachers={"b": fewer})
    assert np.array_equal(chosen.source.views, (0, 1))
