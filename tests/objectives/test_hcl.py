from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden import golden
from objectives.layers import STUDENT, TEACHER, TOKENS, Array, array, batch, built, cell_means, maps
from objectives.maps import gradients_agree

from pipeline.errors import ConfigError
from pipeline.objectives.attention import Patches, TokenAttention, token_positions
from pipeline.objectives.maps import hierarchical_contexts
from pipeline.signals import Signals, SignalShapes

SMALL = {"width": 12, "heads": 3, "grid": 2}


def tokens_of(x: Array, layer: Patches, grid: int) -> Array:
    """Of every patch, all its pixels, channel by channel, times the weights: one patch at a time."""
    tall, wide = -(-x.shape[2] // grid), -(-x.shape[3] // grid)
    rows = [int(np.floor(i * x.shape[2] / (tall * grid))) for i in range(tall * grid)]
    columns = [int(np.floor(i * x.shape[3] / (wide * grid))) for i in range(wide * grid)]
    x = x[:, :, rows][:, :, :, columns]
    found = np.zeros((len(x), grid * grid, len(layer.linear.weight)))
    for row, column in np.ndindex(grid, grid):
        patch = x[:, :, row * tall : (row + 1) * tall, column * wide : (column + 1) * wide]
        found[:, row * grid + column] = patch.reshape(len(x), -1) @ array(layer.linear.weight).T
    return found + array(layer.linear.bias)


def attended(tokens: Array, layer: TokenAttention) -> Array:
    """One sample, one head and one token at a time."""
    batch_size, count, width = tokens.shape
    mean, variance = tokens.mean(2, keepdims=True), tokens.var(2, keepdims=True)
    normal = (tokens - mean) / np.sqrt(variance + 1e-5) * array(layer.norm.weight) + array(layer.norm.bias)
    q, k, v = np.split(normal @ array(layer.all.weight).T + array(layer.all.bias), 3, axis=2)
    place = np.zeros((count, width))
    for token, channel in np.ndindex(count, width):
        angle = token / 10000 ** (channel // 2 * 2 / width)
        place[token, channel] = np.cos(angle) if channel % 2 else np.sin(angle)
    found, each = np.zeros_like(v), width // layer.heads
    for b, head, token in np.ndindex(batch_size, layer.heads, count):
        part = slice(head * each, (head + 1) * each)
        scores = (k[b, :, part] + place[:, part]) @ (q[b, token, part] + place[token, part]) / np.sqrt(each)
        weights = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
        found[b, token, part] = weights @ v[b, :, part]
    return found


def contexts(x: Array, y: Array) -> float:
    levels = [x.shape[2], *(grid for grid in (4, 2, 1) if grid < x.shape[2])]
    errors = [((cell_means(x, grid) - cell_means(y, grid)) ** 2).mean() / 2**power for power, grid in enumerate(levels)]
    return sum(errors) / sum(1 / 2**power for power in range(len(levels)))


@pytest.mark.parametrize("student", [STUDENT, SignalShapes(5, 6, {"block1": (4, 7, 7), "block2": (6, 3, 3)})])
def test_equals_the_equation_in_float64(student: SignalShapes):
    objective = built("hcl", SMALL, student=student)
    s, t, expected = maps(student, 3, 1), maps(TEACHER, 3, 2), 0.0
    blocks = ("block1", "block2")
    own = [tokens_of(array(s.features[b]), layer, 2) for b, layer in zip(blocks, objective.patches, strict=True)]
    mixed = attended(np.concatenate(own, axis=1), objective.attention)
    for number, (block, align) in enumerate(zip(blocks, objective.aligners, strict=True)):
        y = mixed[:, 4 * number : 4 * number + 4].transpose(0, 2, 1).reshape(3, 12, 2, 2).repeat(2, 2).repeat(2, 3)
        y = (y - y.mean((0, 2, 3), keepdims=True)) / np.sqrt(y.var((0, 2, 3), keepdims=True) + 1e-5)
        expected += contexts(np.einsum("oc,bchw->bohw", array(align.linear.weight), y), array(t.features[block]))
    assert objective(s, t, batch(3), 0.0)["contexts"].item() == pytest.approx(expected, rel=1e-6)  # float32 sines


def test_tokens_are_as_wide_as_the_teachers_widest_map_and_a_multiple_of_the_heads():
    for heads, width in ((4, 8), (3, 9)):
        assert built("hcl", {"heads": heads}).attention.all.weight.shape == (3 * width, width)


def test_a_token_alone_says_its_own_value():
    layer = TokenAttention(1, 6, 2).double()
    token = torch.randn(3, 1, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(layer(token), layer.all(layer.norm(token)).chunk(3, 2)[2])


def test_places_are_told_apart_and_depths_reach_each_other():
    assert token_positions(3, 5).shape == (3, 5)
    assert torch.cdist(token_positions(64, 16), token_positions(64, 16)).fill_diagonal_(1).min() > 0.1
    objective, t = built("hcl", SMALL), maps(TEACHER, 4, 2)
    only = built("hcl", {**SMALL, "blocks": ["block2"], "mixed": ["block1", "block2"]})
    s = maps(STUDENT, 4, 1)
    s.features["block1"].requires_grad_()
    only(s, t, batch(4), 0.0)["contexts"].backward()
    assert s.features["block1"].grad.any()
    assert only.needs.teacher == {"features/block2"}
    assert only.needs.student == {"features/block1", "features/block2"}
    student = maps(STUDENT, 4, 1)
    turned = Signals(student.logits, features={tap: x.flip(3) for tap, x in student.features.items()})
    one, other = (objective(s, t, batch(4), 0.0)["contexts"].item() for s in (student, turned))
    assert one != pytest.approx(other, rel=1e-3)


def test_gradient():
    objective = built("hcl", SMALL)
    assert gradients_agree(objective, maps(STUDENT, 3, 1), maps(TEACHER, 3, 2), "block1", "block2")


@pytest.mark.parametrize("method", ["hcl", "hcl_nearest"])
def test_levels_have_the_authors_values_and_gradients(method: str):
    for case in golden(method):
        maps_ = case.student_map
        if case.options["projector"]:
            maps_ = torch.einsum("dc,bchw->bdhw", case.tensor("map_projector/weight"), maps_)
        teacher = case.tensor("teacher_map")
        case.check(hierarchical_contexts(F.interpolate(maps_, teacher.shape[2:]), teacher).mean())


def test_a_grid_of_one_place_and_a_student_of_tokens():
    one = SignalShapes(5, 8, {"block1": (5, 1, 1), "block2": (8, 1, 1)}, linear=True)
    assert built("hcl", SMALL, teacher=one)(maps(STUDENT, 1, 1), maps(one, 1, 2), batch(1), 0.0)["contexts"].isfinite()
    assert built("hcl", SMALL, student=TOKENS)(maps(TOKENS, 4, 1), maps(TEACHER, 4, 2), batch(4), 0.0)


def test_refusals():
    for options, match in (
        ({"mixed": ["block1"]}, r"hcl\.mixed: leaves out block2"),
        ({"mixed": ["block1", "block2", "block3"]}, "block3"),
        ({"width": 12, "heads": 8}, "width must be a multiple of heads, got 12 and 8"),
        ({"blocks": ["block7"]}, "block7"),
    ):
        with pytest.raises(ConfigError, match=match):
            built("hcl", options)
    with pytest.raises(ConfigError, match="needs cached features"):
        built("hcl", teacher=SignalShapes(5, 8))
