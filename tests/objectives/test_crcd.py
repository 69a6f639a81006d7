from __future__ import annotations

import json
import math
from pathlib import Path

import crcd_peak
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from processes import output_of
from shared import shared_file

from pipeline.errors import ConfigError
from pipeline.objectives import Batch, Context, Objective, build_objective
from pipeline.objectives import relations as relations
from pipeline.objectives.bank import MomentumBank, draw_negatives, draw_some
from pipeline.objectives.methods.crcd import ADAPTIVE_HINT, gradients, has_enough, relation_loss
from pipeline.signals import LinearHead, Signals, SignalShapes

N, B, M, D, CLASSES = 30, 5, 7, 6, 4


def unit(*shape: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=1)


SAMPLES = torch.tensor([3, 11, 0, 29, 17])
CANDIDATES = torch.cat((SAMPLES[:, None], torch.arange(B * M).reshape(B, M) % N), dim=1)


# Of ten samples, among which are two anchors, every row leaves out three: rows share them and do not see all.
POOL = torch.tensor([3, 5, 7, 8, 10, 12, 17, 20, 21, 28])
FEW = torch.stack([torch.cat((SAMPLES[i : i + 1], POOL[torch.arange(M) + i - 3 * (i > 3)])) for i in range(B)])
REPEATED = torch.cat((SAMPLES[:, None], POOL[torch.arange(B * M).reshape(B, M) % 4]), dim=1)


def oracle(
    features: torch.Tensor, bank: torch.Tensor, temperature: float, masked: bool, drawn: torch.Tensor = CANDIDATES
) -> float:
    """The equation, one pair of sample and anchor and one candidate at a time."""
    h, m, samples, population = features.numpy(), bank.numpy(), drawn[:, 0], len(bank)
    rows, negatives = len(samples), drawn.shape[1] - 1

    def direction(x: np.ndarray) -> np.ndarray:
        return (x + 1e-6) / np.linalg.norm(x + 1e-6)

    scores: dict[tuple[int, int, int], float] = {}
    for i in range(rows):
        for a in range(rows):
            for k in range(negatives + 1):
                anchor, candidate = samples[a], drawn[i, k]
                if masked and (i == a or candidate == anchor):
                    continue
                one, other = direction(h[i] - m[anchor]), direction(m[candidate] - m[anchor])
                scores[i, a, k] = one @ other / temperature
    normaliser = population * np.mean(np.exp(list(scores.values())))
    noise, total = negatives / population, 0.0
    for (_, _, k), score in scores.items():
        q = math.exp(score) / normaliser
        total -= math.log((q if k == 0 else noise) / (q + noise + 1e-7))
    return total / (rows * (rows - 1) if masked else rows**2)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("temperature", [0.05, 0.5])
@pytest.mark.parametrize("drawn", [CANDIDATES, FEW, REPEATED], ids=["each its own", "shared", "repeated"])
def test_equals_the_equation_in_float64(masked: bool, temperature: float, drawn: torch.Tensor):
    features, bank = unit(B, D, seed=1), unit(N, D, seed=2)
    got = relation_loss(features, bank, SAMPLES, drawn, temperature, masked)
    assert got.item() == pytest.approx(oracle(features, bank, temperature, masked, drawn), rel=1e-9)


def test_two_samples_on_a_line_by_hand():
    # Samples at 0° and 180°, the negative of each at 90°: from anchor (-1, 0), the own place (1, 0) lies in direction
    # (1, 0) and the negative (0, 1) at 45° to it. A student that agrees with the bank has cosines 1 and √½.
    bank = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    samples, candidates = torch.tensor([0, 1]), torch.tensor([[0, 2], [1, 2]])
    good, bad = math.exp(1.0), math.exp(math.sqrt(0.5))
    normaliser, noise = 3 * (good + bad) / 2, 1 / 3
    expected = -math.log(good / (good + noise * normaliser)) - math.log(noise / (bad / normaliser + noise))
    got = relation_loss(bank[:2], bank, samples, candidates, 1.0)
    assert got.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("who", ["student", "teacher"])
def test_golden_values_of_the_reference(who: str):
    wanted = json.loads(shared_file("golden/crcd.json").read_text())
    arrays = {name: torch.tensor(x) for name, x in np.load(shared_file("golden/crcd.npz")).items()}
    bank = arrays["teacher_bank" if who == "student" else "student_bank"]
    features = arrays[who].requires_grad_()
    indices = arrays["sample_index"], arrays["candidate_index"]
    loss = relation_loss(features, bank, *indices, wanted["temperature"], mask_degenerate=False)
    assert loss.item() == pytest.approx(wanted[f"{who}_loss"], rel=1e-9)
    (gradient,) = torch.autograd.grad(loss, features)
    np.testing.assert_allclose(gradient, arrays[f"grad_{who}"], rtol=1e-9, atol=1e-9)
    given = wanted[f"normaliser_{who}"]
    same = relation_loss(features, bank, *indices, wanted["temperature"], mask_degenerate=False, normaliser=given)
    assert same.item() == pytest.approx(wanted[f"{who}_loss"], rel=1e-9)


@pytest.mark.parametrize("who", ["student", "teacher"])
def test_golden_banks_of_the_reference(who: str):
    wanted = json.loads(shared_file("golden/crcd.json").read_text())
    arrays = {name: torch.tensor(x) for name, x in np.load(shared_file("golden/crcd.npz")).items()}
    bank = MomentumBank(len(arrays[f"{who}_bank"]), arrays[who].shape[1], wanted["momentum"]).double()
    bank.rows.copy_(arrays[f"{who}_bank"])
    bank.update(arrays["sample_index"], arrays[who])
    np.testing.assert_allclose(bank.rows, arrays[f"{who}_bank_after"], rtol=1e-9, atol=1e-12)


def test_of_several_views_of_a_sample_the_last_one_is_remembered():
    torch.manual_seed(0)
    bank = MomentumBank(5, 3, 0.25)
    before, values = bank.rows.clone(), unit(6, 3, seed=1).float()
    bank.update(torch.tensor([4, 4, 0, 0, 2, 4]), values)
    for sample, last in ((4, 5), (0, 3), (2, 4)):
        torch.testing.assert_close(bank.rows[sample], F.normalize(0.25 * before[sample] + 0.75 * values[last], dim=0))
    assert torch.equal(bank.rows[[1, 3]], before[[1, 3]])


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("drawn", [CANDIDATES, FEW], ids=["each its own", "shared"])
def test_chunks_change_nothing(masked: bool, drawn: torch.Tensor, monkeypatch: pytest.MonkeyPatch):
    bank = unit(N, D, seed=2)
    found = []
    for chunk in (10**9, 2 * B * (M + 1), 1):
        monkeypatch.setitem(relations.CHUNK_ELEMENTS, "cpu", chunk)
        features = unit(B, D, seed=1).requires_grad_()
        loss = relation_loss(features, bank, SAMPLES, drawn, 0.1, masked)
        found.append((loss.detach(), torch.autograd.grad(loss, features)[0]))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-12, atol=1e-14)


def test_autocast_changes_nothing_in_the_core():
    bank, found = unit(N, D, seed=2).float(), []
    for enabled in (False, True):
        features = unit(B, D, seed=1).float().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = relation_loss(features, bank, SAMPLES, CANDIDATES, 0.05)
        found.append((loss, *torch.autograd.grad(loss, features)))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("drawn", [CANDIDATES, FEW, REPEATED], ids=["each its own", "shared", "repeated"])
def test_gradient(masked: bool, drawn: torch.Tensor):
    bank = unit(N, D, seed=2)
    given = torch.tensor(1e3, dtype=torch.float64)

    def loss(x: torch.Tensor) -> torch.Tensor:
        return relation_loss(F.normalize(x, dim=1), bank, SAMPLES, drawn, 0.3, masked, normaliser=given)

    assert torch.autograd.gradcheck(loss, (unit(B, D, seed=1).requires_grad_(),))


def test_gradients_of_the_cross_entropy_are_autograds():
    generator = torch.Generator().manual_seed(0)
    embedding = torch.randn(B, D, generator=generator, dtype=torch.float64).requires_grad_()
    weight, bias = torch.randn(CLASSES, D + 1, generator=generator, dtype=torch.float64).split((D, 1), dim=1)
    labels = torch.tensor([0, 1, 2, 3, 0])
    logits = embedding @ weight.T + bias[:, 0]
    (expected,) = torch.autograd.grad(F.cross_entropy(logits, labels, reduction="sum"), embedding)
    torch.testing.assert_close(gradients(logits.detach(), labels, weight), expected, rtol=1e-12, atol=1e-14)


LABELS = torch.arange(N) % CLASSES


def test_negatives_are_of_other_classes_and_different():
    labels = LABELS[SAMPLES]
    drawn = draw_negatives(LABELS, labels, 15, seed=1, step=4)
    negatives = drawn.pool[drawn.columns]
    for row, label in zip(negatives, labels, strict=True):
        assert len(row.unique()) == 15
        assert (LABELS[row] != label).all()
    again, other = (draw_negatives(LABELS, labels, 15, seed=1, step=step) for step in (4, 5))
    assert torch.equal(again.pool, drawn.pool)
    assert not torch.equal(other.pool, drawn.pool)


def test_whether_a_pool_has_enough_for_every_row_is_known_without_its_columns():
    """Rows of negatives are ascending where it does, and come again from the first where it does not."""
    found = set()
    for step in range(40):
        labels = LABELS[draw_some(torch.arange(N), 4, 1, step)]
        drawn = draw_negatives(LABELS, labels, 15, seed=1, step=step, size=20)
        enough = has_enough(LABELS, labels, drawn.pool, 15)
        assert enough == bool((drawn.columns.diff(dim=1) > 0).all())
        found.add(enough)
    assert found == {True, False}


def test_negatives_are_drawn_evenly():
    # 22 or 23 samples are of other classes: in 2,000 draws of 5 each comes about 2000 · 5 / 22.5 = 444 times.
    counts = torch.zeros(N)
    for step in range(2000):
        drawn = draw_negatives(LABELS, LABELS[:1], 5, seed=0, step=step)
        counts[drawn.pool[drawn.columns][0]] += 1
    others = counts[LABELS[0] != LABELS]
    assert counts[LABELS[0] == LABELS].sum() == 0
    assert (others - 2000 * 5 / len(others)).abs().max() < 5 * math.sqrt(444)


def test_negatives_repeat_where_there_are_too_few():
    drawn = draw_negatives(torch.tensor([0, 0, 0, 1, 1]), torch.tensor([0, 1]), 4, seed=0, step=0)
    assert sorted(drawn.pool[drawn.columns[0]].tolist()) == [3, 3, 4, 4]
    assert set(drawn.pool[drawn.columns[1]].tolist()) == {0, 1, 2}


def network(seed: int, width: int) -> Signals:
    generator = torch.Generator().manual_seed(seed)
    embedding = torch.randn(N, width, generator=generator)
    head = LinearHead(torch.randn(CLASSES, width, generator=generator), torch.zeros(CLASSES))
    return Signals(head(embedding), embedding, head=head)


TEACHER, STUDENT = network(1, 9), network(2, 6)


def bank(signal: str, samples: torch.Tensor, view: int) -> torch.Tensor:
    assert view == 2
    found = TEACHER.logits if signal == "logits" else TEACHER.embedding
    assert found is not None
    return found[samples]


def build(**options: object) -> Objective:
    torch.manual_seed(0)
    context = Context(N, CLASSES, LABELS, bank=bank)
    student, teacher = (SignalShapes(CLASSES, s.embedding.shape[1], linear=False) for s in (STUDENT, TEACHER))
    return build_objective("crcd", {"negatives": 8, **options}, student, teacher, context)


def test_a_bank_that_moves_at_once_is_noted_where_gradients_are_compared() -> None:
    """It may diverge; a bank with momentum, or embeddings alone, need no note."""
    assert build().notes == (ADAPTIVE_HINT,)
    assert "`bank: momentum`" in ADAPTIVE_HINT
    assert build(bank="momentum").notes == ()
    assert build(gradient_weight=0.0).notes == ()


def step(objective: Objective, number: int = 0) -> dict[str, torch.Tensor]:
    def rows(signals: Signals) -> Signals:
        assert signals.embedding is not None
        return Signals(signals.logits[SAMPLES], signals.embedding[SAMPLES], head=signals.head)

    batch = Batch(LABELS[SAMPLES], SAMPLES, torch.full_like(SAMPLES, 2), number)
    return objective(rows(STUDENT), rows(TEACHER), batch, 0.5)


def test_the_cache_is_the_teachers_bank():
    # By hand: the cache's embeddings through the objective's own layer, as a full bank of every sample.
    objective = build(gradient_weight=0.0)
    got = step(objective)["feature"]
    fresh = build(gradient_weight=0.0)
    element = fresh.feature
    embedded = [
        F.normalize(layer(signals.embedding), dim=1).detach()
        for layer, signals in ((element.student, STUDENT), (element.teacher, TEACHER))
    ]
    drawn = draw_negatives(LABELS, LABELS[SAMPLES], 8, 0, 0)
    candidates = torch.cat((SAMPLES[:, None], drawn.pool[drawn.columns]), dim=1)
    own, other = (
        relation_loss(features[SAMPLES], rows, SAMPLES, candidates, 0.05)
        for features, rows in ((embedded[0], embedded[1]), (embedded[1], element.student_bank.rows))
    )
    torch.testing.assert_close(got, own + other)
    torch.testing.assert_close(
        objective.feature.student_bank.rows[SAMPLES],
        F.normalize(0.5 * element.student_bank.rows[SAMPLES] + 0.5 * embedded[0][SAMPLES], dim=1),
    )


def test_the_first_batch_fixes_the_normalisers():
    objective = build()
    step(objective)
    first = objective.feature.normalisers.clone()
    step(objective, 1)
    assert torch.equal(objective.feature.normalisers, first)
    other = build()
    other.load_state_dict(objective.state_dict())
    for one, two in zip(step(objective, 2).values(), step(other, 2).values(), strict=True):
        assert torch.equal(one, two)


def test_momentum_banks_read_no_cache():
    context = Context(N, CLASSES, LABELS)
    shapes = SignalShapes(CLASSES, 9, linear=False)
    objective = build_objective("crcd", {"bank": "momentum", "negatives": 4}, shapes, shapes, context)
    batch = Batch(LABELS[SAMPLES], SAMPLES, torch.zeros_like(SAMPLES))
    signals = Signals(TEACHER.logits[SAMPLES], TEACHER.embedding[SAMPLES], head=TEACHER.head)
    assert set(objective(signals, signals, batch, 0.0)) == {"feature", "gradient"}
    assert objective.feature.teacher_bank is not None


def test_refusals():
    good = SignalShapes(CLASSES, 9, linear=False)

    def refused(match: str, student: SignalShapes = good, teacher: SignalShapes = good, labels: object = LABELS):
        with pytest.raises(ConfigError, match=match):
            build_objective("crcd", {}, student, teacher, Context(N, CLASSES, labels))

    refused("student's embedding", student=SignalShapes(CLASSES))
    refused("teacher's embedding, which the cache does not hold", teacher=SignalShapes(CLASSES, linear=True))
    refused("gradient_weight: 0", student=SignalShapes(CLASSES, 9))
    refused("'head'", teacher=SignalShapes(CLASSES, 9))
    refused("all samples have one label", labels=torch.zeros(N, dtype=torch.long))
    refused("label for every sample", labels=torch.tensor([0, 1, -1]))


def test_anchors_are_drawn_from_the_batch_in_whatever_order():
    few, all_of_them = build(anchors=2, gradient_weight=0.0), build(gradient_weight=0.0)
    assert step(few)["feature"] != step(all_of_them)["feature"]
    enough = build(anchors=B, gradient_weight=0.0)
    assert torch.equal(step(enough)["feature"], step(build(gradient_weight=0.0))["feature"])
    samples = torch.tensor([7, 3, 3, 21, 14, 7])
    drawn = {tuple(draw_some(samples, 3, 0, number).tolist()) for number in range(60)}
    assert len(drawn) == 4  # of 4 different samples there are 4 sets of 3
    assert all(list(each) == sorted(set(each)) for each in drawn)
    assert {sample for each in drawn for sample in each} == {3, 7, 14, 21}
    for order in ([5, 4, 3, 2, 1, 0], [2, 0, 1, 5, 3, 4]):
        assert torch.equal(draw_some(samples[order], 3, 0, 1), draw_some(samples, 3, 0, 1))
    assert draw_some(samples, 9, 0, 1).tolist() == [3, 7, 14, 21]


@pytest.mark.parametrize("apart", [1e-2, 1e-4, 1e-6, 0.0])
def test_rows_that_all_but_coincide_stay_exact_in_float32(apart: float):
    """As a sure teacher's gradients do: scores are at most 1/τ, whatever rounding leaves of a distance."""
    bank = F.normalize(unit(1, D, seed=3) + apart * unit(N, D, seed=2), dim=1)
    features = F.normalize(bank[SAMPLES] + 0.1 * unit(B, D, seed=1), dim=1)
    exact = relation_loss(features, bank, SAMPLES, CANDIDATES, 0.05)
    rounded = features.float().requires_grad_()
    loss = relation_loss(rounded, bank.float(), SAMPLES, CANDIDATES, 0.05)
    (gradient,) = torch.autograd.grad(loss, rounded)
    assert gradient.isfinite().all()
    # Rows that differ by less than float32 resolves have other directions there, but the loss keeps its size.
    assert loss.item() == pytest.approx(exact.item(), rel=1e-3 if apart > 1e-5 else 0.5)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("drawn", [CANDIDATES, FEW], ids=["each its own", "shared"])
@pytest.mark.parametrize(("groups", "within"), [(1, 1e-3), (2, 1e-2), (2, 1e-3), (2, 1e-4), (6, 1e-3)])
def test_float32_is_exact_where_rows_lie_in_tight_groups(masked: bool, drawn: torch.Tensor, groups: int, within: float):
    """Every fifth row is apart from the groups: as those are of which a teacher is not sure."""
    tight = unit(groups, D, seed=3)[torch.arange(N) % groups] + within * unit(N, D, seed=2)
    bank = F.normalize(torch.where((torch.arange(N) % 5 == 4)[:, None], unit(N, D, seed=4), tight), dim=1).float()
    features, found = F.normalize(bank[SAMPLES] + within * unit(B, D, seed=1), dim=1).float(), []
    for dtype in (torch.float64, torch.float32):
        leaf = features.to(dtype).requires_grad_()
        loss = relation_loss(leaf, bank.to(dtype), SAMPLES, drawn, 0.05, masked)
        found.append((loss.item(), torch.autograd.grad(loss, leaf)[0].double()))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-4)
    assert (found[1][1] - found[0][1]).norm() < 5e-3 * found[0][1].norm()


OPPOSITE = F.normalize(torch.tensor([[1.0, 0.0], [0.995, 0.1], [0.98, -0.2], [0.955, 0.3]]), dim=1).double()
"""The last two lie, seen from the first two, beyond the other one."""


@pytest.mark.parametrize("temperature", [0.05, 0.02])
def test_scores_that_are_all_low_have_a_normaliser(temperature: float):
    features = F.normalize(torch.tensor([[0.955, 0.3], [0.98, -0.2]]), dim=1).double()
    drawn = torch.tensor([[0, 1, 2], [1, 0, 3]])
    expected = oracle(features, OPPOSITE, temperature, True, drawn)
    leaf = features.float().requires_grad_()
    loss = relation_loss(leaf, OPPOSITE.float(), drawn[:, 0], drawn, temperature)
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    assert torch.autograd.grad(loss, leaf)[0].isfinite().all()


def test_a_normaliser_out_of_all_proportion_leaves_all_finite():
    for normaliser in (1e-30, 1e-18, 1e18, 1e30):
        leaf = unit(B, D, seed=1).float().requires_grad_()
        loss = relation_loss(leaf, unit(N, D, seed=2).float(), SAMPLES, FEW, 0.02, normaliser=normaliser)
        assert loss.isfinite()
        assert torch.autograd.grad(loss, leaf)[0].isfinite().all()


def test_one_sample_has_no_relations():
    leaf = unit(1, D, seed=1).requires_grad_()
    loss = relation_loss(leaf, unit(N, D, seed=2), SAMPLES[:1], CANDIDATES[:1], 0.05)
    assert loss.item() == 0
    assert (torch.autograd.grad(loss, leaf)[0] == 0).all()


def test_a_second_derivative_is_refused():
    leaf = unit(B, D, seed=1).requires_grad_()
    loss = relation_loss(leaf, unit(N, D, seed=2), SAMPLES, CANDIDATES, 0.05)
    (gradient,) = torch.autograd.grad(loss * leaf.sum(), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_gradients_of_the_cross_entropy_can_be_differentiated():
    generator = torch.Generator().manual_seed(0)
    embedding = torch.randn(B, D, generator=generator, dtype=torch.float64).requires_grad_()
    weight = torch.randn(CLASSES, D, generator=generator, dtype=torch.float64).requires_grad_()
    labels = torch.tensor([0, 1, 2, 3, 0])
    assert torch.autograd.gradcheck(lambda e, w: gradients(e @ w.T, labels, w), (embedding, weight))


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells a process's peak anew")
def test_the_references_batch_takes_less_than_500_megabytes(tmp_path: Path):
    assert 10 < float(output_of(crcd_peak.run, log=tmp_path / "log")) < 500
