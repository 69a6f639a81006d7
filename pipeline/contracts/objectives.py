"""Tries what every objective must keep, on one objective."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from pipeline.contracts.checks import NotTried
from pipeline.contracts.objective_signals import (
    TRIED_CLASSES,
    TRIED_CONTEXT,
    TRIED_SAMPLES,
    TRIED_WIDTH,
    as_leaves,
    maps_of,
    sum_of_terms,
    tried_batch,
    tried_shapes,
    tried_signals,
)
from pipeline.errors import ConfigError
from pipeline.objectives import Context, MixedLabels, Objective, build_objective
from pipeline.objectives.sample_objective import SampleObjective
from pipeline.signals import LinearHead, Signals, SignalShapes

HALFWAY = (0.0, 0.5)
"""The progress of training at which objectives are tried: some have parts that begin later."""

RATES = (0.05, 0.02)
"""Learning rates, of which one is to lower an objective: larger steps only shake some that have several layers."""


class ObjectiveContract:
    """Holds the checks of one objective.

    Args:
        name: of the objective, as in a configuration.
        options: those that are not the defaults.
    """

    def __init__(self, name: str, options: Mapping[str, Any] | None = None) -> None:
        self._name, self._options = name, dict(options or {})
        self._views = self._build().needs.views

    def _build(
        self,
        context: Context = TRIED_CONTEXT,
        teacher: SignalShapes | None = None,
        student: SignalShapes | None = None,
    ) -> Objective:
        shapes = student or tried_shapes("student"), teacher or tried_shapes("teacher")
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            return build_objective(self._name, self._options, *shapes, context)

    def _refused(self, **missing: Any) -> bool:
        """Whether a teacher without some signals is refused."""
        try:
            self._build(teacher=replace(tried_shapes("teacher"), **missing))
        except ConfigError:
            return True
        return False

    def unknown_options_are_refused(self) -> None:
        """Set an option that does not exist."""
        options = {**self._options, "no_such_option": 1}
        said = ""
        try:
            build_objective(self._name, options, tried_shapes("student"), tried_shapes("teacher"), TRIED_CONTEXT)
        except ConfigError as error:
            said = str(error)
        assert "no_such_option: unknown key" in said, "an unknown option is not refused"

    def values_and_gradients_are_finite(self) -> None:
        """Compare signals that are zero, usual and large, in three precisions."""
        for precision, scale in itertools.product(("float32", "autocast", "bfloat16 maps"), (0.0, 1.0, 1e4)):
            maps, where = torch.bfloat16 if precision == "bfloat16 maps" else torch.float32, f"{precision}, {scale=}"
            objective, student = self._build(), tried_signals("student", 6, 1, scale=scale, grad=True, maps=maps)
            with torch.autocast("cpu", torch.bfloat16, enabled=precision != "float32"):
                teacher = tried_signals("teacher", 6, 2, scale=scale)
                value = sum_of_terms(objective(student, teacher, tried_batch(6, self._views), 0.5))
            _learn(objective, student, value, where)

    def batches_of_any_size_are_learnt_from(self) -> None:
        """Compare batches of one, two, five and eight samples: smaller ones after larger ones, and the largest last."""
        for progress, autocast in itertools.product(HALFWAY, (False, True)):
            objective, maps = self._build(), torch.bfloat16 if autocast else torch.float32
            for size in (5, 2, 1, 8):
                student = tried_signals("student", size * self._views, size, grad=True, maps=maps)
                with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                    teacher = tried_signals("teacher", size * self._views, 2)
                    terms = objective(student, teacher, tried_batch(size * self._views, self._views), progress)
                    value = sum_of_terms(terms)
                _learn(objective, student, value, f"{size} samples, {progress=}, {autocast=}")

    def several_views_of_a_sample_are_learnt_from(self) -> None:
        """Compare a batch with two views of each sample."""
        objective, student = self._build(), tried_signals("student", 8, 1, grad=True)
        value = sum_of_terms(objective(student, tried_signals("teacher", 8, 2), tried_batch(8, 2), 0.5))
        _learn(objective, student, value, "two views of each sample")

    def the_order_of_the_batch_does_not_matter(self) -> None:
        """Compare the samples of a batch in another order."""
        for n, progress in itertools.product((8, 66), HALFWAY):  # CRCD draws 64 of more
            student, teacher = tried_signals("student", n, 1), tried_signals("teacher", n, 2)
            given = tried_batch(n, self._views)
            samples = torch.randperm(n // self._views, generator=torch.Generator().manual_seed(0))
            order = (samples[:, None] * self._views + torch.arange(self._views)).flatten()
            other = replace(given, labels=given.labels[order], sample=given.sample[order], view=given.view[order])
            first = self._build()(student, teacher, given, progress)
            second = self._build()(_in_order(student, order), _in_order(teacher, order), other, progress)
            torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-5)

    def values_of_samples_are_one_for_each(self) -> None:
        """Compare the samples of a batch backwards, if each has a value of its own."""
        objective, n = self._build(), 4 * self._views
        if not isinstance(objective, SampleObjective):
            raise NotTried("it has no loss of every sample by itself, and is refused with teacher_dropping")
        student, teacher, given = tried_signals("student", n, 1), tried_signals("teacher", n, 2), tried_batch(n)
        objective.prepare(given, 0.5)
        values, order = objective.of_samples(student, teacher, given, 0.5), torch.arange(n).flip(0)
        wrong = [term for term, value in values.items() if value.shape != (n,)]
        assert not wrong, f"these terms are not [B], a value of every sample: {', '.join(wrong)}"
        turned = _in_order(student, order), _in_order(teacher, order)
        labels, sample, view = given.labels[order], given.sample[order], given.view[order]
        backwards = replace(given, labels=labels, sample=sample, view=view)
        again = self._build()  # since some remember what they saw
        again.prepare(backwards, 0.5)
        assert isinstance(again, SampleObjective)
        found = again.of_samples(*turned, backwards, 0.5)
        ordered = {term: value[order] for term, value in values.items()}
        torch.testing.assert_close(found, ordered, rtol=1e-5, atol=1e-5)

    def gradients_reach_the_student_and_every_parameter_and_no_teacher(self) -> None:
        """Learn at two times: some parts learn at one of them alone."""
        objective, (teacher, of_teacher) = self._build(), as_leaves(tried_signals("teacher", 6, 2))
        student = tried_signals("student", 6, 1, grad=True)
        for progress in HALFWAY:
            student = tried_signals("student", 6, 1, grad=True)
            torch.autograd.backward([sum_of_terms(objective(student, teacher, tried_batch(6, self._views), progress))])
        reached = [name for name, leaf in of_teacher.items() if leaf.grad is not None]
        assert not reached, f"a gradient flows into the teacher's {', '.join(reached)}"
        learnt = any(leaf.grad is not None and leaf.grad.abs().sum() > 0 for leaf in maps_of(student))
        assert learnt, "no gradient flows into the student"
        idle = [name for name, each in objective.named_parameters() if each.grad is None or not each.grad.any()]
        assert not idle, f"no gradient flows into its own {', '.join(idle)}"

    def a_student_whose_head_is_zero_has_usual_gradients(self) -> None:
        """Compare logits of zero: some networks begin so, and a norm of them has no slope there."""
        for progress in HALFWAY:
            objective, student = self._build(), tried_signals("student", 6, 1)
            assert student.head is not None
            silent = LinearHead(torch.zeros_like(student.head.weight), torch.zeros_like(student.head.bias))
            student, leaves = as_leaves(replace(student, logits=torch.zeros_like(student.logits), head=silent))
            terms = objective(student, tried_signals("teacher", 6, 2), tried_batch(6, self._views), progress)
            torch.autograd.backward([sum_of_terms(terms)])
            for name in ("logits", "weight"):
                gradient = leaves[name].grad
                usual = gradient is None or bool(gradient.abs().max() < 1e3)
                assert usual, f"the gradient of the {name} is 1000 or more, or not finite"

    def a_teacher_to_whom_samples_are_alike_is_learnt_from(self) -> None:
        """Compare with a confident teacher, whose outputs of the samples of a class are the same, or nearly."""
        generator, labels = torch.Generator().manual_seed(4), torch.arange(TRIED_SAMPLES) % TRIED_CLASSES
        embedding = torch.randn(TRIED_CLASSES, TRIED_WIDTH["teacher"], generator=generator)
        centres = {"logits": 10 * torch.eye(TRIED_CLASSES), "embedding": embedding}
        for apart, autocast in itertools.product((0.0, 1e-5, 1e-4), (False, True)):
            noise = {signal: torch.randn(means[labels].shape, generator=generator) for signal, means in centres.items()}
            bank = {signal: means[labels] + apart * noise[signal] for signal, means in centres.items()}

            def remembered(
                signal: str, samples: torch.Tensor, _: int, bank: Mapping[str, torch.Tensor] = bank
            ) -> torch.Tensor:
                return bank[signal][samples]

            context = replace(TRIED_CONTEXT, bank=remembered, class_means=lambda: embedding)
            objective, given = self._build(context), tried_batch(12, self._views)
            logits, vectors = (bank[signal][given.sample] for signal in ("logits", "embedding"))
            teacher = replace(tried_signals("teacher", 12, 2), logits=logits, embedding=vectors)
            for progress in HALFWAY:
                student = tried_signals("student", 12, 1, grad=True)
                with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                    value = sum_of_terms(objective(student, teacher, given, progress))
                _learn(objective, student, value, f"{apart=}, {progress=}, {autocast=}")

    def what_needs_no_labels_does_without(self) -> None:
        """Compare a batch without labels."""
        if self._build().needs.labels:
            raise NotTried("it needs labels, and says so")
        given = tried_batch(6, self._views)
        without = replace(given, labels=torch.full_like(given.labels, -1))
        objective = self._build(replace(TRIED_CONTEXT, labels=None))
        terms = objective(tried_signals("student", 6, 1), tried_signals("teacher", 6, 2), without, 0.5)
        assert sum_of_terms(terms).isfinite(), "without labels the value is not finite"

    def mixed_views_are_learnt_from_or_refused(self) -> None:
        """Compare views that mix two samples; what needs one label of each is refused before."""
        context, given = replace(TRIED_CONTEXT, mixing="cutmix"), tried_batch(6, self._views)
        if self._build().needs.labels:
            raise NotTried("it needs a label of each view, and is refused where views mix")
        mixed = replace(given, mixed=MixedLabels(given.labels.roll(1), torch.full((6,), 0.25)))
        terms = self._build(context)(tried_signals("student", 6, 1), tried_signals("teacher", 6, 2), mixed, 0.5)
        assert sum_of_terms(terms).isfinite(), "of mixed views the value is not finite"

    def its_state_is_all_there_is(self) -> None:
        """Load its state into another, and compare with both."""
        objective = self._build()
        student, teacher = tried_signals("student", 6, 1), tried_signals("teacher", 6, 2)
        given = tried_batch(6, self._views)
        objective(student, teacher, given, 0.1)
        other = build_objective(
            self._name, self._options, tried_shapes("student"), tried_shapes("teacher"), TRIED_CONTEXT
        )
        other.load_state_dict(copy.deepcopy(objective.state_dict()))
        first, second = (each(student, teacher, given, 0.2) for each in (objective, other))
        same = all(torch.equal(first[term], second[term]) for term in first)
        assert same, "what a checkpoint keeps of it does not decide its value"

    def twenty_steps_lower_it(self) -> None:
        """Take steps of Adam until it is lower by a tenth in two steps that follow each other."""
        for progress in HALFWAY:
            assert any(self._is_lowered(progress, rate) for rate in RATES), f"it does not fall at {progress=}"

    def _is_lowered(self, progress: float, rate: float) -> bool:
        objective, teacher = self._build(), tried_signals("teacher", 16, 2)
        generator, values = torch.Generator().manual_seed(5), list[float]()
        shapes = tried_shapes("student").features
        free = {tap: torch.randn(16, *shape, generator=generator).requires_grad_() for tap, shape in shapes.items()}
        weight = torch.randn(TRIED_CLASSES, TRIED_WIDTH["student"], generator=generator).requires_grad_()
        optimizer = torch.optim.Adam([*free.values(), weight, *objective.parameters()], lr=rate)
        for _ in range(20):
            head, embedding = LinearHead(weight, torch.zeros(TRIED_CLASSES)), free["block2"].mean((2, 3))
            student = Signals(head(embedding), embedding, free, head)
            value = sum_of_terms(objective(student, teacher, tried_batch(16, self._views), progress))
            optimizer.zero_grad()
            torch.autograd.backward([value])
            optimizer.step()
            values.append(value.item())
            if max(values[-2:]) < values[0] - 0.1 * abs(values[0]):
                return True
        return False

    def signals_that_it_needs_are_missed_before_it_is_used(self) -> None:
        """Build it for teachers that lack what it says that it needs, and for those that lack all else."""
        nothing: dict[str, Any] = {"logits": 0, "embedding": None, "features": {}, "head": None, "extras": {}}
        needs = {signal.partition("/")[0] for signal in self._build().needs.teacher}
        for kind in needs:
            missing = {{"head": "linear"}.get(kind, kind): nothing[kind]}
            assert self._refused(**missing), f"a teacher without {kind} is not refused"
        if not needs & {"features", "extras"}:  # what maps there are decides which others are read
            idle = {{"head": "linear"}.get(kind, kind): nothing[kind] for kind in nothing if kind not in needs}
            assert not self._refused(**idle), f"it needs more of the teacher than it says: {', '.join(sorted(needs))}"


def _learn(objective: Objective, student: Signals, value: torch.Tensor, where: str) -> None:
    """Compute gradients; value and gradients are to be finite."""
    assert value.dtype == torch.float32, f"the value is {value.dtype}, not float32: {where}"
    assert value.isfinite(), f"the value is not finite: {where}"
    torch.autograd.backward([value])
    for leaf in (*maps_of(student), *objective.parameters()):
        assert leaf.grad is None or leaf.grad.isfinite().all(), f"a gradient is not finite: {where}"


def _in_order(signals: Signals, order: torch.Tensor) -> Signals:
    """The signals of the samples in another order."""
    assert signals.embedding is not None
    features = {tap: values[order] for tap, values in signals.features.items()}
    extras = {name: values[order] for name, values in signals.extras.items()}
    return Signals(signals.logits[order], signals.embedding[order], features, signals.head, extras)
