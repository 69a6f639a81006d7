"""Makes a teacher cache: runs the teacher once over every view and writes down what it says."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import CacheCorrupt
from pipeline.files import write_atomic
from pipeline.progress import Progress, Silent
from pipeline.signals import Signals, SignalsConfig
from pipeline.store.arrays import STATIC, Unit
from pipeline.store.artifacts import finished
from pipeline.store.filling import Filling, Task, rendered_ahead, tasks_of
from pipeline.store.fingerprint import fingerprint
from pipeline.store.identity import (
    cache_identity,
    data_identity,
    signals_identity,
    teacher_identity,
    views_identity,
)
from pipeline.store.layout import StorePlan, plan
from pipeline.store.manifest import Manifest
from pipeline.store.provenance import Runs
from pipeline.store.scratch import Scratch, say
from pipeline.store.teacher_pass import Answer, Precision, Rendered, TeacherPass
from pipeline.store.writer import CacheWriter, explained, missing
from pipeline.store.zarr_files import metadata_files

if TYPE_CHECKING:
    from pipeline.data import Samples
    from pipeline.models import Network
    from pipeline.views import Views


def cache_teacher(
    network: Network,
    samples: Samples,
    views: Views,
    signals: SignalsConfig,
    *,
    target: Path,
    precision: Precision = "bfloat16",
    micro_batch: int = 256,
    device: torch.device | str = "auto",
    rows_per_block: int | None = None,
    progress: Progress | None = None,
    replace: bool = False,
    wait: bool = True,
    notify: Callable[[str], None] = say,
) -> Path:
    """Make the teacher cache at `target`, going on from what an earlier run finished; returns its path.

    A cache of the same identity that is there already is left alone. replace: another may be replaced. wait:
    for another process that makes the same. Raises CacheError: a signal that is not finite or does not fit its
    encoding, a full disk, another artifact at the target.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    teacher = TeacherPass(
        network,
        samples,
        views,
        signals,
        device=torch.device(device),
        precision=precision,
        micro_batch=micro_batch,
    )
    with teacher.ready():
        probe = _probe(teacher)
        identity, layout = _describe(teacher, probe, rows_per_block)
        name = fingerprint(identity)
        if finished(target, name):
            notify(f"{target} is there already, with the same fingerprint {name[:16]}")
            return target
        scratch = Scratch(target, name, wait=wait, notify=notify)
        with explained(scratch.folder, layout), scratch:
            if not scratch.done:
                scratch.refuse_other(replace)
                runs, writer = Runs(scratch.folder), CacheWriter(scratch.folder, layout)
                todo = _unfinished(writer, notify)
                with runs.record(teacher.device, len(writer.ledger.units)) as run, writer:
                    run["views"] = _fill(teacher, probe, writer, todo, progress or Silent())
                _complete(writer, identity, runs)
                scratch.publish(replace)
    return target


def _probe(teacher: TeacherPass) -> Signals:
    """What is kept of one view: shapes and head."""
    return teacher.signals(teacher.render(teacher.views.numbers[0], range(1), size=1).images)


def _plan(teacher: TeacherPass, signals: dict[str, Any], rows_per_block: int | None) -> StorePlan:
    return plan(
        signals,
        samples=teacher.samples.count,
        views=len(teacher.views.numbers),
        parameters=len(teacher.views.parameter_names),
        micro_batch=teacher.micro_batch,
        rows_per_block=rows_per_block,
    )


def _describe(teacher: TeacherPass, probe: Signals, rows_per_block: int | None) -> tuple[dict[str, Any], StorePlan]:
    """The identity and the layout of the cache that a teacher fills. probe: its signals of any view."""
    signals = signals_identity(probe, teacher.config)
    layout = _plan(teacher, signals, rows_per_block)
    of_teacher = teacher_identity(teacher.network, precision=teacher.precision, micro_batch=teacher.micro_batch)
    data = data_identity(teacher.samples)
    return cache_identity(data, views_identity(teacher.views), of_teacher, signals, layout), layout


def _unfinished(writer: CacheWriter, notify: Callable[[str], None]) -> list[Unit]:
    """The units to compute: all but those that the ledger lists and whose files are there."""
    for unit, problem in missing(writer.folder, writer.plan, writer.ledger).items():
        if writer.ledger.units.pop(unit, None) is not None:
            notify(f"unit {unit} is computed again: {problem}")
    return [unit for unit in writer.plan.units if unit.key not in writer.ledger.units]


def _fill(teacher: TeacherPass, probe: Signals, writer: CacheWriter, todo: list[Unit], progress: Progress) -> int:
    """Compute and hand over units; returns the number of their views."""
    layout = writer.plan
    if STATIC not in writer.ledger.units:
        writer.submit(STATIC, _static(layout, teacher.samples.labels, probe))
    left, total = sum(len(layout.block_of(unit)) for unit in todo), layout.views * layout.samples
    progress.begin("cache teacher", total, "views", total - left)
    filling = Filling(teacher, writer, progress)
    names, numbers = [spec.name for spec in layout.signals], teacher.views.numbers
    pending: tuple[Task, Rendered, Answer] | None = None
    with ThreadPoolExecutor(1, thread_name_prefix="render") as pool:
        tasks = tasks_of(layout, todo, teacher.micro_batch)
        ahead = rendered_ahead(pool, lambda task: teacher.render(numbers[task.unit.view], task.rows), tasks)
        # One micro-batch is on the device while the one before it is checked, encoded and put in its place.
        for task, rendered in ahead:
            answer = teacher.ask(rendered, names)
            if pending:
                filling.take(*pending)
            pending = (task, rendered, answer)
        if pending:
            filling.take(*pending)
    progress.end()
    return left


def _static(layout: StorePlan, labels: NDArray[np.int64] | None, probe: Signals) -> dict[str, NDArray[Any]]:
    """The chunks of the arrays that do not depend on views."""
    arrays: dict[str, NDArray[Any]] = {
        "labels": np.full(layout.samples, -1, np.int64) if labels is None else labels.astype(np.int64)
    }
    if probe.head is not None:
        arrays["head/weight"] = probe.head.weight.float().cpu().numpy()
        arrays["head/bias"] = probe.head.bias.float().cpu().numpy()
    return {layout.static[name].file(None): array for name, array in arrays.items()}


def _complete(writer: CacheWriter, identity: dict[str, Any], runs: Runs) -> None:
    """Make sure that everything is there, and add the metadata."""
    folder, layout = writer.folder, writer.plan
    if wrong := missing(folder, layout, writer.ledger):
        raise CacheCorrupt(
            "the teacher cache is not complete",
            where=folder,
            got="; ".join(list(wrong.values())[:4]),
            fix="run the same command again: damaged units are computed anew",
        )
    manifest = Manifest.of(identity, runs.provenance())
    specs = [*layout.arrays.values(), *layout.static.values()]
    for name, content in metadata_files(specs, manifest.attributes()).items():
        write_atomic(folder / name, content)
    runs.forget()
