from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.models.reused import ReusedHead
from pipeline.objectives import Batch, Context, build_objective
from pipeline.objectives.methods.simkd import SimKD
from pipeline.signals import LinearHead, Signals, SignalShapes
from pipeline.signals.lowpass import lowpass

B, CHANNELS, WIDTH, CLASSES = 4, 3, 6, 5


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def teacher(grid: int = 4) -> Signals:
    maps = random(B, WIDTH, 8, 8, seed=3).relu()
    head = LinearHead(random(CLASSES, WIDTH, seed=1), random(CLASSES, seed=2))
    embedding = maps.mean((2, 3))
    return Signals(head(embedding), embedding, {"block3": lowpass(maps, grid)}, head)


def student(size: int = 8, batch: int = B) -> Signals:
    return Signals(torch.zeros(batch, 9), None, {"block2": random(batch, CHANNELS, size, size, seed=4)})


def build(of: Signals | None = None, **options: object) -> SimKD:
    torch.manual_seed(0)
    shapes = student().shapes(), (of or teacher()).shapes()
    objective = build_objective("simkd", options, *shapes, Context(B, 9)).double()
    assert isinstance(objective, SimKD)
    return objective


def inference(objective: SimKD, s: Signals, t: Signals) -> Signals:
    return ReusedHead(objective.kept(), t.head)(s.features["block2"])


def step(objective: SimKD, s: Signals, t: Signals) -> torch.Tensor:
    rows = torch.arange(len(s.logits))
    return objective(s, t, Batch(rows - rows - 1, rows, rows), 0.0)["feature"]


def projected(objective: SimKD, maps: NDArray[np.float64], rectify: bool = True) -> NDArray[np.float64]:
    """The bottleneck, one layer, one place and one channel at a time."""
    for number, layer in enumerate(objective.projector):
        kernel = layer.linear.weight.detach().numpy()
        reach = kernel.shape[2] // 2
        padded = np.pad(maps, ((0, 0), (0, 0), (reach, reach), (reach, reach)))
        maps = np.zeros((len(maps), len(kernel), *maps.shape[2:]))
        for row, column in np.ndindex(maps.shape[2:]):
            window = padded[:, :, row : row + 2 * reach + 1, column : column + 2 * reach + 1]
            maps[:, :, row, column] = np.einsum("bcij,ocij->bo", window, kernel)
        for d in range(maps.shape[1]):
            maps[:, d] = (maps[:, d] - maps[:, d].mean()) / np.sqrt(maps[:, d].var() + 1e-5)
        maps = np.maximum(maps, 0) if rectify or number < 2 else maps
    return maps


@pytest.mark.parametrize("rectify", [True, False])
def test_equals_the_equation_in_float64(rectify: bool):
    objective, s, t = build(rectify=rectify), student(), teacher()
    pooled = projected(objective, s.features["block2"].numpy(), rectify).mean((2, 3))
    assert step(objective, s, t).item() == pytest.approx(((pooled - t.embedding.numpy()) ** 2).mean(), rel=1e-10)


@pytest.mark.parametrize("grid", [4, 8])
def test_maps_are_compared_on_the_cached_grid(grid: int):
    t = teacher(grid)
    objective, s = build(t, target="map"), student()
    maps, total = projected(objective, s.features["block2"].numpy()), 0.0
    for row, column in np.ndindex(grid, grid):
        n = 8 // grid
        cell = maps[:, :, row * n : row * n + n, column * n : column * n + n].mean((2, 3))
        total += ((cell - t.features["block3"][:, :, row, column].numpy()) ** 2).mean()
    assert step(objective, s, t).item() == pytest.approx(total / grid**2, rel=1e-10)


def test_by_hand():
    """One channel of two cells, 1 and -3; every layer multiplies by a number and rectifies."""
    head = LinearHead(torch.ones(2, 1), torch.zeros(2))
    one = Signals(torch.zeros(1, 2), torch.tensor([[5.0]]), {"block1": torch.tensor([[[[1.0, -3.0]]]])}, head)
    objective = build_objective("simkd", {"factor": 1}, one.shapes(), one.shapes(), Context(1, 2)).eval()
    assert isinstance(objective, SimKD)
    with torch.no_grad():
        for layer, factor in zip(objective.projector, (2.0, -1.0, -1.0), strict=True):
            weight = layer.linear.weight
            centre = weight.shape[2] // 2
            weight.zero_()[:, :, centre, centre] = factor
    # 1, -3 -> rectified 2, 0 -> rectified 0, 0: nothing passes; the loss is what the embedding is worth.
    assert step(objective, one, one).item() == pytest.approx(25.0)
    with torch.no_grad():
        objective.projector[1].linear.weight.neg_()
        objective.projector[2].linear.weight.neg_()
    # 2, 0 throughout, of which the mean is 1.
    assert step(objective, one, one).item() == pytest.approx(16.0, rel=1e-4)


@pytest.mark.parametrize("target", ["embedding", "map"])
def test_gradient(target: str):
    objective, t = build(teacher(), target=target), teacher()

    def value(maps: torch.Tensor) -> torch.Tensor:
        return step(objective, Signals(torch.zeros(B, 9), None, {"block2": maps}), t)

    assert torch.autograd.gradcheck(value, (student().features["block2"].requires_grad_(),), fast_mode=True)


def test_a_student_that_reaches_the_embedding_says_what_the_teacher_says():
    objective, s, t = build(), student(), teacher()
    optimizer = torch.optim.Adam([maps := s.features["block2"].requires_grad_(), *objective.parameters()], lr=0.05)
    before = (inference(objective, s, t).logits - t.logits).square().mean()
    for _ in range(300):
        optimizer.zero_grad()
        (loss := step(objective, s, t)).backward()
        optimizer.step()
    after = (inference(objective, s, t).logits - t.logits).square().mean()
    assert loss < 1e-2
    assert after < before / 20
    assert maps.grad is not None


def test_at_inference_a_sample_does_not_depend_on_its_batch():
    objective, s, t = build(), student(), teacher()
    for _ in range(5):
        step(objective, s, t)
    objective.eval()
    alone = Signals(s.logits[:1], None, {"block2": s.features["block2"][:1]})
    together = inference(objective, s, t)
    torch.testing.assert_close(inference(objective, alone, t).logits, together.logits[:1])
    torch.testing.assert_close(together.head(together.embedding), together.logits)


def test_a_map_of_one_cell_and_a_batch_of_one():
    objective, t = build(), teacher()
    one = Signals(t.logits[:1], t.embedding[:1], head=t.head)
    assert torch.isfinite(step(objective, student(size=1, batch=1), one))


def test_refusals():
    def refused(match: str, s: SignalShapes, t: SignalShapes, **options: object):
        with pytest.raises(ConfigError, match=match):
            build_objective("simkd", options, s, t, Context(B, 9))

    own, full = student().shapes(), teacher().shapes()
    refused("student's last map", SignalShapes(9, 4), full)
    refused("teacher's embedding", own, SignalShapes(CLASSES, None, full.features, linear=True))
    refused("'head'", own, SignalShapes(CLASSES, WIDTH))
    refused("cached features", own, SignalShapes(CLASSES, WIDTH, linear=True), target="map")
    refused("mean of its last map", own, SignalShapes(CLASSES, WIDTH, full.features, linear=False), target="map")
    refused("proportions", own, SignalShapes(CLASSES, WIDTH, {"block3": (WIDTH, 4, 2)}, linear=True), target="map")
