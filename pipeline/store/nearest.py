"""Finds the nearest samples of every sample in a cache, by its teacher's embeddings, once, and keeps them beside it.

Nearness of two samples is the cosine of their vectors: a sample's vector is the mean of its embeddings in the views
that are used, each of length one. All pairs are compared, in float64 and a piece at a time, so nothing is left out. A
cosine counts to 2⁻²⁹, and of equally near samples the lower number comes first: who is near does not depend on the
pieces, on threads or on the device.

Beside `caches/name.zarr` lies `caches/name.statistics/embedding.nearest`, a file of safetensors: int32 `nearest`
[N, k], the nearest first, with the fingerprints of the caches, the numbers of their views and a checksum as metadata.
One with more of them than are wanted serves as well. `embedding.nearest-same` has those of the same class, and
`embedding.nearest-other` those of others. Where a student reads other views of the same caches, or other labels, its
file has a checksum of what it is of behind the name, and both are kept.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.progress import Progress, Silent
from pipeline.publishing.checksum import crc32c
from pipeline.signals.unit import unit
from pipeline.store.kept import keep, read_kept, statistics_folder

if TYPE_CHECKING:
    from pipeline.store.reader import TeacherCache

VECTORS_AT_ONCE = 1 << 26
"""How many numbers of vectors are in memory at once, and as many again: 512 MiB of them in float64."""

PAIRS_AT_ONCE = 1 << 22
"""How many pairs of samples are compared at once: 32 MiB of them."""

STEPS_OF_A_COSINE = 1 << 29
"""Cosines that differ by less than one part in so many may count as equal."""

NUMBERS = 1 << 32
"""More than there are samples: what a cosine is multiplied by to make room for a sample's number."""

NOBODY = -1
"""In place of cosine and number: less than any."""


@dataclass(frozen=True)
class Among:
    """Says which samples may be near to a sample: those of its own class, or those of others.

    Args:
        labels: int64 [N]; a sample with -1 is of no class: none is near to it, nor it to any.
        same: whether those of the same class are meant.
    """

    labels: NDArray[np.int64]
    same: bool

    @property
    def facts(self) -> dict[str, str]:
        """Return what says which they are."""
        return {"among": "same" if self.same else "other", "labels": f"{crc32c(self.labels.tobytes()):08x}"}


def kept_nearest(
    caches: Mapping[int, TeacherCache],
    count: int,
    device: torch.device,
    progress: Progress | None = None,
    among: Among | None = None,
) -> NDArray[np.int32]:
    """Return the nearest samples of every sample: from the file that is kept, which is written if it is not there.

    Args:
        caches: those of one teacher, by the numbers of the views that are used.
        count: k, how many of each sample; all others where there are fewer.
        device: where they are compared.
        progress: counts samples; None shows nothing.
        among: which samples may be near; None for all others.

    Returns int32 [N, k], the nearest first, and -1 behind the last of `among`; no sample is its own. Raises
    CacheCorrupt for a file that is damaged, and CacheMismatch for caches without embeddings.
    """
    first = caches[min(caches)]
    folder = statistics_folder(first.path, first.manifest.fingerprint)
    name = f"embedding.nearest-{among.facts['among']}" if among else "embedding.nearest"
    facts = {"caches": _identity(caches), "signal": "embedding"} | (among.facts if among else {})
    count = min(count, first.count - 1)
    path, of_others = None, f"{name}-{crc32c(json.dumps(facts, sort_keys=True).encode()):08x}"
    for path in (folder / name, folder / of_others) if folder else ():
        if (kept := read_kept(path, ("nearest",))) is None:
            break
        found = kept[1]["nearest"]
        if all(kept[0].get(key) == value for key, value in facts.items()):
            if found.shape[1] >= count:
                return found[:, :count].copy()
            break
        if not _fingerprints(kept[0].get("caches", "[]")) & _fingerprints(facts["caches"]):
            print(f"note: {path} is of other caches, and is computed again", file=sys.stderr)
            break
    nearest = find_nearest(caches, count, device, progress or Silent(), among)
    keep(path, {"nearest": nearest}, facts, beside=isinstance(first.path, Path))
    return nearest


def _identity(caches: Mapping[int, TeacherCache]) -> str:
    return json.dumps([[view, caches[view].manifest.fingerprint] for view in sorted(caches)])


def _fingerprints(identity: str) -> set[str]:
    return {fingerprint for _, fingerprint in json.loads(identity)}


def find_nearest(
    caches: Mapping[int, TeacherCache],
    count: int,
    device: torch.device,
    progress: Progress,
    among: Among | None = None,
) -> NDArray[np.int32]:
    """Compare all pairs of samples, and return the nearest of each.

    Args:
        caches, count, device, progress, among: as of `kept_nearest`, with a count below N.
    """
    cache = caches[min(caches)]
    samples, width = cache.count, cache.signal("embedding", min(caches), np.arange(1)).shape[1]
    labels = torch.from_numpy(among.labels).to(device) if among else None
    rows = max(1, min(samples, VECTORS_AT_ONCE // width))
    blocks = [range(start, min(start + rows, samples)) for start in range(0, samples, rows)]
    progress.begin(f"nearest samples by the embedding in {cache.path}", samples * len(blocks), "samples")
    found: list[Tensor] = []
    for block in blocks:
        ones = _vectors(caches, block, device)
        best = torch.full((len(block), count), NOBODY, dtype=torch.int64, device=device)
        for other in blocks:
            others = ones if other == block else _vectors(caches, other, device)
            for part, keys in _keys(ones, others, block, other):
                if among is not None and labels is not None:
                    own, theirs = labels[block.start : block.stop][part, None], labels[other.start : other.stop]
                    wrong = (own != theirs) if among.same else (own == theirs)
                    keys.masked_fill_(wrong | (own < 0) | (theirs < 0), NOBODY)
                best[part] = torch.cat((best[part], keys), dim=1).topk(count, dim=1, sorted=True).values
            progress.advance(len(block))
        numbers = NUMBERS - 1 - best % NUMBERS
        found.append(torch.where(best == NOBODY, -1, numbers).to(torch.int32).cpu())
    progress.end()
    return torch.cat(found).numpy()


def _vectors(caches: Mapping[int, TeacherCache], samples: range, device: torch.device) -> Tensor:
    """The vectors of samples, float64 [M, D], of length one."""
    rows, total = np.arange(samples.start, samples.stop), None
    for view in sorted(caches):
        embeddings = unit(caches[view].signal("embedding", view, rows).to(device).double(), dim=1)
        total = embeddings if total is None else total.add_(embeddings)
    assert total is not None  # there are views
    return unit(total, dim=1)


def _keys(ones: Tensor, others: Tensor, block: range, other: range) -> Iterator[tuple[slice, Tensor]]:
    """Yield, of parts of `ones`, cosine and number of all `others` as one: the larger, the nearer, int64 [M, O]."""
    numbers = NUMBERS - 1 - torch.arange(other.start, other.stop, device=ones.device)
    size = max(1, PAIRS_AT_ONCE // len(others))
    for start in range(0, len(ones), size):
        part = slice(start, start + size)
        cosines = ones[part] @ others.T
        keys = ((cosines.clamp_(-1, 1) + 1) * STEPS_OF_A_COSINE).round_().long() * NUMBERS + numbers
        own = torch.arange(block.start + start, block.start + start + len(keys), device=ones.device) - other.start
        itself = ((own >= 0) & (own < len(others))).nonzero()[:, 0]
        keys[itself, own[itself]] = NOBODY
        yield part, keys
