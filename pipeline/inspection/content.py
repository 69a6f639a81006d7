"""Compares what a cache holds with its manifest: finds values that cannot be outputs, and rows never written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.config import MOST_CLASSES
from pipeline.store.encodings import name_of
from pipeline.store.format.arrays import ArraySpec, Unit
from pipeline.store.format.chunks import elements_of
from pipeline.store.format.layout import StoreLayout
from pipeline.store.format.manifest import Manifest
from pipeline.untrusted import parse_json

NOT_FINITE_HINT = "have values that are not finite"


def manifest_problem(manifest: Manifest) -> str | None:
    """Return how a manifest contradicts itself, for people; None if it does not."""
    layout = manifest.layout
    classes, embedding = layout.shapes.logits, layout.shapes.embedding
    named = manifest.identity.teacher.num_classes
    if classes and named not in (None, classes):
        return f"the teacher has {named} classes, its logits {classes}"
    if layout.head is not None and layout.head != (classes or layout.head[0], embedding or layout.head[1]):
        return f"the head is {_by(layout.head)}, logits and embedding are {_by((classes, embedding or 0))}"
    if min(layout.views, layout.samples, layout.rows) < 1:
        return f"{layout.views} views of {layout.samples} samples in blocks of {layout.rows}"
    return None


def metadata_problem(spec: ArraySpec, content: bytes) -> str | None:
    """Return how an array's `zarr.json` differs from the manifest, for people; None if it does not.

    Args:
        spec: the array, by the manifest.
        content: the file.
    """
    try:
        return _metadata_difference(spec, parse_json(content))
    except (ValueError, KeyError, TypeError, AttributeError):
        return "not the metadata of an array"


def _metadata_difference(spec: ArraySpec, value: Any) -> str | None:
    wanted = {"node_type": "array", "shape": list(spec.shape), "data_type": spec.dtype.name}
    for key, expected in wanted.items():
        if value.get(key) != expected:
            return f"{key} is {value.get(key)}, in the manifest {expected}"
    chunk = value["chunk_grid"]["configuration"]["chunk_shape"]
    return None if chunk == list(spec.chunk) else f"chunks are {chunk}, in the manifest {list(spec.chunk)}"


def chunk_problem(layout: StoreLayout, spec: ArraySpec, unit: Unit | None, content: bytes) -> str | None:
    """Return what in a chunk file, whole in itself, cannot be what was computed, for people; None if nothing.

    Checked is that signals are what their encoding writes, that the head is finite, that labels are classes or -1, that
    digests were written, and that rows without samples hold the fill value.

    Args:
        layout: of the cache.
        spec: the array of the chunk.
        unit: that of the chunk; None for an array of one chunk.
        content: the file.
    """
    elements = elements_of(np.frombuffer(content, np.uint8), spec, layout.compression, Path(spec.file(unit)))
    if unit is None:
        if spec.name == "labels":
            most = layout.shapes.logits - 1 if layout.shapes.logits else MOST_CLASSES  # nothing else says how many
            wrong = int(np.sum((elements < -1) | (elements > most)))
            return f"{wrong} labels are not -1 to {most}" if wrong else None
        return _rows(~np.isfinite(elements).reshape(len(elements), -1).all(axis=1), NOT_FINITE_HINT)
    rows = len(layout.block_of(unit))
    if not _is_fill(spec, elements[0, rows:]).all():
        return "rows beyond the last sample do not hold the fill value"
    there = elements[0, :rows]
    if spec.name in layout.parts:
        signal, part = layout.parts[spec.name]
        never = signal.codec.impossible_rows(part, there)
        finite = np.isfinite(there[never]).all()
        return _rows(never, f"hold what {name_of(signal.encoding)} never writes" if finite else NOT_FINITE_HINT)
    # Drawn parameters may have the fill value for a value: it is the bits of -0.0.
    return _rows(_is_fill(spec, there), "were never written") if spec.name == "view_digest" else None


def _rows(wrong: NDArray[np.bool_], what: str) -> str | None:
    return f"{wrong.sum()} of {len(wrong)} rows {what}" if wrong.any() else None


def _is_fill(spec: ArraySpec, elements: NDArray[Any]) -> NDArray[np.bool_]:
    return np.isnan(elements) if spec.dtype.kind == "f" else np.asarray(elements == spec.fill)


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
