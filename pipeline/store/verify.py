"""Looks at all of a published cache: every byte of it, or what the teacher says today."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipeline.errors import CacheCorrupt, CacheMismatch
from pipeline.progress import Progress, Silent
from pipeline.store.arrays import Unit
from pipeline.store.artifacts import FINGERPRINT
from pipeline.store.chunks import check_chunk
from pipeline.store.ledger import NAME as LEDGER
from pipeline.store.ledger import Ledger
from pipeline.store.manifest import Manifest
from pipeline.store.reader import TeacherCache
from pipeline.store.teacher_pass import TeacherPass, signal_of
from pipeline.store.zarr_files import metadata_files

NAMED_FILES = 10


def verify_files(path: Path, progress: Progress | None = None) -> int:
    """Read the whole cache at `path` and return the number of its files.

    Raises CacheCorrupt, naming the files that are damaged, absent, or do not belong there.
    """
    progress = progress or Silent()
    manifest, ledger = Manifest.read(path), Ledger(path)
    plan = manifest.plan
    wrong: list[str] = []
    expected = {LEDGER, FINGERPRINT}
    progress.begin("verify", plan.views * plan.blocks + 1, "units")
    for unit, sizes in plan.chunk_files():
        recorded = ledger.units.get(unit, {})
        for name, size in sizes.items():
            expected.add(name)
            try:
                content = (path / name).read_bytes() if (path / name).is_file() else b""
                if size not in (None, len(content)) or check_chunk(content, path / name) != recorded.get(name):
                    wrong.append(f"{name}: not what the ledger lists")
            except CacheCorrupt:
                wrong.append(f"{name}: its checksum is not that of its content")
        progress.advance(1)
    progress.end()
    specs = [*plan.arrays.values(), *plan.static.values()]
    for name, wanted in metadata_files(specs, manifest.attributes(), plan.compression).items():
        expected.add(name)
        if not _same_metadata(wanted, path / name):
            wrong.append(f"{name}: not the metadata of this array")
    there = {str(file.relative_to(path)) for file in path.rglob("*") if not file.is_dir()}
    wrong += [f"{name}: does not belong there" for name in sorted(there - expected)]
    if wrong:
        more = [f"and {len(wrong) - NAMED_FILES} more"] if len(wrong) > NAMED_FILES else []
        raise CacheCorrupt(
            f"{len(wrong)} of {len(expected)} files of the teacher cache are damaged",
            where=path,
            got="\n    ".join(["", *wrong[:NAMED_FILES], *more]),
            fix="restore it (`dvc checkout`), or make it again with `pipeline cache-teacher --replace`",
        )
    return len(expected)


def _same_metadata(wanted: bytes, file: Path) -> bool:
    """Whether a `zarr.json` says the same; spaces and fields of other versions of zarr do not matter."""
    ours = json.loads(wanted)
    try:
        theirs = json.loads(file.read_bytes())
        return all(theirs.get(key) == value for key, value in ours.items() if key != "consolidated_metadata")
    except (OSError, ValueError, AttributeError):
        return False


@dataclass(frozen=True)
class Deviation:
    """How far a signal lies from what the teacher says today, over `views` views.

    largest: of the absolute differences. typical: the root mean square of the stored signal. equal: the share
    of values that are the same bit for bit.
    """

    signal: str
    views: int
    largest: float
    typical: float
    equal: float


def verify_teacher(
    cache: TeacherCache, teacher: TeacherPass, micro_batches: int = 4, progress: Progress | None = None
) -> list[Deviation]:
    """Ask the teacher again about some micro-batches, spread over the cache, and compare.

    Raises CacheMismatch if the rendered views are not those that the teacher saw. How large a deviation may be
    is for the caller to say: on the device that made the cache it is nil, on others the arithmetic differs.
    """
    progress = progress or Silent()
    plan, numbers = cache.manifest.plan, cache.views
    starts = [(unit, start) for unit in plan.units for start in plan.block_of(unit)[:: teacher.micro_batch]]
    chosen = [starts[i] for i in np.unique(np.linspace(0, len(starts) - 1, micro_batches).astype(int))]
    stored: dict[str, list[torch.Tensor]] = {spec.name: [] for spec in plan.signals}
    now: dict[str, list[torch.Tensor]] = {spec.name: [] for spec in plan.signals}
    progress.begin("verify teacher", len(chosen), "micro-batches")
    with teacher.ready():
        for unit, start in chosen:
            rows = range(start, min(start + teacher.micro_batch, plan.block_of(unit).stop))
            samples, view = np.arange(rows.start, rows.stop, dtype=np.int64), numbers[unit.view]
            rendered = teacher.render(view, rows)
            _compare_digests(cache, unit, view, samples, rendered.digests)
            signals, answer = cache.read(view, samples), teacher.ask(rendered, list(now))
            for spec in plan.signals:
                parts = spec.codec.encode(answer.arrays()[spec.name])
                today = {part: torch.from_numpy(np.ascontiguousarray(array)) for part, array in parts.items()}
                now[spec.name].append(spec.codec.decode(today))
                stored[spec.name].append(signal_of(signals, spec.name))
            progress.advance(1)
    progress.end()
    return [_deviation(name, torch.cat(stored[name]), torch.cat(now[name])) for name in now]


def _compare_digests(
    cache: TeacherCache, unit: Unit, view: int, samples: np.ndarray[tuple[int], np.dtype[np.int64]], got: object
) -> None:
    wrong = int(np.sum(cache.view_digests(view, samples) != got))
    if wrong:
        raise CacheMismatch(
            f"{wrong} of {len(samples)} rendered views are not the pixels that the teacher saw",
            where=f"{cache.path}, view {view}, samples {samples[0]} to {samples[-1]} (unit {unit.key})",
            fix="the data set or the view operations changed since: restore them, or make the cache again",
        )


def _deviation(name: str, stored: torch.Tensor, now: torch.Tensor) -> Deviation:
    difference = (stored.double() - now.double()).abs()
    return Deviation(
        signal=name,
        views=len(stored),
        largest=difference.max().item(),
        typical=stored.double().square().mean().sqrt().item(),
        equal=(difference == 0).double().mean().item(),
    )
