"""Gives streams of a GPU that nobody else in this process has."""

from __future__ import annotations

from weakref import WeakValueDictionary

import torch

from pipeline.errors import ModelError

STREAMS_OF_TORCH = 32
"""So many there are for each GPU; torch hands them out again in turn, however many are in use."""

_HELD: WeakValueDictionary[tuple[int, int], torch.cuda.Stream] = WeakValueDictionary()
"""Those that somebody has. torch's streams belong to the process, and so does this."""


def own_stream(device: torch.device) -> torch.cuda.Stream:
    """Return a stream that no other caller has: it is free again when the caller lets it go.

    Two that share one would wait for each other; and where one of them records, the other's kernels would be recorded
    too, and both records would write to the one workspace that cuBLAS has for each stream.

    Args:
        device: the GPU.

    Raises ModelError if all are in use.
    """
    for _ in range(STREAMS_OF_TORCH):
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        if _HELD.setdefault((stream.device.index, stream.cuda_stream), stream) is stream:
            return stream
    raise ModelError(
        "all streams of the GPU are in use", got=f"{STREAMS_OF_TORCH} streams", fix="do fewer things at once"
    )
