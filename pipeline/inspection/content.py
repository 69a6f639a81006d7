"""What a cache holds against what its manifest says: values that nobody computed, rows that nobody wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.store.encodings import name_of
from pipeline.store.format.arrays import ArraySpec, Unit
from pipeline.store.format.chunks import elements_of
from pipeline.store.format.layout import StoreLayout
from pipeline.store.format.manifest import Manifest
from pipeline.untrusted import parse_json

NOT_FINITE = "have values that are not finite"


def manifest_problem(manifest: Manifest) -> str | None:
    """Say how the manifest contradicts itself; None if it does not."""
    plan = manifest.layout
    classes, embedding = plan.shapes.logits, plan.shapes.embedding
    named = manifest.identity.teacher.num_classes
    if named not in (None, classes):
        return f"the teacher has {named} classes, its logits {classes}"
    if plan.head is not None and plan.head != (classes, embedding or plan.head[1]):
        return f"the head is {_by(plan.head)}, logits and embedding are {_by((classes, embedding or 0))}"
    if min(plan.views, plan.samples, plan.rows) < 1:
        return f"{plan.views} views of {plan.samples} samples in blocks of {plan.rows}"
    return None


def metadata_problem(spec: ArraySpec, content: bytes) -> str | None:
    """Say how an array's `zarr.json` differs from the manifest; None if it does not."""
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


def chunk_problem(plan: StoreLayout, spec: ArraySpec, unit: Unit | None, content: bytes) -> str | None:
    """Say what in a chunk file, whole in itself, cannot be what was computed; None if nothing.

    Signals are what their encoding writes, the head is finite, labels are classes or -1, digests are there, and where
    there are no samples there is the fill value.
    """
    elements = elements_of(np.frombuffer(content, np.uint8), spec, plan.compression, Path(spec.file(unit)))
    if unit is None:
        if spec.name == "labels":
            wrong = int(np.sum((elements < -1) | (elements >= plan.shapes.logits)))
            return f"{wrong} labels are not -1 to {plan.shapes.logits - 1}" if wrong else None
        return _rows(~np.isfinite(elements).reshape(len(elements), -1).all(axis=1), NOT_FINITE)
    rows = len(plan.block_of(unit))
    if not _is_fill(spec, elements[0, rows:]).all():
        return "rows beyond the last sample do not hold the fill value"
    there = elements[0, :rows]
    if spec.name in plan.parts:
        signal, part = plan.parts[spec.name]
        never = signal.codec.impossible_rows(part, there)
        finite = np.isfinite(there[never]).all()
        return _rows(never, f"hold what {name_of(signal.encoding)} never writes" if finite else NOT_FINITE)
    # Drawn parameters may have the fill value for a value: it is the bits of -0.0.
    return _rows(_is_fill(spec, there), "were never written") if spec.name == "view_digest" else None


def _rows(wrong: NDArray[np.bool_], what: str) -> str | None:
    return f"{wrong.sum()} of {len(wrong)} rows {what}" if wrong.any() else None


def _is_fill(spec: ArraySpec, elements: NDArray[Any]) -> NDArray[np.bool_]:
    return np.isnan(elements) if spec.dtype.kind == "f" else np.asarray(elements == spec.fill)


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
