"""Finds out which signals of the teacher the students need, and which would do where the configured ones do not."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import product
from typing import Any

from pipeline import plugins
from pipeline.errors import Problem
from pipeline.experiment.data import Data
from pipeline.experiment.networks import shapes_of
from pipeline.experiment.objective_set import ObjectiveBuilder
from pipeline.models import Network
from pipeline.objectives import ObjectiveEntry
from pipeline.objectives.neighbours import few_groups
from pipeline.planning.draft import Assembly, collected
from pipeline.planning.named_teachers import renumbered, without_absent
from pipeline.planning.narrowed import keeping_signals, layout_of_view
from pipeline.planning.requirements import Requirements, SignalsRead
from pipeline.signals import (
    EmbeddingConfig,
    ExtraConfig,
    FeaturesConfig,
    LogitsConfig,
    SignalsConfig,
    SignalShapes,
    maps_read,
)
from pipeline.signals.extra import EXTRAS
from pipeline.store.format.layout import StoreLayout
from pipeline.store.making.teacher_pass import chosen_blocks
from pipeline.training.gpu_settings import refuse_prepared


def required_signals(parts: Assembly) -> Requirements | None:
    """Bind every student to every objective set, and return what they need of the teacher.

    Args:
        parts: the experiment; takes all that is wrong.

    Returns None without students, objective sets, data or teacher.
    """
    data, teacher, shapes = parts.data, parts.teacher, parts.shapes
    if data is None or teacher is None or shapes is None:
        return None
    before = len(parts.problems)
    needs = bind_objectives(parts, data, shapes)
    if len(parts.problems) > before:
        return _serving(parts, data, teacher, whole=not before)
    section = keeping_signals(teacher, parts.draft.signals, _read_by_any(needs))
    return _requirements(teacher, parts, needs, section) if needs else None


def bind_objectives(parts: Assembly, data: Data, teacher: SignalShapes) -> dict[tuple[str, str], frozenset[str]]:
    """Bind every student to every objective set; return the teacher's signals that are read, by both names.

    Args:
        parts: the experiment; takes all that is wrong, and notes.
        data: its packed data set.
        teacher: the shapes of what is kept of it.

    No objective is refused for views where their number is unknown.
    """
    needs = {}
    for name, network in parts.students.items():
        views = parts.views_per_step.get(name, sys.maxsize)
        for objectives, config in parts.draft.objectives.items():
            present, numbers = without_absent(parts, config)
            needs[name, objectives], place = frozenset[str](), f"objectives.{config.place(objectives)}"
            found: list[Problem] = []
            with collected(found, note=f" (student {name})"):
                if not present.objectives and config.objectives:
                    continue  # nothing is known of any of its teachers
                own, others = parts.own, parts.others
                builder = ObjectiveBuilder(shapes_of(network), teacher, data, 0, None, views, own, others)
                built = builder.build(objectives, present)
                if name in parts.captured:
                    refuse_prepared(built)
                needs[name, objectives] = built.needs.teacher
                few = few_groups(built.needs.neighbours, parts.samples_per_batch.get(name, sys.maxsize))
                parts.notes[name, objectives] = [*built.notes, *few]
                parts.named_needs[name, objectives] = built.needs_of_others
            parts.problems += [renumbered(problem, place, numbers) for problem in found]
    return needs


def _serving(parts: Assembly, data: Data, teacher: Network, *, whole: bool) -> Requirements:
    """Return what all objectives need that some section could serve, and that section.

    Every objective gets the fewest blocks, from the deepest, that it can be built with. whole: nothing else is wrong
    with the experiment. Else, or if an objective cannot be served, the section leaves nothing out, since what that
    objective needs is not known.
    """
    draft = parts.draft
    sets = [(name, entry) for name, config in draft.objectives.items() for entry in config.objectives]
    each = [(student, *one) for student in parts.students for one in sets]

    def read(student: str, name: str, entry: ObjectiveEntry, shapes: SignalShapes) -> frozenset[str] | None:
        """Return what the objective reads of these signals; None if it cannot be built."""
        only = draft.objectives[name].model_copy(update={"objectives": (entry,)})
        alone = draft.model_copy(update={"objectives": {name: only}})
        tried = replace(
            parts, draft=alone, students={student: parts.students[student]}, problems=[], notes={}, named_needs={}
        )
        needs = bind_objectives(tried, data, shapes)
        return None if tried.problems else needs[student, name]

    offers = _offers(teacher, draft.signals)
    for one in each:
        for signals, plan in offers:
            needs = read(*one, plan.shapes)
            if needs is not None:
                served = offers[0][1].bytes_per_view.keys()
                if more := (needs & plan.bytes_per_view.keys()) - served:
                    offers = _offers(teacher, keeping_signals(teacher, signals, served | more))
                break
    signals, plan = offers[0]
    every: dict[tuple[str, str], frozenset[str]] = {}
    for one in each:
        student, name, _ = one
        needs = read(*one, plan.shapes)
        whole = whole and needs is not None
        every[student, name] = every.get((student, name), frozenset()) | (needs or frozenset())
    section = keeping_signals(teacher, signals, _read_by_any(every)) if whole else signals
    return _requirements(teacher, parts, every, section)


def _requirements(teacher: Network, parts: Assembly, needs: SignalsRead, section: SignalsConfig) -> Requirements:
    """Compare a section with that of the experiment, by the bytes that both take."""
    draft = parts.draft
    fresh = frozenset(name for name, config in draft.objectives.items() if config.fresh)
    kept, wanted = (layout_of_view(teacher, each).bytes_per_view for each in (draft.signals, section))
    return Requirements.of(needs, section, fresh, parts.named_needs, kept=kept, wanted=wanted)


def _read_by_any(needs: SignalsRead) -> frozenset[str]:
    """Return the teacher's signals that some student reads."""
    return frozenset().union(*needs.values())


def _offers(teacher: Network, signals: SignalsConfig) -> list[tuple[SignalsConfig, StoreLayout]]:
    """Return the section, and larger ones: with logits and embedding, the deepest block too, the next one, and so on.

    With each block every extra signal that can be computed from those offered so far, and once more with `final`, if
    the teacher's head reads that.
    """
    taps = list(teacher.taps)
    blocks = [tap for tap in taps if tap.removeprefix("block").isdigit()]
    known, kept = {extra.name for extra in signals.extras}, chosen_blocks(taps, signals)
    offers = [signals]
    ends = ((), ("final",)) if teacher.linear_final else ((),)
    for count, end in product(range(len(blocks) + 1), ends):
        deepest = blocks[len(blocks) - count :]
        last = {file: max(0, count + 1 - maps_read(file)) for file in plugins.names(EXTRAS)}
        names = [f"{file}/{tap}" for file, most in last.items() for tap in deepest[:most]]
        maps = tuple(tap for tap in taps if tap in kept or tap in deepest or tap in end)
        more: dict[str, Any] = {
            "logits": signals.logits or (LogitsConfig() if "logits" in teacher.taps else None),
            "embedding": signals.embedding or EmbeddingConfig(),
            "extras": (*signals.extras, *(ExtraConfig(name=name) for name in names if name not in known)),
            "features": (signals.features or FeaturesConfig()).model_copy(update={"blocks": maps}) if maps else None,
        }
        offers.append(signals.model_copy(update=more))
    return [(offer, layout_of_view(teacher, offer)) for offer in offers]
