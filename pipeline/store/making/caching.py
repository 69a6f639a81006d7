"""Makes a teacher cache: runs the teacher once over every view, and writes its outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import REPLACE_HINT, CacheCorrupt, CacheMismatch, PipelineError
from pipeline.models.device import Precision, require_precision
from pipeline.progress import Progress, Silent
from pipeline.publishing.fingerprint import differences
from pipeline.publishing.scratch import print_message
from pipeline.signals import Signals, SignalsConfig, deepest_block
from pipeline.store.backend import backend_of
from pipeline.store.format.arrays import STATIC, Unit
from pipeline.store.format.chunks import Compression
from pipeline.store.format.identity import IDENTITY, CacheIdentity
from pipeline.store.format.layout import StoreLayout
from pipeline.store.format.manifest import Manifest
from pipeline.store.format.provenance import Runs
from pipeline.store.format.sections import DataIdentity, TeacherIdentity, ViewsIdentity
from pipeline.store.format.signal_sections import SignalsIdentity
from pipeline.store.format.zarr_files import metadata_files, with_attributes
from pipeline.store.location import StorePath
from pipeline.store.making.filling import compute_units
from pipeline.store.making.shared_images import UnitGroups, most_at_once
from pipeline.store.making.teacher_pass import TeacherPass
from pipeline.store.making.writer import CacheWriter
from pipeline.store.reader import TeacherCache
from pipeline.store.workspace import Workspace

if TYPE_CHECKING:
    from pipeline.data import Samples
    from pipeline.models import TeacherNetwork
    from pipeline.views import Views

RunRecord = dict[str, Any]
"""The record of a run, as `pipeline.store.format.provenance` keeps it."""

Runner = Callable[[TeacherPass, Workspace, StoreLayout, Sequence[Unit], Progress, RunRecord], None]
"""A function that computes units, writes and commits them, and advances the progress by their views.

If workers compute, it notes them in the record of the run.
"""


def in_process(
    teacher: TeacherPass,
    workspace: Workspace,
    layout: StoreLayout,
    units: Sequence[Unit],
    progress: Progress,
    run: RunRecord,
) -> None:
    """Compute units in this process, and write and commit them: the default `Runner`.

    Args:
        teacher: runs the network.
        workspace: takes the units.
        layout: of the cache.
        units: what to compute.
        progress: advances by views.
        run: the record of the run; nothing is added to it.
    """
    groups = UnitGroups(units, most_at_once(layout, teacher.samples))
    with CacheWriter(workspace) as writer:
        for unit, chunks in compute_units(teacher, layout, groups, progress):
            writer.submit(unit.key, chunks)
            groups.finish()


def make_cache(
    network: TeacherNetwork,
    samples: Samples,
    views: Views,
    signals: SignalsConfig,
    *,
    target: StorePath,
    precision: Precision = "bfloat16",
    micro_batch: int = 256,
    device: torch.device | str = "auto",
    rows_per_block: int | None = None,
    compression: Compression = None,
    runner: Runner = in_process,
    progress: Progress | None = None,
    replace: bool = False,
    wait: bool = True,
    notify: Callable[[str], None] = print_message,
) -> StorePath:
    """Make the teacher cache at `target`, and return its path. Units that an earlier run finished are not repeated.

    A finished cache with the same identity is left as it is.

    Args:
        network: the teacher.
        samples, views: what it is run on.
        signals: which of its outputs are kept, and how.
        precision: of its arithmetic.
        micro_batch: views that it computes at once.
        device: `auto` is a GPU if there is one.
        rows_per_block: samples in a chunk file; None chooses.
        compression: of chunk files; None stores them as they are.
        runner: computes the units; by default this process does.
        progress: counts views.
        replace: whether another cache may be replaced.
        wait: whether to wait for another process that makes the same cache.
        notify: takes messages for the user.

    Raises CacheError for a signal that is not finite or does not fit its encoding, a full disk, or another artifact at
    the target; ConfigError and ModelError for signals that the network does not have.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    teacher = TeacherPass(
        network,
        samples,
        views,
        signals,
        device=torch.device(device),
        precision=require_precision(precision),
        micro_batch=micro_batch,
    )
    with teacher.inference_mode():
        probe = _probe(teacher)
        identity = _describe(teacher, probe, rows_per_block, compression)
        name, layout, backend = identity.fingerprint, identity.layout, backend_of(target)
        if backend.published() == name:
            notify(f"{target} is there already, with the same fingerprint {name[:16]}")
            return target
        with backend.workspace(name, layout, wait=wait, notify=notify) as workspace:
            if not workspace.done:
                _refuse_other(workspace, target, identity, replace)
                workspace.keep_note(IDENTITY, identity.canonical())
                runs = Runs(workspace)
                todo = _unfinished(workspace, layout, notify)
                with runs.record(teacher.device, len(workspace.units)) as run:
                    if STATIC not in workspace.units:
                        static = _static(layout, teacher.samples.labels, probe)
                        workspace.commit(STATIC, workspace.place.write(static, ""), "")
                    run["views"] = _run(runner, teacher, workspace, layout, todo, progress or Silent(), run)
                _publish(workspace, identity, runs, replace)
    return target


def _refuse_other(workspace: Workspace, target: StorePath, identity: CacheIdentity, replace: bool) -> None:
    """Raise CacheMismatch as the workspace does; for another teacher cache, name every field that differs."""
    try:
        workspace.refuse_other(replace)
    except CacheMismatch:
        try:
            there = TeacherCache.open(target).manifest.identity
        except PipelineError:
            there = None
        if replace or there is None:
            raise
        differing = differences(identity.plain(), there.plain())
        lines = "\n".join(f"  - {line}" for line in differing)
        fix = f"{REPLACE_HINT} to replace it, or name another path (`store.path`)" + there.keep_cache_hint(differing)
        raise CacheMismatch(
            f"another teacher cache is published at the target\n{lines}", where=target, fix=fix
        ) from None


def _probe(teacher: TeacherPass) -> Signals:
    """Return the signals of one view, for their shapes and the head."""
    return teacher.signals(teacher.render(teacher.views.numbers[0], range(1), size=1).images)


def _describe(
    teacher: TeacherPass, probe: Signals, rows_per_block: int | None, compression: Compression
) -> CacheIdentity:
    """Return the identity of the cache. probe: the teacher's signals of any view."""
    return CacheIdentity.of(
        DataIdentity.of(teacher.samples),
        ViewsIdentity.of(teacher.views),
        TeacherIdentity.of(teacher.network, precision=teacher.precision, micro_batch=teacher.micro_batch),
        SignalsIdentity.of(probe, teacher.config, deepest_block(teacher.network.taps)),
        rows_per_block=rows_per_block,
        compression=compression,
    )


def _unfinished(workspace: Workspace, layout: StoreLayout, notify: Callable[[str], None]) -> list[Unit]:
    """Return the units to compute: all except those that are committed and whose files are there."""
    for unit, problem in workspace.missing().items():
        if workspace.units.pop(unit, None) is not None:
            notify(f"unit {unit} is computed again: {problem}")
    return [unit for unit in layout.units if unit.key not in workspace.units]


def _run(
    runner: Runner,
    teacher: TeacherPass,
    workspace: Workspace,
    layout: StoreLayout,
    todo: Sequence[Unit],
    progress: Progress,
    run: RunRecord,
) -> int:
    """Compute units with the runner, and return the number of their views."""
    left, total = sum(len(layout.block_of(unit)) for unit in todo), layout.views * layout.samples
    progress.begin("cache teacher", total, "views", total - left)
    runner(teacher, workspace, layout, todo, progress, run)
    progress.end()
    return left


def _static(layout: StoreLayout, labels: NDArray[np.int64] | None, probe: Signals) -> dict[str, NDArray[Any]]:
    """Return the chunks of the arrays that do not depend on views."""
    arrays: dict[str, NDArray[Any]] = {
        "labels": np.full(layout.samples, -1, np.int64) if labels is None else labels.astype(np.int64)
    }
    if probe.head is not None:
        arrays["head/weight"] = probe.head.weight.float().cpu().numpy()
        arrays["head/bias"] = probe.head.bias.float().cpu().numpy()
    return {layout.static[name].file(None): array for name, array in arrays.items()}


def _publish(workspace: Workspace, identity: CacheIdentity, runs: Runs, replace: bool) -> None:
    """Publish the cache with its metadata. Raises CacheCorrupt if a unit is not there."""
    if wrong := workspace.missing():
        raise CacheCorrupt(
            "the teacher cache is not complete",
            got="; ".join(list(wrong.values())[:4]),
            fix="run the same command again: damaged units are computed anew",
        )
    layout = identity.layout
    specs = [*layout.arrays.values(), *layout.static.values()]
    files = metadata_files(specs, {}, layout.compression)
    manifest = Manifest.of(identity, runs.provenance(), files)
    workspace.publish(with_attributes(files, manifest.attributes()), replace)
