"""What the methods on maps share: one grid for both networks, extra signals."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from objectives.maps import CONTEXT, network, rows

from pipeline import plugins
from pipeline.errors import ConfigError
from pipeline.objectives import build_objective
from pipeline.objectives.maps import CellNorm, common_grid, on_one_grid, pair_maps
from pipeline.signals import Signals, SignalShapes, extract, taps_read
from pipeline.signals.lowpass import lowpass

PACKAGE = "pipeline.objectives.methods"
OF_EXTRAS = [
    name for name in plugins.names(PACKAGE) if "signal" in plugins.load(PACKAGE, name, "").Options.model_fields
]
EXTRAS = ("attention-map/block3", "channel-gram/block3", "channel-std/block3", "fsp-matrix/block2")


def what_a_cache_holds(teacher: Signals) -> Signals:
    """Maps of 4 x 4, and all extra signals."""
    taps = list(teacher.features)
    extras = {name: extract(name, *(teacher.features[tap] for tap in taps_read(name, taps))) for name in EXTRAS}
    low = {tap: lowpass(maps, 4) for tap, maps in teacher.features.items()}
    return replace(teacher, features=low, extras=extras)


@pytest.mark.parametrize("name", OF_EXTRAS)
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
@pytest.mark.parametrize("batch", [1, 5])
def test_extra_signals_of_any_size_are_survived(name: str, scale: float, batch: int):
    """As the contract of objectives has it for cached maps: finite, into every own parameter, not into the teacher."""
    blocks, own = ((4, 16), (6, 8), (7, 8)), ((3, 16), (5, 8), (8, 8))
    full, pupil = network(1, *blocks, batch=batch), network(2, *own, batch=batch)
    cached = what_a_cache_holds(
        Signals(full.logits, features={b: (scale * x).float() for b, x in full.features.items()})
    )
    leaves = {block: (scale * x).float().requires_grad_() for block, x in pupil.features.items()}
    objective = build_objective(name, {"signal": "extra"}, pupil.shapes(), cached.shapes(), CONTEXT)
    with torch.autocast("cpu", torch.bfloat16):
        terms = objective(Signals(pupil.logits, features=leaves), cached, rows(batch), 0.5)
    value = torch.stack([*terms.values()]).sum()
    assert value.dtype == torch.float32
    assert value.isfinite()
    value.backward()
    assert all(leaf.grad is None or leaf.grad.isfinite().all() for leaf in leaves.values())
    if scale:
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in objective.parameters())


sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))


@given(student=sizes, teacher=sizes)
def test_the_grid_is_known_before_there_are_maps(student: tuple[int, int], teacher: tuple[int, int]):
    s, t = on_one_grid(torch.ones(1, 1, *student), torch.ones(1, 1, *teacher), "mean")
    assert common_grid(student, teacher) == (tuple(s.shape[2:]) if s.shape == t.shape else None)


def test_squares_always_have_one_grid():
    for student in range(1, 9):
        for teacher in range(1, 9):
            assert common_grid((student, student), (teacher, teacher)) == (min(student, teacher),) * 2


def test_the_deepest_pair_unless_blocks_are_named():
    shapes = SignalShapes(3, features={"block1": (4, 8, 8), "block2": (4, 4, 4), "final": (4, 4, 4)})
    assert [pair.teacher for pair in pair_maps(shapes, shapes, None, "x", deepest=True)] == ["block2"]
    assert [pair.teacher for pair in pair_maps(shapes, shapes, ("block1",), "x", deepest=True)] == ["block1"]
    assert len(pair_maps(shapes, shapes, None, "x")) == 2


@pytest.mark.parametrize("teacher", [1, 4])
@pytest.mark.parametrize("student", [1, 4])
def test_a_finer_grid_is_advised_where_it_would_help(student: int, teacher: int):
    own, theirs = (SignalShapes(3, features={"block1": (4, side, side)}) for side in (student, teacher))
    if student == teacher == 4:
        assert len(pair_maps(own, theirs, None, "x", cells=2)) == 1
        return
    with pytest.raises(ConfigError) as error:
        pair_maps(own, theirs, None, "x", cells=2)
    (problem,) = error.value.problems
    assert ("finer" in (problem.fix or "")) == (student == 4)
    assert ("the student's block1 has 1 x 1" in problem.what) == (student == 1)


def test_norms_are_torchs_where_there_is_a_variance():
    ours, theirs = CellNorm(4), torch.nn.BatchNorm2d(4)
    maps = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(maps), theirs(maps))
    torch.testing.assert_close(ours.eval()(maps), theirs.eval()(maps))
    torch.testing.assert_close(ours.train()(maps[:1, :, :1, :1]), theirs(maps[:1, :, :1, :1]))
