"""The dropping of teachers: what is kept for an image, how large the sum is, how often, and what alone decides."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.objectives import Batch, Context, ObjectiveSet, ObjectiveSetConfig, kl_divergence, methods
from pipeline.objectives.catalogue import list_methods
from pipeline.objectives.config import ObjectiveEntry
from pipeline.objectives.dropping import TeacherDropping, Weighted
from pipeline.objectives.set import KnownTeacher
from pipeline.signals import Signals, SignalShapes

IMAGES = 2000
WORD = 2**64


def of_images(count: int, step: int = 0, first: int = 0) -> Batch:
    """A batch of images, each in its view 1."""
    numbers = torch.arange(first, first + count)
    return Batch(torch.zeros_like(numbers), numbers, torch.ones_like(numbers), step)


def terms(**losses: list[float]) -> list[Weighted]:
    """A term of every image for each teacher, and one that no dropping concerns."""
    return [(None, torch.tensor(10.0)), *((name, torch.tensor(value)) for name, value in losses.items())]


def kept(dropping: TeacherDropping, teacher: str, batch: Batch) -> list[bool]:
    """For which images a teacher is kept that is the nearest of all to every image: of whom alone chance decides."""
    losses = {name: torch.full(batch.sample.shape, float(name != teacher)) for name in dropping.teachers}
    losses = {name: loss.requires_grad_() for name, loss in losses.items()}
    values, _ = dropping.total(list(losses.items()), batch)
    values[-1].backward()
    gradient = losses[teacher].grad
    assert gradient is not None
    return (gradient != 0).tolist()


def test_the_furthest_is_kept_for_every_image_and_the_others_with_their_probability():
    dropping, batch = TeacherDropping(["a", "b", "c"], 0.25, seed=3), of_images(IMAGES)
    near = {name: np.array(kept(dropping, name, batch)) for name in "abc"}
    for found in near.values():
        assert found.mean() == pytest.approx(0.75, abs=4 * np.sqrt(0.25 * 0.75 / IMAGES))
    for one, other in ("ab", "ac", "bc"):  # each for itself
        both = np.mean(~near[one] & ~near[other])
        assert both == pytest.approx(1 / 16, abs=4 * np.sqrt(1 / 16 * 15 / 16 / IMAGES))
    furthest = torch.arange(IMAGES) % 3
    losses = {name: (furthest == place).double() for place, name in enumerate("abc")}
    _, shares = dropping.total(list(losses.items()), batch)
    for place, name in enumerate("abc"):
        left_out = ~near[name] & (furthest != place).numpy()
        assert float(shares[f"dropped/{name}"]) == pytest.approx(left_out.mean())


def word(*numbers: int) -> int:
    """Splitmix64's mixture of numbers, each added to the mixture of those before, in whole numbers of Python."""
    mixed = 0
    for number in numbers:
        mixed = (mixed + number * 0x9E3779B97F4A7C15) % WORD
        mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9 % WORD
        mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB % WORD
        mixed ^= mixed >> 31
    return mixed


@pytest.mark.parametrize(("seed", "step"), [(0, 0), (7, 12345), (-1, 2**40)])
def test_equals_the_formula_in_whole_numbers_and_float64(seed: int, step: int):
    p, random = 0.5, np.random.default_rng(1)
    losses = {name: random.random(9) for name in "abc"}
    batch = Batch(torch.zeros(9), torch.arange(9) * 10**6, torch.arange(9) % 4, step)
    coefficients = {name: np.zeros(9) for name in "abc"}
    for image in range(9):
        furthest = max("abc", key=lambda name: losses[name][image])
        for place, name in enumerate("abc"):
            drawn = word(seed, step, place, image * 10**6, image % 4) / WORD
            coefficients[name][image] = name == furthest or drawn >= p
    kept_sum = sum((coefficients[name] * losses[name]).sum() for name in "abc")
    expected = 3 * kept_sum / sum(coefficients[name].sum() for name in "abc")
    given = [(name, torch.from_numpy(loss)) for name, loss in losses.items()]
    (value,), shares = TeacherDropping("abc", p, seed).total(given, batch)
    assert float(value) == pytest.approx(expected, rel=1e-12)
    for name in "abc":
        assert float(shares[f"dropped/{name}"]) == pytest.approx(1 - coefficients[name].mean())


def test_two_images_by_hand():
    # With p = 1 the furthest alone counts: b for the first image, a for the second. 2 (3 + 4) / 2, beside the 10.
    values, shares = TeacherDropping("ab", 1.0, seed=0).total(terms(a=[1.0, 4.0], b=[3.0, 2.0]), of_images(2))
    assert [float(value) for value in values] == [10, 7]
    assert {name: float(share) for name, share in shares.items()} == {"dropped/a": 0.5, "dropped/b": 0.5}


def test_a_teacher_of_several_objectives_counts_by_their_sum():
    dropping = TeacherDropping("ab", 1.0, seed=0)
    values, _ = dropping.total([*terms(a=[2.0], b=[3.0]), ("a", torch.tensor([2.0]))], of_images(1))
    assert [float(value) for value in values] == [10, 2 * 4]


@pytest.mark.parametrize("probability", [0.0, 1e-12])
def test_without_dropping_all_count_once(probability: float):
    values, shares = TeacherDropping("ab", probability, seed=0).total(terms(a=[1.0, 3.0], b=[3.0, 5.0]), of_images(2))
    assert float(sum(values)) == 10 + 2 + 4
    assert all(share == 0 for share in shares.values())


def test_teachers_that_are_off_do_not_count():
    dropping = TeacherDropping("abc", 1.0, seed=0)
    assert [float(value) for value in dropping.total(terms(a=[1.0], c=[5.0]), of_images(1))[0]] == [10, 10]
    assert dropping.total(terms(), of_images(1)) == ([terms()[0][1]], {})


def test_it_depends_on_seed_step_sample_and_view_alone():
    one, two, other = (TeacherDropping(names, 0.5, seed) for names, seed in (("ab", 0), ("ba", 0), ("ab", 1)))
    whole = kept(one, "a", of_images(64, 5))
    assert kept(two, "a", of_images(64, 5)) == whole
    assert kept(one, "a", of_images(32, 5)) + kept(one, "a", of_images(32, 5, first=32)) == whole  # parts of a step
    batch = of_images(64, 5)
    turned = Batch(batch.labels, batch.sample.flip(0), batch.view, 5)
    assert kept(one, "a", turned) == whole[::-1]
    for differing in (
        kept(other, "a", of_images(64, 5)),
        kept(one, "b", of_images(64, 5)),
        kept(one, "a", of_images(64, 6)),
        kept(one, "a", Batch(batch.labels, batch.sample, batch.view + 1, 5)),
    ):
        assert differing != whole


def signals(width: int, seed: int) -> Signals:
    generator = torch.Generator().manual_seed(seed)
    return Signals(torch.randn(6, 4, generator=generator), torch.randn(6, width, generator=generator))


def built(names: str, dropping: float = 0.0, name: str = "kd") -> ObjectiveSet:
    """A set with an objective for each of some teachers."""
    return of_two([{"name": name, "teacher": teacher} for teacher in names], dropping)


def of_two(given: list[dict[str, object]], dropping: float) -> ObjectiveSet:
    """A set whose teachers are a and b."""
    entries = [ObjectiveEntry.model_validate(entry) for entry in given]
    shapes, context = SignalShapes(4, 8), Context(6, 4, torch.zeros(6, dtype=torch.int64))
    known = {"a": KnownTeacher(shapes, context), "b": KnownTeacher(shapes, context)}
    return ObjectiveSet("t", entries, shapes, shapes, context, known, teacher_dropping=dropping)


def test_a_dropped_teacher_sends_no_gradient():
    student, others = signals(8, 0), {"a": signals(8, 1), "b": signals(8, 2)}
    batch = of_images(6)

    def gradient(objectives: ObjectiveSet) -> tuple[Tensor, dict[str, Tensor]]:
        logits = student.logits.clone().requires_grad_()
        value = objectives(Signals(logits, student.embedding), others["a"], batch, 0.0, others)
        value.total.backward()
        assert logits.grad is not None
        return logits.grad, value.terms

    found, values = gradient(built("ab", 1.0))
    alone = {name: gradient(built(name))[0] for name in "ab"}
    losses = {name: kl_divergence(student.logits, others[name].logits, 4.0) for name in "ab"}
    a_is_further = losses["a"] > losses["b"]
    assert 0 < a_is_further.sum() < 6
    torch.testing.assert_close(found, 2 * torch.where(a_is_further[:, None], alone["a"], alone["b"]))
    assert float(values["dropped/a"]) == pytest.approx(1 - float(a_is_further.float().mean()))
    for name in "ab":  # in logs, the mean of all images, of those without it, too
        assert float(values[f"kd-{name}/kl"]) == pytest.approx(float(losses[name].mean()))


def test_what_has_no_loss_of_every_image_is_refused():
    built("ab", name="pkt")
    with pytest.raises(ConfigError) as error:
        built("ab", 0.5, name="pkt")
    assert [problem.key for problem in error.value.problems] == ["objectives.t.0", "objectives.t.1"]
    assert "pkt-a has no loss of every image by itself" in str(error.value)


def test_one_teacher_cannot_be_dropped():
    for entries in ([{"name": "kd", "teacher": "a"}, "vkd"], [{"name": "kd", "teacher": "a"}]):
        with pytest.raises(ValidationError, match="two teachers or more"):
            ObjectiveSetConfig.model_validate({"teacher_dropping": 0.5, "objectives": entries})
    with pytest.raises(ValidationError):
        ObjectiveSetConfig.model_validate({"teacher_dropping": 1.5, "objectives": ["kd"]})


def test_labels_are_not_left_out():
    """Though `hard-label` may read a teacher, for how much each image counts."""
    given = [{"name": "hard-label", "teacher": "a", "weighting": "entropy"}, {"name": "kd", "teacher": "b"}]
    of_two(given, 0.0)
    with pytest.raises(ConfigError) as error:
        of_two(given, 0.5)
    assert [problem.key for problem in error.value.problems] == ["objectives.t.0.teacher"]
    assert "leave its `teacher` out" in str(error.value)


def test_the_page_names_the_methods_that_have_a_loss_of_every_image():
    every = {method.name for method in list_methods()} - {"hard-label"}
    page = (Path(__file__).parents[2] / "docs" / "several-caches.md").read_text()
    said = page[page.index("Each image needs a loss of its own") : page.index("Other methods are refused with")]
    assert set(re.findall(r"`([a-z0-9-]+)`", said)) == {name for name in every if has_samples(name)}


def has_samples(name: str) -> bool:
    """Whether a method has a loss of every image."""
    file = name.replace("-", "_")
    return "(SampleObjective)" in (Path(methods.__file__).parent / f"{file}.py").read_text()
