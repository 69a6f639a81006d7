from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from objectives.layers import STUDENT, TEACHER, TOKENS, array, batch, built, cell_means, maps, projected, total
from objectives.maps import gradients_agree

from pipeline.errors import ConfigError
from pipeline.objectives import ObjectiveEntry
from pipeline.objectives.methods.tas import smoothed_contrast
from pipeline.signals import Signals, SignalShapes
from pipeline.signals.lowpass import lowpass

SMOOTHED = {"form": "smoothed"}


def none_same(size: int) -> torch.Tensor:
    return torch.zeros(size, size, dtype=torch.bool)


def test_two_samples_by_hand():
    # Own cosine 1, the other's 0.6: -log(e^(1/τ) / (e^(1/τ) + e^(0.6/τ))), for the first; the second alike.
    x = torch.tensor([[1.0, 0.0], [0.6, 0.8]])[..., None, None]
    value = smoothed_contrast(x, 3 * x, none_same(2), 0.2)
    assert value.tolist() == pytest.approx([math.log1p(math.exp(-2))] * 2, rel=1e-5)


@pytest.mark.parametrize("grid", [1, 2])
def test_equals_the_equation_in_float64(grid: int):
    tau, size, values = 0.3, 5, []
    sample = [0, 1, 1, 2, 3]
    objective = built("tas", {"grid": grid, "temperature": tau})
    student, teacher = maps(STUDENT, size, 1), maps(TEACHER, size, 2)
    for block, projector in zip(("block1", "block2"), objective.projectors, strict=True):
        s = projected(cell_means(array(student.features[block]), grid), projector)
        t = cell_means(array(teacher.features[block]), grid)
        t = (t - t.mean((0, 2, 3), keepdims=True)) / np.sqrt(t.var((0, 2, 3), keepdims=True) + 1e-5)
        u, v = ([x.ravel() / np.sqrt((x**2).sum()) for x in each] for each in (s, t))
        for b in range(size):
            rivals = [j for j in range(size) if j == b or sample[j] != sample[b]]
            values.append(-u[b] @ v[b] / tau + np.log(sum(np.exp(u[b] @ v[j] / tau) for j in rivals)))
    got = objective(student, teacher, batch(size, sample=sample), 0.0)["smoothed"]
    assert got.item() == pytest.approx(np.mean(values), rel=1e-10)


def test_places_do_not_matter():
    # Turning the student's and the teacher's maps upside down, or only one of them, changes nothing.
    objective, student, teacher = built("tas", SMOOTHED), maps(STUDENT, 5, 1), maps(TEACHER, 5, 2)
    turned = Signals(student.logits, features={tap: x.flip(2) for tap, x in student.features.items()})
    one, other = (objective(s, teacher, batch(5), 0.0)["smoothed"] for s in (student, turned))
    torch.testing.assert_close(one, other)


def test_full_maps_and_their_cached_means_are_the_same():
    full = SignalShapes(5, 8, {"block1": (5, 16, 16), "block2": (8, 8, 8)}, linear=True)
    objective, student, teacher = built("tas", SMOOTHED, teacher=full), maps(STUDENT, 5, 1), maps(full, 5, 2)
    cached = Signals(teacher.logits, features={tap: lowpass(x, 4) for tap, x in teacher.features.items()})
    one, other = (objective(student, t, batch(5), 0.0)["smoothed"] for t in (teacher, cached))
    torch.testing.assert_close(one, other)


def test_gradient():
    objective, student, teacher = built("tas", SMOOTHED), maps(STUDENT, 4, 1), maps(TEACHER, 4, 2)
    assert gradients_agree(objective, student, teacher, "block1", "block2")


def test_empty_maps_have_finite_gradients_and_the_loss_of_a_guess():
    maps_ = torch.zeros(4, 3, 1, 1, requires_grad=True)
    value = smoothed_contrast(maps_, torch.zeros(4, 3, 1, 1), none_same(4), 0.1)
    value.sum().backward()
    assert value.tolist() == pytest.approx([math.log(4)] * 4)
    assert maps_.grad.isfinite().all()


def test_students_of_tokens_and_refusals():
    value = built("tas", SMOOTHED, student=TOKENS)(maps(TOKENS, 4, 1), maps(TEACHER, 4, 2), batch(4), 0.0)["smoothed"]
    assert value.isfinite()
    with pytest.raises(ConfigError, match=r"tas\.grid: is finer than the coarsest map"):
        built("tas", {"grid": 8})
    with pytest.raises(ConfigError, match="needs cached features"):
        built("tas", SMOOTHED, teacher=SignalShapes(5, 8))


@pytest.mark.parametrize("epsilon", [1.0, 1.5])
def test_the_published_form_equals_the_equation_in_float64(epsilon: float):
    size, sample, contrasts, terms = 5, [0, 1, 1, 2, 3], [], []
    objective = built("tas", {"initial_temperature": 0.3, "epsilon": epsilon})
    assert objective.needs.labels == (epsilon != 1)
    student, teacher = maps(STUDENT, size, 1), maps(TEACHER, size, 2)
    given = batch(size, sample=sample)
    weight = array(objective.projector.weight)
    u = [weight @ x for x in array(student.embedding)]
    v = list(array(teacher.embedding))
    for b in range(size):
        cosines = [u[b] @ v[j] / np.sqrt((u[b] @ u[b]) * (v[j] @ v[j])) / 0.3 for j in range(size)]
        rivals = [cosines[j] for j in range(size) if j == b or sample[j] != sample[b]]
        contrasts.append(np.log(np.exp(rivals).sum()) - cosines[b])
        p, q = (
            np.exp(z - z.max()) / np.exp(z - z.max()).sum() for z in (array(x.logits)[b] for x in (teacher, student))
        )
        hard = np.eye(len(p))[given.labels[b]]
        terms.append(-(((p + hard) ** epsilon - hard) * np.log(q)).sum())
    got = objective(student, teacher, given, 0.0)
    assert got["contrast"].item() == pytest.approx(np.mean(contrasts), rel=1e-6)  # τ is kept in float32 at first
    assert got["logits"].item() == pytest.approx(np.mean(terms), rel=1e-10)


def test_the_temperature_is_learned_down_to_a_hundredth():
    """Where samples are told apart without error, a smaller one is always better."""
    objective = built("tas", {"initial_temperature": 0.3}, student=TEACHER)
    objective.projector.weight.data = torch.eye(TEACHER.embedding, dtype=torch.float64)
    said = maps(TEACHER, 5, 2)
    before = objective(said, said, batch(5), 0.0)["contrast"]
    before.backward()
    assert objective.log_scale.grad < 0
    objective.log_scale.data += 5
    after = objective(said, said, batch(5), 0.0)["contrast"]
    cosines = torch.nn.functional.normalize(said.embedding, dim=1)
    expected = torch.nn.functional.cross_entropy(cosines @ cosines.T / 0.01, torch.arange(5))
    torch.testing.assert_close(after, expected, rtol=1e-9, atol=0)


def test_a_temperature_at_its_bound_finds_the_way_back():
    """Where the student's rows look for others than their own, a larger one is better."""
    objective = built("tas", {"initial_temperature": 1e-4}, student=TEACHER)
    objective.projector.weight.data = -torch.eye(TEACHER.embedding, dtype=torch.float64)
    said = maps(TEACHER, 5, 2)
    descent = torch.optim.SGD([objective.log_scale], lr=0.01)
    for _ in range(2):
        descent.zero_grad()
        objective(said, said, batch(5), 0.0)["contrast"].backward()
        descent.step()
    assert torch.exp(-objective.log_scale) > 0.0101


def test_a_small_temperature_tells_embeddings_that_point_alike_apart_in_half_precision_too():
    """Cosines are within 0.01 of each other, of which bfloat16 makes two or three: a row is off by 0.07."""
    objective = built("tas", {"initial_temperature": 0.01}, student=TEACHER).float()
    objective.projector.weight.data = torch.eye(TEACHER.embedding)
    said = maps(TEACHER, 5, 2, dtype=torch.float32)
    alike = Signals(said.logits, 1 + 0.05 * said.embedding)
    exact = objective.of_samples(alike, alike, batch(5), 0.0)["contrast"]
    with torch.autocast("cpu", torch.bfloat16):  # what is projected is rounded, too: 0.006
        found = objective.of_samples(alike, alike, batch(5), 0.0)["contrast"]
    torch.testing.assert_close(found, exact, rtol=0, atol=0.02)


def test_gradient_of_the_published_form():
    objective, student, teacher = built("tas"), maps(STUDENT, 4, 1), maps(TEACHER, 4, 2)

    def value(embedding: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        return total(objective(Signals(logits, embedding), teacher, batch(4), 0.0))

    leaves = [x.clone().requires_grad_() for x in (student.embedding, student.logits)]
    assert torch.autograd.gradcheck(value, leaves, fast_mode=True)


def test_a_set_of_version_0_1_that_names_an_option_means_what_it_meant_and_has_its_identity():
    """Version 0.1 wrote all three options into an identity, and had no form."""
    old = {"blocks": None, "grid": 1, "temperature": 0.1}
    for options in (SMOOTHED, {"grid": 1}, {"temperature": 0.1}, {"blocks": None}, old):
        entry = ObjectiveEntry.model_validate({"name": "tas", **options})
        assert entry.options == old
        assert set(built("tas", entry.options)(maps(STUDENT, 4, 1), maps(TEACHER, 4, 2), batch(4), 0.0)) == {"smoothed"}


def test_what_names_no_option_is_published_and_has_an_identity_that_version_0_1_had_not():
    entry = ObjectiveEntry.model_validate("tas")
    assert entry.options == {"form": "published", "initial_temperature": 0.07, "epsilon": 1.0}
    assert ObjectiveEntry.model_validate({"name": "tas", **entry.options}).options == entry.options
    for options, said in (
        ({"form": "published", "grid": 2}, "form 'published' does not read grid"),
        ({"grid": 2, "epsilon": 1.5}, "form 'smoothed' does not read epsilon"),
    ):
        with pytest.raises(ValueError, match=said):
            ObjectiveEntry.model_validate({"name": "tas", **options})


def test_refusals_of_the_published_form():
    with pytest.raises(ConfigError, match="student's embedding"):
        built("tas", student=SignalShapes(5, None, STUDENT.features))
    with pytest.raises(ConfigError, match="teacher's embedding"):
        built("tas", teacher=SignalShapes(5, None, TEACHER.features))
    with pytest.raises(ConfigError, match="same classes"):
        built("tas", teacher=SignalShapes(7, 8))
