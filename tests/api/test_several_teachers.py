"""Objectives in Python that name their teacher, of several caches."""

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
