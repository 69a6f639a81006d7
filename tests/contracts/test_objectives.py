"""What every objective must do, whoever wrote it. The files in `pipeline/objectives/` are found by themselves."""

from __future__ import annotations

import copy

import pytest
import torch

from pipeline import plugins
from pipeline.errors import ConfigError
from pipeline.objectives import Batch, Context, Objective, build_objective
from pipeline.signals import LinearHead, Signals, SignalShapes

NAMES = plugins.names("pipeline.objectives")
CLASSES, WIDTH = 5, {"student": 12, "teacher": 16}
SIZE = {"student": (8, 8), "teacher": (4, 4)}


def shapes(who: str) -> SignalShapes:
    channels, size = WIDTH[who], SIZE[who]
    return SignalShapes(
        logits=CLASSES,
        embedding=channels,
        features={"block1": (channels // 2, *size), "block2": (channels, *size)},
        linear=True,
    )


SAMPLES = 32


def remembered(signal: str, samples: torch.Tensor, view: int) -> torch.Tensor:
    """A bank: random numbers by signal, sample and view."""
    width = CLASSES if signal == "logits" else WIDTH["teacher"]
    generator = torch.Generator().manual_seed(len(signal) + 100 * view)
    return torch.randn(SAMPLES, width, generator=generator)[samples]


CONTEXT = Context(
    num_samples=SAMPLES,
    classes=CLASSES,
    labels=torch.arange(SAMPLES) % CLASSES,
    bank=remembered,
    class_means=lambda: torch.randn(CLASSES, WIDTH["teacher"], generator=torch.Generator().manual_seed(7)),
    views_per_step=2,  # as many as any objective needs; the batches below have those that each one needs
)


def build(name: str) -> Objective:
    torch.manual_seed(0)
    return build_objective(name, {}, shapes("student"), shapes("teacher"), CONTEXT)


def signals(who: str, size: int, seed: int, *, scale: float = 1.0, grad: bool = False) -> Signals:
    generator = torch.Generator().manual_seed(seed)
    channels, grid = WIDTH[who], SIZE[who]

    def random(*shape: int) -> torch.Tensor:
        return (torch.randn(size, *shape, generator=generator) * scale).requires_grad_(grad)

    final = random(channels, *grid)
    head = LinearHead(torch.randn(CLASSES, channels, generator=generator), torch.randn(CLASSES, generator=generator))
    embedding = final.mean((2, 3))
    return Signals(
        logits=head(embedding),
        embedding=embedding,
        features={"block1": random(channels // 2, *grid), "block2": final},
        head=head,
    )


def batch(rows: int, views: int = 1) -> Batch:
    """Adjacent rows are views of one sample."""
    row = torch.arange(rows)
    sample = row // views
    return Batch(labels=sample % CLASSES, sample=sample, view=row % views, step=3)


def leaves(s: Signals) -> list[torch.Tensor]:
    return [s.features["block1"], s.features["block2"]]


def total(terms: dict[str, torch.Tensor]) -> torch.Tensor:
    assert terms, "an objective returns at least one term"
    for name, term in terms.items():
        assert term.shape == (), f"{name} is not a scalar"
    return torch.stack([term.float() for term in terms.values()]).sum()


def test_there_are_some():
    assert {"hard-label", "kd", "lfcc"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_finite_values_and_gradients(name: str, autocast: bool, scale: float):
    objective, student = build(name), signals("student", 6, 1, scale=scale, grad=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        value = total(objective(student, signals("teacher", 6, 2, scale=scale), batch(6, objective.needs.views), 0.5))
    assert value.dtype == torch.float32
    assert torch.isfinite(value)
    value.backward()
    for leaf in leaves(student):
        assert leaf.grad is None or torch.isfinite(leaf.grad).all()


@pytest.mark.parametrize("name", NAMES)
def test_order_of_the_batch_does_not_matter(name: str):
    n, views = 8, build(name).needs.views
    student, teacher, b = signals("student", n, 1), signals("teacher", n, 2), batch(n, views)
    samples = torch.randperm(n // views, generator=torch.Generator().manual_seed(0))
    shuffle = (samples[:, None] * views + torch.arange(views)).flatten()

    def permuted(s: Signals) -> Signals:
        features = {tap: values[shuffle] for tap, values in s.features.items()}
        return Signals(s.logits[shuffle], s.embedding[shuffle], features, s.head)

    other = Batch(b.labels[shuffle], b.sample[shuffle], b.view[shuffle], b.step)
    torch.testing.assert_close(
        total(build(name)(student, teacher, b, 0.5)),
        total(build(name)(permuted(student), permuted(teacher), other, 0.5)),
    )


@pytest.mark.parametrize("name", NAMES)
def test_nothing_flows_into_the_teacher_and_something_into_every_own_parameter(name: str):
    objective = build(name)
    teacher = signals("teacher", 6, 2)
    for progress in (0.0, 0.5):  # some parts learn at one time, and some at another
        student = signals("student", 6, 1, grad=True)
        total(objective(student, teacher, batch(6, objective.needs.views), progress)).backward()
    assert all(leaf.grad is None for leaf in leaves(teacher))
    assert any(leaf.grad is not None and leaf.grad.abs().sum() > 0 for leaf in leaves(student))
    for parameter_name, parameter in objective.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [1, 2, 5])
def test_small_batches(name: str, size: int):
    objective = build(name)
    views = objective.needs.views
    rows = size * views
    value = total(objective(signals("student", rows, 1), signals("teacher", rows, 2), batch(rows, views), 0.0))
    assert torch.isfinite(value)


@pytest.mark.parametrize("name", NAMES)
def test_batches_with_two_views_of_each_sample(name: str):
    objective, student = build(name), signals("student", 8, 1, grad=True)
    value = total(objective(student, signals("teacher", 8, 2), batch(8, 2), 0.5))
    assert torch.isfinite(value)
    value.backward()
    for leaf in leaves(student):
        assert leaf.grad is None or torch.isfinite(leaf.grad).all()


@pytest.mark.parametrize("name", NAMES)
def test_its_state_is_all_there_is(name: str):
    objective = build(name)
    student, teacher = signals("student", 6, 1), signals("teacher", 6, 2)
    views = objective.needs.views
    objective(student, teacher, batch(6, views), 0.1)
    other = build_objective(name, {}, shapes("student"), shapes("teacher"), CONTEXT)
    other.load_state_dict(copy.deepcopy(objective.state_dict()))
    first, second = (o(student, teacher, batch(6, views), 0.2) for o in (objective, other))
    for term in first:
        assert torch.equal(first[term], second[term])


@pytest.mark.parametrize("name", NAMES)
def test_twenty_steps_lower_it(name: str):
    objective = build(name)
    teacher = signals("teacher", 16, 2)
    generator = torch.Generator().manual_seed(5)
    maps = {tap: torch.randn(16, *shape, generator=generator) for tap, shape in shapes("student").features.items()}
    free = {tap: values.requires_grad_() for tap, values in maps.items()}
    weight = torch.randn(CLASSES, WIDTH["student"], generator=generator).requires_grad_()
    optimizer = torch.optim.Adam([*free.values(), weight, *objective.parameters()], lr=0.05)
    values = []
    for _ in range(20):
        head = LinearHead(weight, torch.zeros(CLASSES))
        embedding = free["block2"].mean((2, 3))
        student = Signals(head(embedding), embedding, free, head)
        value = total(objective(student, teacher, batch(16, objective.needs.views), 0.5))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.9 * values[0]


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_signal_is_refused_before_the_first_step(name: str):
    needs = build(name).needs
    bare = SignalShapes(logits=CLASSES)
    if needs.teacher <= {"logits"}:
        build_objective(name, {}, shapes("student"), bare, CONTEXT)
    else:
        with pytest.raises(ConfigError, match="signals"):
            build_objective(name, {}, shapes("student"), bare, CONTEXT)


@pytest.mark.parametrize("name", NAMES)
def test_unknown_options_are_refused(name: str):
    with pytest.raises(ConfigError, match=r"no_such_option: unknown key"):
        build_objective(name, {"no_such_option": 1}, shapes("student"), shapes("teacher"), CONTEXT)
