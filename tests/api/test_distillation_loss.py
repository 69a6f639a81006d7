"""The loss of a student is the weighted sum of the objectives' formulas on the cached outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from api_pieces import cached, network, opened, photos

from pipeline import CachedViews, make_views, objective
from pipeline.errors import ConfigError, ModelError, TrainingError
from pipeline.signals import Signals


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> CachedViews:
    return opened(cached(tmp_path_factory.mktemp("loss")))


def test_the_value_is_that_of_the_formulas(data: CachedViews) -> None:
    student = network()
    loss = objective([("hard-label", 0.25), ("kd", 0.75, {"temperature": 2})], student, data)
    batch = next(iter(data.loader(12)))
    signals = student(batch.images)
    value = loss(signals, batch)
    assert batch.teacher_outputs is not None
    teacher = batch.teacher_outputs.decode().logits
    hard = F.cross_entropy(signals.logits, batch.labels)
    soft = 4 * F.kl_div((signals.logits / 2).log_softmax(1), (teacher / 2).softmax(1), reduction="batchmean")
    torch.testing.assert_close(value, 0.25 * hard + 0.75 * soft)
    torch.testing.assert_close(loss.terms, {"hard-label/cross-entropy": hard.detach(), "kd/kl": soft.detach()})
    torch.testing.assert_close(loss(student, batch), value)
    assert loss.reads == {"logits"}


def test_views_that_mix_photos_have_labels_of_both(tmp_path: Path) -> None:
    views = make_views([{"name": "pad-crop", "padding": 1}, "mixup-or-cutmix"], count=3)
    own = opened(cached(tmp_path, views=views), views=views)
    student = network()
    loss = objective([("hard-label", 0.25), ("kd", 0.75)], student, own)
    batch = next(iter(own.loader(12)))
    assert batch.mixed is not None
    assert batch.teacher_outputs is not None
    share = batch.mixed.share[:, None]
    target = share * F.one_hot(batch.labels, 4) + (1 - share) * F.one_hot(batch.mixed.labels, 4)
    signals = student(batch.images)
    value = loss(signals, batch)
    teacher = batch.teacher_outputs.decode().logits
    soft = 16 * F.kl_div((signals.logits / 4).log_softmax(1), (teacher / 4).softmax(1), reduction="batchmean")
    torch.testing.assert_close(value, 0.25 * F.cross_entropy(signals.logits, target) + 0.75 * soft)
    # Items of one's own order are rows of the same batches: view and sample by view and sample.
    rows = {(int(v), int(n)): i for i, (v, n) in enumerate(zip(batch.view, batch.sample, strict=True))}
    items = own.__getitems__([view * own.samples.count + sample for view, sample in reversed(rows)])
    assert items.mixed is not None
    order = [rows[int(v), int(n)] for v, n in zip(items.view, items.sample, strict=True)]
    assert torch.equal(items.mixed.labels, batch.mixed.labels[order])
    assert torch.equal(items.mixed.share, batch.mixed.share[order])
    across = own.__getitems__([2 * own.samples.count + 3, 5, own.samples.count + 7, 6])
    assert across.mixed is not None
    alone = [own[2 * own.samples.count + 3], own[5], own[own.samples.count + 7], own[6]]
    assert across.mixed.share.tolist() == [float(one.mixed.share) for one in alone if one.mixed is not None]
    assert across.mixed.labels.tolist() == [int(one.mixed.labels) for one in alone if one.mixed is not None]
    with pytest.raises(ConfigError, match="cannot say what a view is that mixup-or-cutmix makes"):
        objective(["dkd"], student, own)


def test_objectives_are_written_in_four_ways(data: CachedViews) -> None:
    forms: list[Any] = ["kd", ("kd", 1), ("kd", 1.0, {"temperature": 4}), {"name": "kd", "weight": 1}]
    batch = next(iter(data.loader(12)))
    values = [objective([form], network(), data)(network(), batch) for form in forms]
    assert len({float(value.detach()) for value in values}) == 1


def test_the_student_returns_the_maps_that_are_compared_and_no_others(data: CachedViews) -> None:
    student = network()
    objective(["kd"], student, data)
    assert list(student(data[0].images).features) == []
    objective([("lfcc", 1, {"scales": [1, 2], "blocks": ["block2"]})], student, data)
    assert list(student(data[0].images).features) == ["block2"]


def test_two_losses_of_one_student_have_the_maps_of_both(data: CachedViews) -> None:
    student = network()
    first = objective([("at", 1, {"blocks": ["block1"]})], student, data)
    alone = first(student, data[0])
    second = objective([("at", 1, {"blocks": ["block2"]})], student, data)
    assert float(second(student, data[0]).detach()) > 0
    torch.testing.assert_close(first(student, data[0]), alone)
    student.keep_taps([])
    with pytest.raises(TrainingError, match="did not return features/block1"):
        first(student, data[0])


def test_projections_depend_on_the_seed_alone(data: CachedViews) -> None:
    def weights(seed: int) -> list[float]:
        torch.manual_seed(seed + 7)
        loss = objective([("fitnet", 1)], network(), data, seed=seed)
        return torch.cat([p.detach().flatten() for p in loss.parameters()]).tolist()

    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert weights(0) == weights(0)
    assert weights(0) != weights(1)
    torch.manual_seed(1)
    objective([("fitnet", 1)], network(), data)
    network_draws = torch.get_rng_state()
    torch.manual_seed(1)
    network()
    assert torch.equal(torch.get_rng_state(), network_draws)
    assert len(before) == len(network_draws)


def test_the_head_of_the_teacher_moves_with_the_loss(data: CachedViews) -> None:
    loss = objective([("srrl", 1)], network(), data)
    assert "head" in loss.reads
    batch = next(iter(data.loader(12, signals=loss.reads)))
    assert torch.isfinite(loss(network(), batch))
    held = {"heads.weight0", "heads.bias0"}
    assert held <= {name for name, _ in loss.named_buffers()}
    assert not held & set(loss.state_dict())


def test_a_schedule_goes_by_the_steps_of_the_whole_training(data: CachedViews) -> None:
    entry = {"name": "kd", "schedule": {"warmup": 0.5}}
    with pytest.raises(ConfigError, match="total_steps=epochs"):
        objective([entry], network(), data)
    loss = objective([entry], network(), data, total_steps=8)
    student = network()
    batches = [batch for _ in range(2) for batch in data.loader(6)]
    weights = []
    for index, batch in enumerate(batches):
        batch.index = index
        value = loss(student, batch)
        weights.append(round(float(value.detach() / loss.terms["kd/kl"]), 5) if loss.terms else 0.0)
    assert weights == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0]


def test_batches_of_a_loader_of_ones_own_are_counted(data: CachedViews) -> None:
    loss = objective([{"name": "kd", "schedule": {"on_after": 0.5}}], network(), data, total_steps=2)
    student, batch = network(), data.__getitems__([0, 30])
    assert float(loss.eval()(student, batch).detach()) == 0
    assert float(loss.train()(student, batch).detach()) == 0
    assert float(loss(student, batch).detach()) > 0
    assert int(loss.state_dict()["calls"]) == 2


def test_every_problem_is_told_at_once_with_the_nearest_name(data: CachedViews) -> None:
    with pytest.raises(ConfigError) as caught:
        objective(["kdd", ("kd", -1), ("kd", 1, {"temprature": 1})], network(), data)
    text = str(caught.value)
    assert "3 problems" in text
    assert "objectives[0].name" in text
    assert "did you mean 'temperature'" in text
    with pytest.raises(ConfigError, match="names no objective"):
        objective([], network(), data)


def test_signals_that_the_cache_lacks_are_named(tmp_path: Path) -> None:
    from pipeline import cache_teacher, make_views

    path = tmp_path / "logits.zarr"
    cache_teacher(network(), photos(), make_views(), path, signals={"embedding": None}, device="cpu", progress=False)
    with pytest.raises(ConfigError, match="cached features of the teacher"):
        objective([("lfcc", 1)], network(), opened(path))


def test_labels_are_needed_where_they_are_read(tmp_path: Path) -> None:
    bare = [image for image, _ in photos()]
    data = opened(cached(tmp_path, bare), bare)
    with pytest.raises(ConfigError, match="hard-label needs labels"):
        objective(["hard-label"], network(), data)
    assert objective(["kd"], network(), data)


def test_a_student_that_ends_in_the_teachers_classifier_is_left_to_the_commands(data: CachedViews) -> None:
    with pytest.raises(ConfigError, match="pipeline train-student"):
        objective(["simkd"], network(), data)


def test_a_bare_module_is_told_how_to_become_a_student(data: CachedViews) -> None:
    model: Any = network().model
    with pytest.raises(ModelError, match="as_network"):
        objective(["kd"], model, data)
    loss = objective(["kd"], network(), data)
    with pytest.raises(TrainingError, match="does not return signals"):
        loss(torch.nn.Flatten(), data[0])
    with pytest.raises(TrainingError, match="as_network"):
        loss(model, data[0])  # its weights are no bytes: torch raises


def test_the_teacher_is_standardised(data: CachedViews) -> None:
    student = network()
    loss = objective({"name": "vkd", "standardise": "phi-s"}, student, data)
    value = loss(student, next(iter(data.loader(12, signals=loss.reads))))
    value.backward()
    assert torch.isfinite(value)
    with pytest.raises(ConfigError, match="there is no teacher of that name"):
        objective({"name": "vkd", "teacher": "clip"}, student, data)


def test_every_method_can_be_built_and_used_but_for_those_that_are_refused_by_name(data: CachedViews) -> None:
    """The contract suite tests the methods; here, that nothing but signals travels between loss and network."""
    student = network()
    loss = objective([("at", 1), ("pkt", 1), ("rkd", 1), ("crd", 1)], student, data)
    value = loss(student, next(iter(data.loader(12, signals=loss.reads))))
    value.backward()
    assert torch.isfinite(value)
    assert all(p.grad is not None for p in loss.parameters() if p.requires_grad)
    assert isinstance(student(data[0].images), Signals)
