from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from pipeline.errors import ConfigError
from pipeline.objectives import Batch, Context, Objective, build_objective
from pipeline.objectives.bank import draw_pool
from pipeline.objectives.methods.crd import Scores
from pipeline.signals import Signals, SignalShapes

N, B, P, D, CLASSES = 30, 4, 12, 6, 4
LABELS = torch.arange(N) % CLASSES
SAMPLES = torch.tensor([3, 11, 0, 29])


def unit(*shape: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=1)


def scores(features: torch.Tensor, negatives: int = 20, temperature: float = 0.2) -> tuple[Scores, torch.Tensor]:
    other = LABELS[torch.arange(P)] != LABELS[SAMPLES][:, None]
    return Scores(features, unit(B, D, seed=2), unit(P, D, seed=3), other, negatives, temperature), other


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_equals_the_equation_in_float64(temperature: float):
    features, own, pool, m = unit(B, D, seed=1), unit(B, D, seed=2), unit(P, D, seed=3), 20
    given, other = scores(features, m, temperature)
    positive = [math.exp(features[i] @ own[i] / temperature) for i in range(B)]
    negative = [[math.exp(features[i] @ pool[j] / temperature) for j in range(P) if other[i, j]] for i in range(B)]
    share = [m / len(row) for row in negative]  # what every negative stands for
    everything = sum(positive) + sum(w * sum(row) for w, row in zip(share, negative, strict=True))
    normaliser = N * everything / (B * (1 + m))
    assert given.log_normaliser(N).exp().item() == pytest.approx(normaliser, rel=1e-12)
    noise, total = m / N, 0.0
    for p, row, w in zip(positive, negative, share, strict=True):
        q = p / normaliser
        total -= math.log(q / (q + noise + 1e-7))
        total -= w * sum(math.log(noise / (q / normaliser + noise + 1e-7)) for q in row)
    level = torch.tensor(math.log(normaliser), dtype=torch.float64)
    assert given.losses(level, N).mean().item() == pytest.approx(total / B, rel=1e-12)


def test_one_sample_by_hand():
    # It agrees with itself and not with its one negative; N = m = 1, τ = 1, Z = (e + 1) / 2.
    x, y = torch.tensor([[1.0, 0.0]]).double(), torch.tensor([[0.0, 1.0]]).double()
    given = Scores(x, x, y, torch.tensor([[True]]), 1, 1.0)
    p, q = 2 * math.e / (math.e + 1), 2 / (math.e + 1)
    expected = -math.log(p / (p + 1)) - math.log(1 / (q + 1))
    assert given.losses(given.log_normaliser(1), 1).mean().item() == pytest.approx(expected, rel=1e-6)


def test_it_vanishes_where_positives_and_negatives_are_told_apart():
    # Positives e^50 above Z, negatives as far below it: the loss is that of the ε in the denominator; and 50 m swapped.
    x, pool, other = unit(1, D, seed=1).expand(B, D), unit(1, D, seed=1).expand(P, D), torch.ones(B, P).bool()
    apart, swapped = Scores(x, x, -pool, other, P, 0.01), Scores(x, -x, pool, other, P, 0.01)
    level = torch.tensor(50.0).double()
    assert apart.losses(level, N).mean().item() == pytest.approx(P * 1e-7 * N / P, rel=1e-3)
    assert swapped.losses(level, N).mean() > 49 * P


def test_gradient():
    other = LABELS[torch.arange(P)] != LABELS[SAMPLES][:, None]

    def loss(x: torch.Tensor) -> torch.Tensor:
        given = Scores(F.normalize(x, dim=1), unit(B, D, seed=2), unit(P, D, seed=3), other, 20, 0.3)
        return given.losses(torch.tensor(3.0).double(), N).mean()

    assert torch.autograd.gradcheck(loss, (unit(B, D, seed=1).requires_grad_(),))


def test_pools_are_different_samples_and_leave_enough_of_other_classes():
    labels = torch.tensor([0] * 500 + [1] * 250 + [2] * 250)
    found = [draw_pool(labels, 100, seed=1, step=step) for step in range(200)]
    assert all(len(pool.unique()) == len(pool) == 200 for pool in found)
    assert sum(int((labels[pool] != 0).sum()) for pool in found) / 200 == pytest.approx(100, abs=2)
    assert torch.equal(found[3], draw_pool(labels, 100, seed=1, step=3))
    assert not torch.equal(found[3], found[4])
    assert draw_pool(labels, 10**6, seed=1, step=0).sort().values.tolist() == list(range(1000))


EMBEDDINGS = {"student": unit(N, 5, seed=7).float(), "teacher": unit(N, 9, seed=8).float()}
SHAPES = {who: SignalShapes(CLASSES, values.shape[1]) for who, values in EMBEDDINGS.items()}


def bank(signal: str, samples: torch.Tensor, view: int) -> torch.Tensor:
    assert (signal, view) == ("embedding", 2)
    return EMBEDDINGS["teacher"][samples]


def build(**options: object) -> Objective:
    torch.manual_seed(0)
    context = Context(N, CLASSES, LABELS, bank=None if options.get("bank") == "momentum" else bank)
    return build_objective("crd", {"negatives": 8, **options}, SHAPES["student"], SHAPES["teacher"], context)


def step(objective: Objective, number: int = 0) -> dict[str, torch.Tensor]:
    said = (Signals(torch.zeros(B, CLASSES), values[SAMPLES]) for values in EMBEDDINGS.values())
    return objective(*said, Batch(LABELS[SAMPLES], SAMPLES, torch.full_like(SAMPLES, 2), number), 0.5)


def test_the_cache_is_the_teachers_bank():
    objective = build()
    terms = step(objective)
    pool = draw_pool(LABELS, 8, seed=0, step=0)
    with torch.no_grad():
        s = F.normalize(objective.student(EMBEDDINGS["student"][SAMPLES]), dim=1)
        own = F.normalize(objective.teacher(EMBEDDINGS["teacher"][SAMPLES]), dim=1)
        rows = F.normalize(objective.teacher(EMBEDDINGS["teacher"][pool]), dim=1)
    expected = Scores(s, own, rows, LABELS[pool] != LABELS[SAMPLES][:, None], 8, 0.07)
    torch.testing.assert_close(terms["student"], expected.losses(expected.log_normaliser(N), N).mean())


def test_what_is_read_ahead_is_what_is_read_at_the_time(monkeypatch: pytest.MonkeyPatch):
    """A device has the next pool read while it computes."""
    here = build()
    there = build()
    there.load_state_dict(here.state_dict())
    take = there._ahead.take
    monkeypatch.setattr(there._ahead, "take", lambda number, view, ahead: take(number, view, ahead=not ahead))
    for number in range(3):
        with torch.no_grad():
            one, other = step(here, number), step(there, number)
        assert all(torch.equal(one[name], other[name]) for name in ("student", "teacher"))


def test_momentum_banks_read_no_cache():
    objective = build(bank="momentum", momentum=0.0)
    before = objective.teacher_bank.rows.clone()
    step(objective)
    now = F.normalize(objective.teacher(EMBEDDINGS["teacher"][SAMPLES]), dim=1)
    torch.testing.assert_close(objective.teacher_bank.rows[SAMPLES], now)
    assert int((objective.teacher_bank.rows != before).any(1).sum()) == B


def test_the_first_batch_fixes_the_normalisers():
    objective = build()
    step(objective)
    first = objective.log_normalisers.clone()
    step(objective, 1)
    assert torch.equal(objective.log_normalisers, first)
    other = build()
    other.load_state_dict(objective.state_dict())
    for one, two in zip(step(objective, 2).values(), step(other, 2).values(), strict=True):
        assert torch.equal(one, two)


def test_no_negative_is_of_the_samples_class():
    # All samples of one class say the same: if they were negatives, the loss could not tell them from the positive.
    objective = build(negatives=20)
    with torch.no_grad():
        objective.student_bank.rows.copy_(F.one_hot(LABELS, 128).float())
    t = F.normalize(objective.teacher(EMBEDDINGS["teacher"][SAMPLES]), dim=1).detach()
    loss = step(objective)["teacher"]
    pool = draw_pool(LABELS, 20, seed=0, step=0)
    kept = [[float(t[i, LABELS[j]]) / 0.07 for j in pool if LABELS[j] != LABELS[SAMPLES[i]]] for i in range(B)]
    q = [[math.exp(x - float(objective.log_normalisers[1])) for x in row] for row in kept]
    own = [math.exp(float(t[i, LABELS[SAMPLES[i]]]) / 0.07 - float(objective.log_normalisers[1])) for i in range(B)]
    c = 20 / N
    expected = sum(
        -math.log(p / (p + c)) + 20 / len(row) * sum(math.log1p(x / c) for x in row)
        for p, row in zip(own, q, strict=True)
    )
    assert loss.item() == pytest.approx(expected / B, rel=1e-4)


def test_refusals():
    def refused(match: str, student: SignalShapes, labels: object):
        with pytest.raises(ConfigError, match=match):
            build_objective("crd", {}, student, SHAPES["teacher"], Context(N, CLASSES, labels))

    refused("student's embedding", SignalShapes(CLASSES), LABELS)
    refused("all samples have one label", SHAPES["student"], torch.zeros(N, dtype=torch.long))
    some = torch.where(torch.arange(N) < 9, LABELS, -1)
    with pytest.raises(ConfigError, match="cannot say what a view is that mixup makes"):
        build_objective("crd", {}, SHAPES["student"], SHAPES["teacher"], Context(N, CLASSES, some, mixing="mixup"))


@pytest.mark.parametrize("labeled", [None, 0, 9])
def test_samples_without_labels_are_told_from_all_others(labeled: int | None):
    labels = None if labeled is None else torch.where(torch.arange(N) < labeled, LABELS, -1)
    torch.manual_seed(0)
    context = Context(N, CLASSES, labels, bank=bank)
    objective = build_objective("crd", {"negatives": 100}, SHAPES["student"], SHAPES["teacher"], context)
    assert not objective.needs.labels
    said = [Signals(torch.zeros(B, CLASSES), values[SAMPLES]) for values in EMBEDDINGS.values()]
    given = torch.full_like(SAMPLES, -1) if labels is None else labels[SAMPLES]
    terms = objective(*said, Batch(given, SAMPLES, torch.full_like(SAMPLES, 2)), 0.5)
    with torch.no_grad():
        s = F.normalize(objective.student(EMBEDDINGS["student"][SAMPLES]), dim=1)
        rows = F.normalize(objective.teacher(EMBEDDINGS["teacher"]), dim=1)
    other = torch.tensor(
        [
            [i != j and not (max(i, j) < (labeled or 0) and i % CLASSES == j % CLASSES) for j in range(N)]
            for i in SAMPLES
        ]
    )
    expected = Scores(s, rows[SAMPLES], rows, other, 100, 0.07)  # the pool is everybody
    torch.testing.assert_close(terms["student"], expected.losses(expected.log_normaliser(N), N).mean())
