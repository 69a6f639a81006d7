"""What every objective must do, whoever wrote it. Files in `pipeline/objectives/methods/` are found by themselves."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from cases import case, product
from contracts.objective_cases import (
    CLASSES,
    CONTEXT,
    NAMES,
    OF_EXTRAS,
    SAMPLES,
    VARIANTS,
    WIDTH,
    as_leaves,
    batch,
    build,
    leaves,
    shapes,
    signals,
    total,
)

from pipeline.errors import ConfigError
from pipeline.objectives import MixedLabels, Objective, build_objective
from pipeline.signals import LinearHead, Signals, SignalShapes

LINES = {
    "logits": r"(add `logits: \{\}` to `signals`|needs the teacher's 'logits')",
    "embedding": r"add `embedding: \{\}` to `signals`",
    "features": r"add `features: \{\}` to `signals`",
    "head": "use another objective",  # no line brings a head to a teacher without one
    "extras": r"add `extras: \[[a-z-]+/block\d\]` to `signals`",
}
"""What is to be done if a signal is missing, by its kind."""

RATES = {"ft": 0.02}  # an autoencoder of several layers, which larger steps only shake


def assert_finite_gradients(objective: Objective, student: Signals) -> None:
    for leaf in (*leaves(student), *objective.parameters()):
        assert leaf.grad is None or torch.isfinite(leaf.grad).all()


def test_there_are_some():
    assert {"hard-label", "kd", "lfcc"} <= set(NAMES)
    assert {"at", "fsp", "ickd"} <= set(OF_EXTRAS)


@pytest.mark.parametrize("name", NAMES)
def test_finite_values_and_gradients(name: str):
    for chosen in product(precision=["float32", "autocast", "bfloat16 maps"], scale=[0.0, 1.0, 1e4]):
        with case(**chosen):
            _finite_values_and_gradients(name, **chosen)


def _finite_values_and_gradients(name: str, precision: str, scale: float) -> None:
    maps = torch.bfloat16 if precision == "bfloat16 maps" else torch.float32
    objective, student = build(name), signals("student", 6, 1, scale=scale, grad=True, maps=maps)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision != "float32"):
        value = total(objective(student, signals("teacher", 6, 2, scale=scale), batch(6, objective.needs.views), 0.5))
    assert value.dtype == torch.float32
    assert torch.isfinite(value)
    value.backward()
    assert_finite_gradients(objective, student)


@pytest.mark.parametrize("name", NAMES)
def test_order_of_the_batch_does_not_matter(name: str):
    for chosen in product(n=[8, 80], progress=[0.0, 0.5]):
        with case(**chosen):
            _order_of_the_batch_does_not_matter(name, **chosen)


def _order_of_the_batch_does_not_matter(name: str, n: int, progress: float) -> None:
    views = build(name).needs.views
    student, teacher, b = signals("student", n, 1), signals("teacher", n, 2), batch(n, views)
    samples = torch.randperm(n // views, generator=torch.Generator().manual_seed(0))
    shuffle = (samples[:, None] * views + torch.arange(views)).flatten()

    def permuted(s: Signals) -> Signals:
        features = {tap: values[shuffle] for tap, values in s.features.items()}
        return Signals(s.logits[shuffle], s.embedding[shuffle], features, s.head)

    other = replace(b, labels=b.labels[shuffle], sample=b.sample[shuffle], view=b.view[shuffle])
    torch.testing.assert_close(
        build(name)(student, teacher, b, progress),
        build(name)(permuted(student), permuted(teacher), other, progress),
        rtol=1e-5,
        atol=1e-5,
    )


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_nothing_flows_into_the_teacher_and_something_into_every_own_parameter(name: str, options: dict[str, Any]):
    objective = build(name, options)
    teacher, of_teacher = as_leaves(signals("teacher", 6, 2))
    for progress in (0.0, 0.5):  # some parts learn at one time, and some at another
        student = signals("student", 6, 1, grad=True)
        total(objective(student, teacher, batch(6, objective.needs.views), progress)).backward()
    assert not [which for which, leaf in of_teacher.items() if leaf.grad is not None]
    assert any(leaf.grad is not None and leaf.grad.abs().sum() > 0 for leaf in leaves(student))
    for parameter_name, parameter in objective.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


@pytest.mark.parametrize("name", NAMES)
def test_small_batches(name: str):
    for chosen in product(size=[1, 2, 5], progress=[0.0, 0.5], autocast=[False, True]):
        with case(**chosen):
            _small_batches(name, **chosen)


def _small_batches(name: str, size: int, progress: float, autocast: bool) -> None:
    objective = build(name)
    rows, views = size * objective.needs.views, objective.needs.views
    student = signals("student", rows, 1, grad=True, maps=torch.bfloat16 if autocast else torch.float32)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        value = total(objective(student, signals("teacher", rows, 2), batch(rows, views), progress))
    assert torch.isfinite(value)
    value.backward()
    assert_finite_gradients(objective, student)


@pytest.mark.parametrize("name", NAMES)
def test_the_last_batch_of_an_epoch_is_smaller(name: str):
    """And the next epoch's first is as large as before."""
    for chosen in product(progress=[0.0, 0.5]):
        with case(**chosen):
            _the_last_batch_of_an_epoch_is_smaller(name, **chosen)


def _the_last_batch_of_an_epoch_is_smaller(name: str, progress: float) -> None:
    objective = build(name)
    views = objective.needs.views
    for size in (8, 3, 1, 8):
        student = signals("student", size * views, size, grad=True)
        value = total(objective(student, signals("teacher", size * views, 2), batch(size * views, views), progress))
        assert torch.isfinite(value)
        value.backward()
        assert_finite_gradients(objective, student)


@pytest.mark.parametrize("name", NAMES)
def test_batches_with_two_views_of_each_sample(name: str):
    objective, student = build(name), signals("student", 8, 1, grad=True)
    value = total(objective(student, signals("teacher", 8, 2), batch(8, 2), 0.5))
    assert torch.isfinite(value)
    value.backward()
    assert_finite_gradients(objective, student)


@pytest.mark.parametrize("name", [name for name in NAMES if not build(name).needs.labels])
def test_what_needs_no_labels_works_without(name: str):
    unlabeled, student, teacher = replace(CONTEXT, labels=None), signals("student", 6, 1), signals("teacher", 6, 2)
    objective, b = build(name, context=unlabeled), batch(6, build(name).needs.views)
    without = objective(student, teacher, replace(b, labels=torch.full_like(b.labels, -1)), 0.5)
    assert torch.isfinite(total(without))
    if name != "hard-label":  # which reads labels where there are some
        torch.testing.assert_close(without, build(name)(student, teacher, b, 0.5))


@pytest.mark.parametrize("name", NAMES)
def test_what_wants_one_label_is_refused_where_views_mix_and_all_else_knows_what_to_do(name: str):
    mixing = replace(CONTEXT, mixing="cutmix")
    if build(name).needs.labels:
        with pytest.raises(ConfigError, match="cannot say what a view is that cutmix makes of two samples"):
            build(name, context=mixing)
        return
    objective, b = build(name, context=mixing), batch(6, build(name).needs.views)
    student, teacher = signals("student", 6, 1), signals("teacher", 6, 2)
    mixed = replace(b, mixed=MixedLabels(b.labels.roll(1), torch.full((6,), 0.25)))
    plain, other = (total(each(student, teacher, known, 0.5)) for each, known in ((build(name), b), (objective, mixed)))
    assert (plain == other) == (name != "hard-label")


@pytest.mark.parametrize("name", NAMES)
def test_a_student_that_says_nothing_yet_has_gradients_of_its_size(name: str):
    """A head of zeros, as some networks begin with: logits are 0, and a norm of them is, too."""
    for chosen in product(progress=[0.0, 0.5]):
        with case(**chosen):
            _a_student_that_says_nothing_yet_has_gradients_of_its_size(name, **chosen)


def _a_student_that_says_nothing_yet_has_gradients_of_its_size(name: str, progress: float) -> None:
    objective, student = build(name), signals("student", 6, 1)
    assert student.head is not None
    silent = LinearHead(torch.zeros_like(student.head.weight), torch.zeros_like(student.head.bias))
    student, of_student = as_leaves(replace(student, logits=torch.zeros_like(student.logits), head=silent))
    total(objective(student, signals("teacher", 6, 2), batch(6, objective.needs.views), progress)).backward()
    for which in ("logits", "weight"):
        gradient = of_student[which].grad
        assert gradient is None or gradient.abs().max() < 1e3, which


@pytest.mark.parametrize("name", NAMES)
def test_a_confident_teacher_to_whom_samples_are_alike(name: str):
    """What it says of the samples of a class, in the batch and in the bank, is the same, or nearly."""
    for chosen in product(apart=[0.0, 1e-5, 1e-4], autocast=[False, True]):
        with case(**chosen):
            _a_confident_teacher_to_whom_samples_are_alike(name, **chosen)


def _a_confident_teacher_to_whom_samples_are_alike(name: str, apart: float, autocast: bool) -> None:
    generator = torch.Generator().manual_seed(4)
    labels = torch.arange(SAMPLES) % CLASSES
    centres = {
        "logits": 10 * torch.eye(CLASSES),
        "embedding": torch.randn(CLASSES, WIDTH["teacher"], generator=generator),
    }
    bank = {
        signal: means[labels] + apart * torch.randn(means[labels].shape, generator=generator)
        for signal, means in centres.items()
    }
    context = replace(
        CONTEXT,
        bank=lambda signal, samples, view: bank[signal][samples],
        class_means=lambda: centres["embedding"],
    )
    objective = build(name, context=context)
    b = batch(12, objective.needs.views)
    teacher = replace(signals("teacher", 12, 2), logits=bank["logits"][b.sample], embedding=bank["embedding"][b.sample])
    for progress in (0.0, 0.5):
        student = signals("student", 12, 1, grad=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            value = total(objective(student, teacher, b, progress))
        assert torch.isfinite(value)
        value.backward()
        assert_finite_gradients(objective, student)


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
    """By a tenth, in two steps that follow each other: then no more are taken."""
    for chosen in product(progress=[0.0, 0.5]):
        with case(**chosen):
            _twenty_steps_lower_it(name, **chosen)


def _twenty_steps_lower_it(name: str, progress: float) -> None:
    objective = build(name)
    teacher = signals("teacher", 16, 2)
    generator = torch.Generator().manual_seed(5)
    maps = {tap: torch.randn(16, *shape, generator=generator) for tap, shape in shapes("student").features.items()}
    free = {tap: values.requires_grad_() for tap, values in maps.items()}
    weight = torch.randn(CLASSES, WIDTH["student"], generator=generator).requires_grad_()
    optimizer = torch.optim.Adam([*free.values(), weight, *objective.parameters()], lr=RATES.get(name, 0.05))
    values = []
    for _ in range(20):
        head = LinearHead(weight, torch.zeros(CLASSES))
        embedding = free["block2"].mean((2, 3))
        student = Signals(head(embedding), embedding, free, head)
        value = total(objective(student, teacher, batch(16, objective.needs.views), progress))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
        if max(values[-2:]) < values[0] - 0.1 * abs(values[0]):
            return
    pytest.fail(f"from {values[0]} to {values[-1]}")


@pytest.mark.parametrize(
    ("name", "options", "kind"),
    [
        (name, options, kind)
        for name, options in VARIANTS
        for kind in sorted({signal.partition("/")[0] for signal in build(name, options).needs.teacher})
    ],
)
def test_a_missing_signal_is_refused_with_the_line_that_brings_it(name: str, options: dict[str, Any], kind: str):
    nothing: dict[str, Any] = {"logits": 0, "embedding": None, "features": {}, "head": None, "extras": {}}
    field = {"head": "linear"}.get(kind, kind)
    without = replace(shapes("teacher"), **{field: nothing[kind]})
    with pytest.raises(ConfigError, match=LINES[kind]):
        build_objective(name, options, shapes("student"), without, CONTEXT)


def _headless(who: str) -> SignalShapes:
    """Of a network without a classifier."""
    return replace(shapes(who), logits=0, linear=None, head_classes=0)


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_a_teacher_without_a_classifier_teaches_what_reads_neither_logits_nor_head(name: str, options: dict[str, Any]):
    read = build(name, options).needs.teacher & {"logits", "head"}
    if read:
        with pytest.raises(ConfigError, match=r"needs the teacher's '(logits|head)'"):
            build_objective(name, options, shapes("student"), _headless("teacher"), CONTEXT)
        return
    torch.manual_seed(0)
    objective = build_objective(name, options, shapes("student"), _headless("teacher"), CONTEXT)
    given = (signals("student", 6, 1), signals("teacher", 6, 2), batch(6, objective.needs.views), 0.5)
    bare = replace(given[1], logits=given[1].logits[:, :0], head=None)
    torch.testing.assert_close(objective(given[0], bare, *given[2:]), build(name, options)(*given))


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_logits_that_were_not_kept_are_missed_only_where_they_are_read(name: str, options: dict[str, Any]):
    without = replace(shapes("teacher"), logits=0)
    if "logits" in build(name, options).needs.teacher:
        with pytest.raises(ConfigError, match=r"needs the teacher's 'logits', which the cache does not hold"):
            build_objective(name, options, shapes("student"), without, CONTEXT)
    else:
        build_objective(name, options, shapes("student"), without, CONTEXT)


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_a_student_without_a_classifier_learns_by_what_reads_no_logits_of_it(name: str, options: dict[str, Any]):
    needs = build(name, options).needs
    if "logits" in needs.student | needs.teacher or "head" in needs.teacher:
        with pytest.raises(ConfigError):
            build_objective(name, options, _headless("student"), _headless("teacher"), CONTEXT)
        return
    objective = build_objective(name, options, _headless("student"), _headless("teacher"), CONTEXT)
    student, teacher = (replace(signals(who, 6, 1), head=None) for who in ("student", "teacher"))
    student, teacher = (replace(each, logits=each.logits[:, :0]) for each in (student, teacher))
    assert torch.isfinite(total(objective(student, teacher, batch(6, objective.needs.views), 0.5)))


@pytest.mark.parametrize("name", [name for name in NAMES if build(name).needs.teacher <= {"logits"}])
def test_logits_alone_do_for_what_reads_no_more(name: str):
    bare = replace(shapes("teacher"), embedding=None, features={}, linear=None, extras={})
    build_objective(name, {}, shapes("student"), bare, CONTEXT)


@pytest.mark.parametrize("name", NAMES)
def test_unknown_options_are_refused(name: str):
    with pytest.raises(ConfigError, match=r"no_such_option: unknown key"):
        build_objective(name, {"no_such_option": 1}, shapes("student"), shapes("teacher"), CONTEXT)
