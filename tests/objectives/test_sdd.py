from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from golden import golden
from objectives.local import CLASSES, cells, network

from pipeline.errors import ConfigError
from pipeline.models import build_network
from pipeline.objectives import Batch, Context, build_objective, kl_divergence
from pipeline.objectives.local import local_logits
from pipeline.objectives.methods.sdd import region_weights
from pipeline.signals import Signals, SignalShapes
from pipeline.signals.lowpass import lowpass

LABELS = torch.tensor([0, 4, 2, 2, 1, 3])


def batch() -> Batch:
    rows = torch.arange(len(LABELS))
    return Batch(LABELS, rows, torch.zeros_like(rows))


def sdd(student: Signals, teacher: Signals, **options: object):
    return build_objective("sdd", options, student.shapes(), teacher.shapes(), Context(6, CLASSES, LABELS))


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


@pytest.mark.parametrize("scales", [(1, 2, 4), (1, 4), (2,)])
def test_equals_the_equation_in_float64_over_full_maps(scales: tuple[int, ...]):
    # The oracle sees the teacher's full map, the objective its 4 x 4 means: low-passing changes nothing.
    student, full, cached = network(1, 3, 8), network(2, 7, 16), network(2, 7, 16, grid=4)
    temperature, complementary = 3.0, 2.5
    z, t = (np.concatenate([cells(s, r) for r in scales], axis=1) for s in (student, full))
    whole, total = full.logits.numpy(), 0.0
    for b, y in enumerate(LABELS.tolist()):
        for cell in range(z.shape[1]):
            right, right_whole = t[b, cell].argmax() == y, whole[b].argmax() == y
            p, q = softmax(t[b, cell] / temperature), softmax(z[b, cell] / temperature)
            total += (1.0 if right == right_whole else complementary) * (p * np.log(p / q)).sum()
    expected = temperature**2 * total / z.shape[0] / z.shape[1]
    objective = sdd(student, cached, scales=scales, temperature=temperature, complementary_weight=complementary)
    assert objective(student, cached, batch(), 0.0)["kd"].item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("base", ["dkd", "nkd"])
def test_every_cell_has_the_loss_of_the_base_in_float64(base: str):
    """Written out cell by cell, with the target taken out of the others, as the authors' mask for NKD does not."""
    student, teacher, temperature, complementary = network(1, 3, 8), network(2, 7, 8, grid=4), 3.0, 2.5
    z, t = (np.concatenate([cells(s, r) for r in (1, 2)], axis=1) for s in (student, teacher))
    whole, values = teacher.logits.numpy(), []
    for b, y in enumerate(LABELS.tolist()):
        for own, theirs in zip(z[b], t[b], strict=True):
            weight = 1.0 if (theirs.argmax() == y) == (whole[b].argmax() == y) else complementary
            p, q = (softmax(np.delete(x, y) / temperature) for x in (theirs, own))
            if base == "nkd":
                entropy = -(temperature**2) * (p * np.log(q)).sum()
                values.append(weight * (1.5 * entropy - softmax(theirs)[y] * np.log(softmax(own)[y])))
            else:
                at, own_at = softmax(theirs / temperature)[y], softmax(own / temperature)[y]
                binary = at * np.log(at / own_at) + (1 - at) * np.log((1 - at) / (1 - own_at))
                others = (p * np.log(p / q)).sum()
                values.append(weight * temperature**2 * (0.5 * binary + 1.5 * others))
    given = {"nkd": {"gamma": 1.5}, "dkd": {"alpha": 0.5, "beta": 1.5}}[base]
    options = {"scales": (1, 2), "temperature": temperature, "complementary_weight": complementary, **given}
    objective = sdd(student, teacher, base=base, **options)
    assert objective(student, teacher, batch(), 0.0)[base].item() == pytest.approx(np.mean(values), rel=1e-10)


def test_autocast_leaves_local_logits_as_they_are():
    """bfloat16 has 8 bits: the teacher would change its mind about 2 % of the cells."""
    signals = network(2, 7, 16, grid=4)
    assert signals.head is not None
    single = replace(
        signals,
        features={tap: each.float() for tap, each in signals.features.items()},
        head=replace(signals.head, weight=signals.head.weight.float(), bias=signals.head.bias.float()),
    )
    tap = list(single.features)[-1]
    plain = local_logits(single, tap, (1, 2, 4))
    with torch.autocast("cpu", torch.bfloat16):
        found = local_logits(single, tap, (1, 2, 4))
    for one, other in zip(found, plain, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("scales", [[], [0, 2], [-2, 2], [2, 2]])
def test_scales_are_different_grids(scales: list[int]):
    with pytest.raises(ConfigError, match=r"scales(.|\n)*different grids of 1 or more"):
        sdd(network(1, 3, 8), network(2, 7, 16, grid=4), scales=scales)


def test_an_ensemble_has_no_head_to_read_local_logits_with():
    teacher = replace(network(2, 7, 16, grid=4), head=None)
    with pytest.raises(ConfigError, match=r"needs the teacher's head(.|\n)*as every ensemble"):
        sdd(network(1, 3, 8), teacher)


def test_weights_by_hand():
    # Two cells and three samples: wholly right, one cell wrong; wholly wrong, one cell right; all wrong.
    one, other = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]
    teacher = torch.tensor([[one, other], [one, other], [other, other]])
    whole = torch.tensor([one, one, other])
    weights = region_weights(teacher, whole, torch.tensor([0, 1, 2]), 2.0)
    assert weights.tolist() == [[1, 2], [1, 2], [1, 1]]


def test_the_whole_alone_is_kd():
    student, teacher = network(1, 3, 8), network(2, 7, 8, grid=4)
    value = sdd(student, teacher, scales=[1], temperature=2.0)(student, teacher, batch(), 0.0)["kd"]
    torch.testing.assert_close(value, kl_divergence(student.logits, teacher.logits, 2.0).mean())


@pytest.mark.parametrize("base", ["dkd", "nkd"])
def test_of_the_whole_alone_the_base_is_the_base(base: str):
    student, teacher = network(1, 3, 8), network(2, 7, 8, grid=4)
    options = {"dkd": {"alpha": 0.5, "beta": 2.0}, "nkd": {"gamma": 3.0}}[base] | {"temperature": 2.0}
    value = sdd(student, teacher, scales=[1], base=base, **options)(student, teacher, batch(), 0.0)[base]
    shapes = SignalShapes(logits=CLASSES)
    alone = build_objective(base, options, shapes, shapes, Context(6, CLASSES, LABELS))
    terms = alone(Signals(student.logits), Signals(teacher.logits), batch(), 0.0)
    torch.testing.assert_close(value, torch.stack(list(terms.values())).sum())


@pytest.mark.parametrize("base", ["kd", "dkd"])
def test_golden_values_of_the_reference(base: str):
    for case in golden(f"sdd_{base}"):
        case.check_objective("sdd", {"base": base, **case.options})


@pytest.mark.parametrize("base", ["kd", "dkd", "nkd"])
def test_gradient(base: str):
    student, teacher = network(1, 2, 4, batch=6), network(2, 3, 4, batch=6)
    objective = sdd(student, teacher, scales=[1, 2], base=base)

    def value(maps: torch.Tensor) -> torch.Tensor:
        return objective(Signals(student.logits, None, {"block1": maps}, student.head), teacher, batch(), 0.0)[base]

    assert torch.autograd.gradcheck(value, (student.features["block1"].requires_grad_(),), fast_mode=True)


def test_a_student_whose_end_is_not_linear_says_what_it_makes_of_every_cell():
    # A ViT with a norm behind its mean, against the same operations written out.
    options = {"img_size": 16, "patch_size": 4, "depth": 1, "embed_dim": 12, "num_heads": 2, "global_pool": "avg"}
    vit = build_network("vit_tiny_patch16_224", CLASSES, input_size=16, options=options, seed=0).eval().double()
    vit.keep_taps(["final"])
    images = torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    signals, teacher = vit(images), network(2, 7, 8, grid=4)
    tokens = signals.features["final"]
    for scale in (1, 2, 4):
        pooled = tokens.unfold(2, 4 // scale, 4 // scale).unfold(3, 4 // scale, 4 // scale).mean((4, 5))
        vectors = pooled.flatten(2).transpose(1, 2)
        expected = vit.model.head(vit.model.fc_norm(vectors))
        torch.testing.assert_close(local_logits(signals, "final", [scale])[0], expected)
    torch.testing.assert_close(local_logits(signals, "final", [1])[0][:, 0], signals.logits)
    shapes = SignalShapes(CLASSES, 12, {"block1": (12, 4, 4), "final": (12, 4, 4)}, linear=False, local=True)
    objective = build_objective("sdd", {}, shapes, teacher.shapes(), Context(6, CLASSES, LABELS))
    assert objective.needs.student == {"features/final"}
    objective(signals, teacher, batch(), 0.0)["kd"].backward()
    assert vit.model.fc_norm.weight.grad.abs().sum() > 0


def test_a_teacher_whose_head_reads_final_serves_from_a_cache_of_it():
    # A Swin has a norm between its last block and the mean; against the logits of every cell through its own end.
    options = {
        "img_size": 16,
        "patch_size": 2,
        "window_size": 4,
        "embed_dim": 12,
        "depths": [1, 1],
        "num_heads": [1, 2],
    }
    swin = (
        build_network("swin_tiny_patch4_window7_224", CLASSES, input_size=16, options=options, seed=0).eval().double()
    )
    torch.nn.init.normal_(swin.model.get_classifier().weight)
    assert (swin.linear, swin.linear_final) == (False, True)
    swin.keep_taps(["block1", "block2", "final"])
    said = swin(torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)))
    cached = {name: lowpass(maps, 2) for name, maps in said.features.items()}
    teacher = Signals(said.logits, said.embedding, cached, said.head)  # from a cache: nothing but tensors
    student = network(1, 3, 8)
    objective = build_objective(
        "sdd", {"scales": [1, 2]}, student.shapes(), teacher.shapes(), Context(6, CLASSES, LABELS)
    )
    assert objective.needs.teacher == {"features/final", "head"}
    rows = [said.features["final"][:, :, i : i + 2, j : j + 2] for i in (0, 2) for j in (0, 2)]
    expected = torch.stack([swin.model.forward_head(part.permute(0, 2, 3, 1)) for part in rows], dim=1)
    torch.testing.assert_close(local_logits(teacher, "final", [1, 2])[1], expected)
    torch.testing.assert_close(local_logits(teacher, "final", [1, 2])[0][:, 0], said.logits)
    without = {name: maps for name, maps in cached.items() if name != "final"}
    with pytest.raises(ConfigError, match=r"is 'final'.*\n.*signals.features.blocks"):
        build_objective(
            "sdd", {}, student.shapes(), replace(teacher, features=without).shapes(), Context(6, CLASSES, LABELS)
        )


def test_what_cannot_have_local_logits_is_refused_with_the_reason():
    labels = Context(6, CLASSES, LABELS)
    good = SignalShapes(CLASSES, 8, {"block1": (8, 4, 4)}, linear=True)

    def refused(match: str, student: SignalShapes = good, teacher: SignalShapes = good, **options: object) -> None:
        with pytest.raises(ConfigError, match=match):
            build_objective("sdd", options, student, teacher, labels)

    refused(
        "student's are no function of the mean", student=SignalShapes(CLASSES, 8, {"block1": (8, 4, 4)}, linear=False)
    )
    refused("teacher's head is not linear", teacher=SignalShapes(CLASSES, 8, {"block1": (8, 4, 4)}, linear=False))
    refused("student's last map has 2 x 2", student=SignalShapes(CLASSES, 8, {"block1": (8, 2, 2)}, linear=True))
    refused("teacher's last map has 2 x 2", teacher=SignalShapes(CLASSES, 8, {"block1": (8, 2, 2)}, linear=True))
    gaussian = SignalShapes(CLASSES, 8, {"block1": (8, 4, 4)}, linear=True, filter="gaussian")
    refused("low-passed by 'gaussian'", teacher=gaussian)
    refused("must divide the finest", scales=[3, 4])
    refused("not a multiple of the finest", teacher=SignalShapes(CLASSES, 8, {"block1": (8, 6, 6)}, linear=True))
    refused("does not read beta", beta=3.0)
    refused("does not read gamma", base="dkd", gamma=3.0)
