from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from objectives.layers import STUDENT, TEACHER, Array, array, batch, built, maps, total

from pipeline.errors import ConfigError
from pipeline.objectives import Context, Objective
from pipeline.objectives.methods.angular import Options, _Heads, angular_losses, ensemble_divergence
from pipeline.signals import Signals, SignalShapes

N, SAMPLES, D, K = 3, 40, 8, 5
RATES = {"heads": N, "epochs": 1}


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def bank(signal: str, samples: torch.Tensor, view: int) -> torch.Tensor:
    """Embeddings about the means of their classes, and logits that know the class of most."""
    means = random(K, D, seed=5).float()
    embedding = means[torch.arange(SAMPLES) % K] + 0.3 * random(SAMPLES, D, seed=6 + view).float()
    return (embedding if signal == "embedding" else embedding @ means.T)[samples]


CONTEXT = Context(SAMPLES, K, torch.arange(SAMPLES) % K, seed=3, bank=bank)


def objective(**options: object) -> Objective:
    return built("angular", {**RATES, **options}, context=CONTEXT)


def softmax(z: Array) -> Array:
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_two_classes_by_hand():
    """The teacher is sure of the first, one head of the second: with ω = 1 they say 1/2, and the student 1/5."""
    sure = torch.tensor([[200.0, 0.0]], dtype=torch.float64)
    student = torch.tensor([[math.log(1), math.log(4)]], dtype=torch.float64)
    value = ensemble_divergence(student, sure, sure.flip(1)[None], 1.0, 1.0)
    assert value.tolist() == pytest.approx([0.5 * math.log(0.5 / 0.2) + 0.5 * math.log(0.5 / 0.8)])


def test_equals_the_equation_in_float64():
    made, s, t = objective(temperature=3.0, head_weight=0.6), maps(STUDENT, 4, 1), maps(TEACHER, 4, 2)
    found, expected = made(s, t, batch(4), 0.0)["ensemble"].item(), 0.0
    for b in range(4):
        said = [array(made.weights[i]) @ array(t.embedding)[b] + array(made.biases[i]) for i in range(N)]
        p = softmax(array(t.logits)[b] / 3) + 0.6 * sum(softmax(z / 3) for z in said)
        p, q = p / p.sum(), softmax(array(s.logits)[b] / 3)
        expected += 9 * (p * np.log(p / q)).sum() / 4
    assert found == pytest.approx(expected, rel=1e-10)


def test_heads_that_say_what_the_teacher_says_leave_kd():
    made, s, t = objective(), maps(STUDENT, 4, 1), maps(TEACHER, 4, 2)
    made(s, t, batch(4), 0.0)
    made.weights.copy_(t.head.weight)
    made.biases.copy_(t.head.bias)
    kd = total(built("kd", {"temperature": 4.0})(s, t, batch(4), 0.0))
    torch.testing.assert_close(made(s, t, batch(4), 0.0)["ensemble"], kd)
    torch.testing.assert_close(objective(head_weight=0.0)(s, t, batch(4), 0.0)["ensemble"], kd)


def test_what_heads_learn_equals_the_equations_in_float64():
    """Spaces of features, by cosines, and of probabilities, by inner products; one sample has all heads near."""
    f, q = random(4, D, seed=1), random(4, K, seed=2).softmax(1)
    x, p = f + 0.5 * random(N, 4, D, seed=3), (5 * random(N, 4, K, seed=4)).softmax(2)
    x[:, 1] = f[1] + 0.05 * x[:, 1]
    unit = torch.nn.functional.normalize
    inter, intra = angular_losses((x, p), (f, q), (unit(x, dim=2), unit(f, dim=1), p, q))
    softplus, seen = (lambda value: math.log1p(math.exp(value))), set()
    for number, (v, t, a, c) in enumerate(((x, f, unit(x, dim=2), unit(f, dim=1)), (p, q, p, q))):
        contrast, alike, apart = 0.0, 0.0, 0.0
        for i, b in np.ndindex(N, 4):
            scores = [float(a[i, b] @ c[j]) for j in range(4)]
            scores[b] = 1.0 if scores[b] >= 0.8 else scores[b]
            contrast += (math.log(sum(math.exp(score / 0.07) for score in scores)) - scores[b] / 0.07) / (N * 4) / N
        near = [min(float(a[i, b] @ c[b]) for i in range(N)) > 0.8 for b in range(4)]
        seen |= set(near) if number == 0 else set()
        for i, j in ((i, j) for i in range(N) for j in range(N) if i != j):
            alike += sum(softplus(float(a[i, b] @ a[j, b])) for b in range(4) if near[b]) / (N * (N - 1) * 4)
            cosines = [float(unit(t[b] - v[i, b], dim=0) @ unit(t[b] - v[j, b], dim=0)) for b in range(4)]
            apart += softplus(np.mean(cosines)) / (N * (N - 1))
        assert inter[number].item() == pytest.approx(contrast + alike, rel=1e-9)
        assert intra[number].item() == pytest.approx(apart, rel=1e-9)
    assert seen == {True, False}


def test_heads_learn_the_sum_of_all_with_the_weights_of_the_code():
    options = Options(heads=N, temperature=3.0, head_weight=0.6, dropout=(0, 0))
    heads, labels = _Heads(options, D, K, 0, torch.device("cpu")), torch.arange(6) % K
    heads.learned = [each.detach().double() for each in heads.learned]
    heads.turns, heads.scales, heads.shifts, heads.weights, heads.biases = heads.learned
    heads.scales, heads.shifts = random(N, 1, D, seed=1), random(N, 1, D, seed=2)
    f, z, told = random(6, D, seed=3), random(6, K, seed=4), 0.0
    views, said = [], []
    for i in range(N):
        turned = array(f) @ array(heads.turns[i]).T
        normal = (turned - turned.mean(0)) / np.sqrt(turned.var(0) + 1e-5)
        views.append(normal * array(heads.scales[i]) + array(heads.shifts[i]))
        said.append(views[i] @ array(heads.weights[i]).T + array(heads.biases[i]))
        told -= np.log(softmax(said[i])[np.arange(6), labels]).mean()
    x, p, q = (torch.from_numpy(np.array(each)) for each in (views, softmax(np.array(said) / 3), softmax(array(z) / 3)))
    unit = torch.nn.functional.normalize
    inter, intra = angular_losses((x, p), (f, q), (unit(x, dim=2), unit(f, dim=1), p, q))
    expected = 0.6 * told + 0.1 * inter[0] + inter[1] + intra[0] + intra[1]
    torch.testing.assert_close(heads.loss(f, z, labels), expected)


def test_heads_are_trained_once_from_the_cache_and_know_the_classes():
    made, other = objective(epochs=40), objective(epochs=40)
    s, t = maps(STUDENT, 4, 1), maps(TEACHER, 4, 2)
    state = torch.random.get_rng_state()
    made(s, t, batch(4), 0.0)
    assert torch.equal(torch.random.get_rng_state(), state)  # nobody else draws other numbers for it
    embedding = bank("embedding", torch.arange(SAMPLES), 0).double()
    said = embedding @ made.weights.transpose(1, 2) + made.biases[:, None]
    assert (said.argmax(2) == CONTEXT.labels).double().mean(1).min() > 0.6  # of five classes
    assert said.softmax(2).std(0).max() > 0.01  # and are not all of one opinion
    kept = copy.deepcopy(made.state_dict())
    made(s, t, batch(4, step=7), 0.5)
    assert all(torch.equal(kept[name], value) for name, value in made.state_dict().items())
    other(s, t, batch(4), 0.0)
    assert torch.equal(other.weights, made.weights)


def test_heads_are_trained_on_the_view_of_the_first_step():
    views: list[int] = []

    def seen(signal: str, samples: torch.Tensor, view: int) -> torch.Tensor:
        views.append(view)
        return bank(signal, samples, view)

    made = built("angular", RATES, context=replace(CONTEXT, bank=seen))
    first = batch(4)
    made.prepare(replace(first, view=torch.tensor([3, 2, 3, 2])), 0.0)
    made.prepare(first, 0.1)
    assert views == [2, 2]  # embeddings and logits


def test_a_resumed_run_has_the_heads_that_it_had():
    s, t = maps(STUDENT, 4, 1), maps(TEACHER, 4, 2)
    made = objective()
    value = made(s, t, batch(4), 0.0)["ensemble"]

    def unread(*_: object) -> torch.Tensor:
        raise AssertionError("the cache is read again")

    resumed = built("angular", RATES, context=replace(CONTEXT, bank=unread))
    resumed.load_state_dict(made.state_dict())
    assert torch.equal(resumed(s, t, batch(4), 0.0)["ensemble"], value)


def test_what_is_kept_is_the_head_without_dropout():
    """One matrix says what turning, normalising by the statistics of all rows, and classifying say."""
    heads = _Heads(Options(heads=2, epochs=3), D, K, 0, torch.device("cpu"))
    rows = torch.arange(SAMPLES)
    embedding, logits = bank("embedding", rows, 0), bank("logits", rows, 0)
    heads.learn(embedding, logits, CONTEXT.labels)
    weights, biases = heads.as_linear(embedding)
    for i in range(2):
        turned = array(embedding) @ array(heads.turns[i]).T
        normal = (turned - turned.mean(0)) / np.sqrt(turned.var(0) + 1e-5)
        normal = normal * array(heads.scales[i]) + array(heads.shifts[i])
        expected = normal @ array(heads.weights[i]).T + array(heads.biases[i])
        np.testing.assert_allclose(array(embedding) @ array(weights[i]).T + array(biases[i]), expected, atol=1e-4)


def test_heads_begin_by_turning():
    turns = _Heads(Options(), D, K, 0, torch.device("cpu")).turns
    torch.testing.assert_close(turns @ turns.transpose(1, 2), torch.eye(D).expand(5, D, D), atol=1e-5, rtol=0)


def test_gradient():
    made, t = objective(), maps(TEACHER, 3, 2)

    def value(logits: torch.Tensor) -> torch.Tensor:
        return made(Signals(logits), t, batch(3), 0.0)["ensemble"]

    assert torch.autograd.gradcheck(value, (maps(STUDENT, 3, 1).logits.clone().requires_grad_(),), fast_mode=True)


def test_refusals():
    with pytest.raises(ConfigError, match="same classes"):
        built("angular", teacher=SignalShapes(7, 8))
    with pytest.raises(ConfigError, match="teacher's embedding"):
        built("angular", teacher=SignalShapes(5, None))
    with pytest.raises(ConfigError, match="heads"):
        built("angular", {"heads": 1})
    with pytest.raises(ConfigError, match="needs a label for every sample"):
        built("angular", context=replace(CONTEXT, labels=None))
