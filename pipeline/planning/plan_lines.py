"""Writes the plan of an experiment in words, as `check` prints it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pipeline.data import described
from pipeline.models import Network
from pipeline.planning.bound import Bound
from pipeline.planning.disks import DvcCache
from pipeline.planning.plan import Plan
from pipeline.progress import size

MANY_FILES = 10_000
"""From so many files on, DVC becomes slow."""


def plan_lines(bound: Bound, plan: Plan) -> Iterator[str]:
    """Yield lines that tell what would be done: data, views, teacher, signals, cache and students.

    Args:
        bound: the experiment.
        plan: what it would do.
    """
    cache, network = plan.caches["training"], bound.teacher
    held = plan.caches["holdout"].samples if "holdout" in plan.caches else 0
    yield f"data      {cache.samples:,} samples to learn from, {held:,} held out, {plan.data.classes or 'no'} classes"
    # Without classes networks are scored without labels, and the split that is reported needs none.
    reported = bound.experiment.evaluate.split if plan.data.classes else None
    for line in described(plan.data.dataset, bound.experiment.data, reported):
        yield f"          {line}"
    experiment = bound.experiment
    drawn = ", ".join(operation.name for operation in experiment.views.operations) or "the images as they are"
    height, width = plan.data.views.output_size or (0, 0)  # views that leave sizes open are refused
    each = f"{width} x {height} pixels, {cache.parameters} stored parameters each"
    yield f"views     {cache.views} per sample, {each}: {drawn}"
    if (mixing := plan.data.views.mixing) is not None:
        yield f"          {mixing} mixes each with another sample: two images are read for a view, and labels mix"
    yield f"teacher   {network.name}, taps {', '.join(network.taps)}"
    yield f"          {_preprocessing(network)}"
    if network.kept is not None and network.kept.new:
        yield f"          will start with weights for other classes: {network.kept}"
    yield f"signals   {sum(cache.bytes_per_view.values()):,} bytes per view; in every encoding, * the chosen one:"
    for line in aligned_table(cache.encodings):
        yield f"            {line.rstrip()}"
    yield f"cache     {experiment.store.path}: {size(cache.total_bytes)} in {cache.files:,} files, made in"
    yield f"          {cache.views * cache.blocks:,} units of work of {cache.rows:,} samples, each of them done once"
    if plan.remote:
        puts, gets, held = plan.remote
        yield f"requests  about {puts:,} puts to make it, {gets:,} gets for an epoch of all signals;"
        yield f"          up to {size(held)} of it in memory in training; DVC tracks a pointer to it"
    elif cache.files > MANY_FILES:
        yield f"warning: more than {MANY_FILES:,} files make DVC slow; raise store.rows_per_block"
    sets, seeds = len(experiment.objectives), len(experiment.runs.seeds)
    times = f" x {sets} objective sets" + (f" x {seeds} seeds" if seeds > 1 else "")
    yield f"students  {plan.runs} runs: {', '.join(bound.students)}{times}"
    for name, student in bound.students.items():
        start = experiment.students[name].start
        begins = f"starts with {start}: {student.kept}" if student.kept else "random weights"
        yield f"          {name}: {student.name}, {_preprocessing(student)}; {begins}"
    for (name, objectives), notes in bound.notes.items():
        yield from (f"note      {name}, {objectives}: {note}" for note in notes)
    if bound.requirements:
        yield from bound.requirements.lines()


def _preprocessing(network: Network) -> str:
    mean, std = (" ".join(f"{value:g}" for value in values) for values in (network.mean, network.std))
    size = network.input_size if isinstance(network.input_size, int) else "{1} x {0}".format(*network.input_size)
    return f"input {size} px {network.interpolation}, mean {mean}, std {std}"


def disk_lines(plan: Plan, dvc: DvcCache | None) -> Iterator[str]:
    """Yield lines that tell what is written, and what every disk must still take.

    Args:
        plan: what would be done.
        dvc: DVC's cache, None without DVC.
    """
    yield "writes    what the commands make (of networks, the weights alone):"
    for artifact in plan.artifacts:
        there = artifact.bytes - artifact.remaining
        part = f", {size(there)} of it there" if there else ""
        note = part if artifact.remaining else ", there already"
        yield f"            {artifact.name:<18} {size(artifact.bytes):>8}  {artifact.path}{note}"
    for disk in plan.disks:
        yield f"disk      {disk.path}: {size(disk.needed)} to write, {size(disk.free)} free"
    if dvc is None:
        return
    copied = [disk for disk in plan.disks if disk.copied]
    if not copied:
        yield "dvc       its cache links to what is written: no second copy"
    for disk in copied:
        more = f"{size(disk.copied)} more on {disk.path}"
        yield f"dvc       its cache at {dvc.folder} copies what it cannot link: {more}"
        if disk.needed + disk.copied > disk.free:
            yield f"warning: {disk.path} is too small for DVC's copy; set cache.dir or cache.type (dvc config)"


def aligned_table(encodings: dict[str, Any]) -> Iterator[str]:
    """Yield a table of bytes per view: a line for every signal and a column for every encoding.

    Args:
        encodings: as of `StoreLayout.encodings`.
    """
    columns = sorted({name for signal in encodings.values() for name in signal["bytes_per_view"]})
    yield " " * 18 + "".join(f"{name:>11} " for name in columns)
    for signal, entry in encodings.items():
        chosen = entry["chosen"] if isinstance(entry["chosen"], str) else entry["chosen"]["name"]
        amounts = {name: f"{amount:,}" for name, amount in entry["bytes_per_view"].items()}
        cells = (f"{amounts.get(name, '-'):>11}{'*' if name == chosen else ' '}" for name in columns)
        yield f"{signal:<18}{''.join(cells)}"
