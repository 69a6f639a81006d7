"""Shows what an evaluation found beyond its figures: calibration, classes, mistakes, differences and the cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from pipeline.progress import size
from pipeline.reporting import tables
from pipeline.reporting.details import CacheFigures, CalibrationFigures, Details, NetworkDetails, RunDetails
from pipeline.reporting.drawing import Axis, Chart
from pipeline.reporting.front import Choice
from pipeline.reporting.page_table import Cell
from pipeline.reporting.styles import Styles
from pipeline.reporting.summary import SummaryRow

LISTED, PAIRS, COMPARED = 5, 8, 4
"""Classes that a sentence names, mistakes of a table, and students that the table of classes compares."""

TITLED = 60
"""Dots of a chart of classes that have a title: those that are furthest from the teacher."""

SHARE = Axis(-0.02, 1.02, (0.0, 0.25, 0.5, 0.75, 1.0), lambda value: f"{100 * value:.0f}")
"""An axis of shares, in percent."""


def calibration_charts(details: Details, shown: Sequence[SummaryRow], styles: Styles) -> list[dict[str, Any]]:
    """Draw how often networks are right, by their confidence: the teacher first. Seeds of a student are added up.

    Args:
        details: of the evaluation.
        shown: the students that have charts.
        styles: of sets.
    """
    found = []
    if details.teacher and details.teacher.calibration:
        found.append({"name": "teacher", "chart": _reliability([details.teacher.calibration], "currentColor")})
    for row in shown:
        known = [each.calibration for each in details.of(row.student, row.objectives) if each.calibration]
        if known:
            name = f"{row.student}, {row.objectives}"
            found.append({"name": name, "chart": _reliability(known, styles.colours[row.objectives])})
    return found


def _reliability(parts: Sequence[CalibrationFigures], colour: str) -> Markup:
    counts, right = (np.sum([getattr(part, name) for part in parts], axis=0) for name in ("counts", "right"))
    confidence = np.sum([part.confidence for part in parts], axis=0)
    total, bins = max(int(counts.sum()), 1), len(counts)
    chart = Chart(SHARE, SHARE, "confidence (%)", "right (%)")
    for m in range(bins):
        if counts[m]:
            share = right[m] / counts[m]
            sure, part = confidence[m] / counts[m], counts[m] / total
            title = f"{part:.1%} of images: sure to {sure:.1%}, right in {share:.1%}"
            chart.bar(m / bins, 1 / bins, share, colour, title, opacity=0.25 + 0.75 * min(1.0, 4 * part))
    chart.line([(0, 0), (1, 1)], dash="5 4", width=1)
    error = np.abs(right - confidence).sum() / total
    chart.note(f"ECE {error:.2%} of {total:,}" if len(parts) == 1 else f"ECE {error:.2%}, {len(parts)} seeds together")
    return chart.svg("Share of right answers by confidence")


def class_charts(details: Details, shown: Sequence[SummaryRow], styles: Styles) -> list[dict[str, Any]]:
    """Draw the accuracy on every class over the teacher's: one dot a class, below the line where the student is worse.

    Args:
        details: of the evaluation.
        shown: the students that have charts.
        styles: of sets.
    """
    if details.teacher is None or (theirs := _accuracies([details.teacher], details)) is None:
        return []
    found = []
    for row in shown:
        own = _accuracies(details.of(row.student, row.objectives), details)
        if own is None:
            continue
        chart = Chart(SHARE, SHARE, "teacher (%)", "student (%)")
        chart.line([(0, 0), (1, 1)], dash="5 4", width=1)
        titled = set(np.argsort(-np.abs(np.nan_to_num(own - theirs)), kind="stable")[:TITLED].tolist())
        for k in np.flatnonzero(np.isfinite(own)).tolist():
            title = f"{details.classes[k]}: {own[k]:.1%}, teacher {theirs[k]:.1%}" if k in titled else ""
            chart.dot(float(theirs[k]), float(own[k]), styles.colours[row.objectives], title)
        found.append({"name": f"{row.student}, {row.objectives}", "chart": chart.svg("Accuracy by class")})
    return found


def _accuracies(runs: Sequence[NetworkDetails], details: Details) -> NDArray[np.float64] | None:
    """Return the accuracy on every class, mean over runs, [K]; NaN without images; None if it is not known."""
    known = [run.right for run in runs if run.right is not None]
    if not known or details.labels is None:
        return None
    labels = np.asarray(details.labels, np.float64)
    shares = np.full(len(labels), np.nan)
    np.divide(np.mean(known, axis=0), labels, out=shares, where=labels > 0)
    return shares


def class_sentences(details: Details, row: SummaryRow) -> list[str]:
    """Say which classes a student loses most, and gains, beside the teacher.

    Args:
        details: of the evaluation.
        row: the student.
    """
    own = _accuracies(details.of(row.student, row.objectives), details)
    theirs = _accuracies([details.teacher], details) if details.teacher else None
    if own is None or theirs is None:
        return []
    gaps = np.where(np.isfinite(own), 100 * (own - theirs), 0.0)
    order = np.argsort(gaps, kind="stable")
    said = []
    for words, places in (("loses most on", order), ("is ahead on", order[::-1])):
        chosen = [k for k in places[:LISTED].tolist() if (gaps[k] < 0) == (words == "loses most on") and gaps[k]]
        if chosen:
            gap = {k: f"{gaps[k]:+.1f}".replace("-", "−") for k in chosen}
            names = ", ".join(f"{details.classes[k]} ({gap[k]})" for k in chosen)
            said.append(f"Beside the teacher, {row.student} by {row.objectives} {words} {names} points.")
    return said


def class_table(details: Details, shown: Sequence[SummaryRow], choice: Choice | None) -> dict[str, Any] | None:
    """Return headings and rows of the table of classes, of the students that lead; None if it is not known.

    Args:
        details: of the evaluation.
        shown: the students that have charts.
        choice: comes first.
    """
    if details.labels is None:
        return None
    first = [row for row in shown if choice and row is choice.row]
    rows = [*first, *(row for row in shown if row not in first)][:COMPARED]
    columns = [(f"{row.student}, {row.objectives} (%)", _accuracies(details.of(row.student, row.objectives), details))
               for row in rows]  # fmt: skip
    teacher = [("teacher (%)", _accuracies([details.teacher], details))] if details.teacher else []
    known = [(name, values) for name, values in (*teacher, *columns) if values is not None]
    if not known:
        return None
    lines = []
    for k, name in enumerate(details.classes):
        cells = [Cell(f"{details.labels[k]:,}", details.labels[k])]
        for _, values in known:
            there = bool(np.isfinite(values[k]))
            cells.append(Cell(f"{100 * values[k]:.1f}", float(values[k])) if there else Cell(tables.UNKNOWN, None))
        lines.append({"name": name, "cells": cells})
    return {"heads": ["class", "images", *(name for name, _ in known)], "lines": lines}


def mistakes(details: Details, shown: Sequence[SummaryRow]) -> list[dict[str, Any]]:
    """Return the commonest mistakes of students, mean over seeds, beside how often the teacher makes each.

    Args:
        details: of the evaluation.
        shown: the students.
    """
    found = []
    for row in shown:
        runs = details.of(row.student, row.objectives)
        sums: dict[tuple[int, int], int] = {}
        for run in runs:
            for label, named, count in run.confusions:
                sums[label, named] = sums.get((label, named), 0) + count
        pairs = sorted(sums.items(), key=lambda item: (-item[1], item[0]))[:PAIRS]
        lines = [
            {
                "label": details.classes[label],
                "named": details.classes[named],
                "count": f"{count / len(runs):.3g}",
                "of": f"{details.labels[label]:,}" if details.labels else tables.UNKNOWN,
                "teacher": _teachers(details, label, named),
            }
            for (label, named), count in pairs
        ]
        if lines:
            found.append({"row": row, "lines": lines, "cut": _cut(details, runs)})
    return found


def _cut(details: Details, runs: Sequence[RunDetails]) -> str | None:
    """Say which mistakes of runs are not kept; None if all are."""
    for run in runs:
        if details.labels is not None and run.right is not None:
            kept, wrong = sum(count for *_, count in run.confusions), sum(details.labels) - sum(run.right)
            if kept < wrong:
                what = f"Of each seed the {len(run.confusions)} commonest pairs of classes are kept"
                return (
                    f"{what}, such as {kept:,} of {wrong:,} mistakes: a pair that is rarer in a seed counts as 0 there."
                )
    return None


def _teachers(details: Details, label: int, named: int) -> str:
    """Return how often the teacher makes a mistake; of rare ones it is not kept."""
    if details.teacher is None:
        return tables.UNKNOWN
    kept = {(a, b): count for a, b, count in details.teacher.confusions}
    if (label, named) in kept:
        return str(kept[label, named])
    fewest = min(kept.values(), default=0)
    return "0" if len(kept) < max((len(each.confusions) for each in details.students), default=0) else f"≤ {fewest}"


def galleries(details: Details, shown: Sequence[SummaryRow]) -> list[dict[str, Any]]:
    """Return images that students and the teacher see differently, with both answers.

    Args:
        details: of the evaluation.
        shown: the students.
    """
    found = []
    for row in shown:
        runs = details.of(row.student, row.objectives)
        run = next((each for each in runs if each.differences), None)
        if run is not None:
            count = sum(details.labels) if details.labels else None
            tiles = [_tile(details, run, place) for place in range(len(run.differences))]
            found.append({"row": row, "run": run, "count": count, "tiles": tiles})
    return found


def _tile(details: Details, run: RunDetails, place: int) -> dict[str, Any]:
    one = run.differences[place]
    picture = details.pictures[one.picture]
    label = None if picture.label is None else details.classes[picture.label]
    answers = [
        {"who": who, "name": details.classes[k], "share": f"{share:.0%}", "right": k == picture.label}
        for who, k, share in (
            ("student", one.student, one.probability),
            ("teacher", one.teacher, one.teacher_probability),
        )
    ]
    return {"picture": picture, "label": label, "answers": answers}


def cache_facts(cache: CacheFigures) -> list[tuple[str, str]]:
    """Return what a cache is, as pairs of a word and a text.

    Args:
        cache: of the evaluation.
    """
    signals = ", ".join(f"{name} as {encoding} ({size(amount)} a view)" for name, encoding, amount in cache.signals)
    drawn = f", drawn by {', '.join(cache.operations)}" if cache.operations else ", as they are"
    facts = [
        ("teacher", cache.teacher),
        ("views", f"{cache.views:,} of each of {cache.samples:,} samples{drawn}"),
        ("signals", signals),
        ("bytes of signals", size(cache.signal_bytes)),
    ]
    if cache.accuracy is not None:
        text = f"names the label of {cache.accuracy:.1%} of {cache.accuracy_views:,} cached views"
        facts.append(("the teacher's fidelity to labels", text))
    return facts
