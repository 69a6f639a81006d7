"""What every objective must do, whoever wrote it. Files in `pipeline/objectives/methods/` are found by themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from contracts.keeping import require_kept
from contracts.objective_cases import (
    CONTEXT,
    NAMES,
    OF_EXTRAS,
    VARIANTS,
    batch,
    build,
    shapes,
    signals,
    total,
)

from pipeline.contracts.objectives import ObjectiveContract
from pipeline.errors import ConfigError
from pipeline.objectives import MixedLabels, build_objective
from pipeline.signals import SignalShapes

LINES = {
    "logits": r"(add `logits: \{\}` to `signals`|needs the teacher's 'logits')",
    "embedding": r"add `embedding: \{\}` to `signals`",
    "features": r"add `features: \{\}` to `signals`",
    "head": "use another objective",  # no line brings a head to a teacher without one
    "extras": r"add `extras: \[[a-z-]+/block\d\]` to `signals`",
}
"""What is to be done if a signal is missing, by its kind."""


OF_LABELS = ("what_needs_no_labels_does_without", "mixed_views_are_learnt_from_or_refused")
"""Checks that are not tried of a method that needs labels."""


@pytest.mark.parametrize(
    ("name", "options"), VARIANTS, ids=[",".join([name, *each.values()]) for name, each in VARIANTS]
)
def test_contract(name: str, options: dict[str, Any]):
    """What `pipeline contract` tries."""
    of_labels = OF_LABELS if build(name, options).needs.labels else ()
    require_kept(ObjectiveContract(name, options), ("values_of_samples_are_one_for_each", *of_labels))


def test_there_are_some():
    assert {"hard-label", "kd", "lfcc"} <= set(NAMES)
    assert {"at", "fsp", "ickd"} <= set(OF_EXTRAS)


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
