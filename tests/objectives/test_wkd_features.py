from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from golden import Case, golden
from objectives.maps import built, gradients_agree, network, rows, value

from pipeline.errors import ConfigError
from pipeline.objectives import Context, build_objective
from pipeline.objectives.maps import Connector
from pipeline.objectives.methods.wkd_features import moment_distances
from pipeline.signals import Signals, SignalShapes, extract

STUDENT, TEACHER = ((3, 16), (5, 8)), ((4, 16), (7, 8))


def remembered(full: Signals, *names: str, grid: int | None = None) -> Signals:
    """What a cache holds of the last map: extra signals, and its means on a grid if one is given."""
    extras = {f"{name}/block2": extract(name, full.features["block2"]) for name in names}
    low = {} if grid is None else network(2, *TEACHER, grid=grid).features
    return replace(full, features=low, extras=extras)


def transparent(objective: Any) -> Any:
    """Connectors change nothing, where both networks are equally wide."""
    for module in objective.modules():
        if isinstance(module, Connector):
            module.eval()  # the running mean is 0, the running variance 1
            torch.nn.init.eye_(module.linear.weight)
            torch.nn.init.constant_(module.norm.weight, (1 + module.norm.eps) ** 0.5)
    return objective


def distances(student: torch.Tensor, teacher: torch.Tensor, grid: int) -> tuple[float, float]:
    """The equation, cell by cell, of maps [B, C, H, W] whose sides the grid divides."""
    mean = deviation = 0.0
    for b in range(len(student)):
        for c in range(student.shape[1]):
            for i in range(grid):
                for j in range(grid):
                    cells = []
                    for maps in (student, teacher):
                        height, width = maps.shape[2] // grid, maps.shape[3] // grid
                        own = maps[b, c, i * height : (i + 1) * height, j * width : (j + 1) * width]
                        cells.append(own.numpy().ravel())
                    s, t = cells
                    mean += (s.mean() - t.mean()) ** 2
                    deviation += (np.sqrt(s.var(ddof=1) + 1e-5) - np.sqrt(t.var(ddof=1) + 1e-5)) ** 2
    return mean / len(student) / grid**2, deviation / len(student) / grid**2


def test_by_hand():
    # Two channels, four cells: differences 1 and 3 in one cell each, so (1 + 9) / 4.
    student = torch.zeros(1, 2, 4)
    student[0, 0, 0], student[0, 1, 2] = 1, 3
    assert moment_distances(student, torch.zeros(1, 2, 4)).tolist() == [2.5]


@pytest.mark.parametrize("means", ["features", "extra"])
@pytest.mark.parametrize("grid", [1, 4])
def test_with_extra_signals_it_is_exact(grid: int, means: str):
    """The oracle sees full maps; of low-passed ones the deviations would be far off."""
    student, full = network(1, (3, 16), (7, 8)), network(2, *TEACHER)
    kept = ("channel-std", "channel-mean") if means == "extra" else ("channel-std",)
    cached = remembered(full, *kept, grid=None if means == "extra" else 4)
    options = {"signal": "extra", "means": means, "grid": grid, "mean_weight": 3.0, "rectify": False}
    objective = transparent(built("wkd-features", student, cached, **options))
    terms = objective(student, cached, rows(), 0.5)
    mean, deviation = distances(student.features["block2"], full.features["block2"], grid)
    assert terms["mean"].item() == pytest.approx(3 * mean, rel=1e-10)
    assert terms["deviation"].item() == pytest.approx(deviation, rel=1e-10)


def test_low_passed_maps_have_the_moments_of_their_cells():
    student, cached = network(1, (3, 16), (7, 8)), network(2, *TEACHER, grid=4)
    terms = transparent(built("wkd-features", student, cached, rectify=False, grid=2))(student, cached, rows(), 0.5)
    low = network(1, (3, 16), (7, 8), grid=4).features["block2"]
    mean, deviation = distances(low, cached.features["block2"], 2)
    assert terms["mean"].item() == pytest.approx(4 * mean, rel=1e-10)
    assert terms["deviation"].item() == pytest.approx(deviation, rel=1e-10)


def test_a_projection_to_the_teachers_width_is_rectified_and_learns():
    student, cached = network(1, *STUDENT), network(2, *TEACHER, grid=4)
    objective = built("wkd-features", student, cached)
    projected = objective.get_submodule("connectors.0")(student.features["block2"])
    same = replace(cached, features={**cached.features, "block2": cached.features["block2"].relu()})
    exact = transparent(built("wkd-features", cached, same, rectify=True))
    assert projected.shape == (5, 7, 8, 8)
    assert value(exact, cached, same).item() == pytest.approx(0, abs=1e-20)
    value(objective, student, cached).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in objective.parameters())


def test_places_within_a_cell_may_be_anywhere():
    student, full = network(1, (3, 16), (7, 8)), network(2, *TEACHER)
    cached = remembered(full, "channel-std", "channel-mean")
    objective = transparent(built("wkd-features", student, cached, signal="extra", means="extra", grid=2))
    turned = {block: maps.unflatten(2, (2, -1)).flip(3).flatten(2, 3) for block, maps in student.features.items()}
    other = Signals(student.logits, features=turned)
    torch.testing.assert_close(value(objective, other, cached), value(objective, student, cached))


@pytest.mark.parametrize("signal", ["features", "extra"])
def test_gradient(signal: str):
    student, full = network(1, (3, 6), (5, 4), batch=2), network(2, (4, 6), (7, 4), batch=2)
    cached = replace(full, extras={"channel-std/block2": extract("channel-std", full.features["block2"])})
    objective = built("wkd-features", student, cached, signal=signal)
    assert gradients_agree(objective, student, cached, "block2")


@pytest.mark.parametrize("name", ["wkd_f", "wkd_f_grid4"])
def test_golden_values_of_the_reference(name: str):
    for case in golden(name):
        check(case)


def check(case: Case) -> None:
    """With the extra signals, and without projection. In one case the networks' maps lie on different grids."""
    student, teacher = case.signals("student"), case.signals("teacher")
    kept = ("channel-std", "channel-mean")
    cached = replace(
        teacher, features={}, extras={f"{each}/block1": extract(each, teacher.features["block1"]) for each in kept}
    )
    options = {key: case.options[key] for key in ("grid", "mean_weight")} | {"rectify": False}
    context, shapes = Context(8, student.logits.shape[1]), (student.shapes(), cached.shapes())
    objective = transparent(
        build_objective("wkd-features", {**options, "signal": "extra", "means": "extra"}, *shapes, context).double()
    )
    terms = objective(student, cached, case.batch(), 0.5)
    assert terms["mean"].item() == pytest.approx(case.terms["mean"], rel=1e-9)
    assert terms["deviation"].item() == pytest.approx(case.terms["std"], rel=1e-9)
    case.check(terms["mean"] + terms["deviation"])


def shapes(side: int, **held: Any) -> SignalShapes:
    return SignalShapes(3, features={"block1": (4, side, side)}, **held)


@pytest.mark.parametrize(
    ("student", "teacher", "options", "said"),
    [
        (
            shapes(4),
            shapes(4),
            {"grid": 4},
            r"x\.grid: a deviation needs cells of several places.*5 x 5 or more.*4 x 4",
        ),
        (
            shapes(1),
            shapes(4, extras={"channel-std/block1": (4, 5)}),
            {"signal": "extra"},
            "the student's block1 is too",
        ),
        (
            shapes(8),
            shapes(4, extras={"channel-std/block1": (4, 5)}),
            {"signal": "extra", "grid": 4},
            "has no cells of",
        ),
        (
            shapes(8),
            shapes(4, extras={"channel-std/block1": (4, 21)}, filter="dct"),
            {"signal": "extra", "grid": 4},
            "means do not follow from maps low-passed by 'dct'",
        ),
        (
            shapes(8),
            shapes(3, extras={"channel-std/block1": (4, 21)}),
            {"signal": "extra", "grid": 2},
            r"means over 2 x 2 cells do not follow from the cached map",
        ),
        (shapes(8), shapes(4), {"means": "extra"}, "does not read means"),
        (shapes(8), shapes(4), {"grid": 3}, "grid"),
    ],
)
def test_what_has_no_deviations_or_means_is_refused(
    student: SignalShapes, teacher: SignalShapes, options: dict[str, Any], said: str
):
    with pytest.raises(ConfigError, match=r"(?s)" + said):
        build_objective("wkd-features", options, student, teacher, Context(6, 3), "x")


def test_a_cache_without_the_mean_is_told_of_both_ways_to_have_it():
    teacher = replace(shapes(8, extras={"channel-std/block1": (4, 21)}), features={})
    with pytest.raises(ConfigError, match=r"add `features: \{\}`.*or cache channel-mean/block1, too"):
        build_objective("wkd-features", {"signal": "extra"}, shapes(8), teacher, Context(6, 3))


def test_all_that_is_missing_is_told_at_once():
    bare = replace(shapes(8), features={})
    with pytest.raises(ConfigError) as error:
        build_objective("wkd-features", {"signal": "extra"}, shapes(8), bare, Context(6, 3))
    assert [problem.key for problem in error.value.problems] == ["wkd-features", "wkd-features.means"]
    with pytest.raises(ConfigError) as error:
        build_objective("wkd-features", {"signal": "extra", "means": "extra"}, shapes(8), bare, Context(6, 3))
    for name in ("channel-std/block1", "channel-mean/block1"):
        assert f"add `extras: [{name}]` to `signals`" in str(error.value)
