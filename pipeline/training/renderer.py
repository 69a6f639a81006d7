"""Checks that a device renders the pixels that a CPU does, before a training relies on it."""

from __future__ import annotations

import numpy as np
import torch

from pipeline.errors import CacheMismatch
from pipeline.training.batches import Steps
from pipeline.views import digest, view_of

RENDERED_ROWS = 1024
"""Views that are compared."""


def require_same_pixels(steps: Steps, view: int, device: torch.device) -> bool:
    """Render views on a device and on the CPU, and compare their digests; return whether the device can render them.

    Args:
        steps: of the run.
        view: the number of the view.
        device: that is to render.

    The CPU's pixels are compared with the teacher's by `check_views`. Raises CacheMismatch, naming the first samples
    that differ.
    """
    count = steps.samples.count
    rows = np.unique(np.linspace(0, count - 1, min(count, RENDERED_ROWS)).astype(np.int64))
    images = steps.images(rows)
    assert isinstance(images, torch.Tensor)
    here = steps.render(view, rows, images)
    others = steps.mixed_with(here.parameters)
    partners = None if others is None else steps.images(others)
    assert partners is None or isinstance(partners, torch.Tensor)
    try:
        drawn = torch.from_numpy(here.parameters).to(device)
        there = steps.views.apply(images.to(device), drawn, None if partners is None else partners.to(device))
        found = digest(there)
    except Exception:  # an operation of the user's own may know CPUs alone
        return False
    wrong = rows[found != digest(here.pixels)]
    if len(wrong):
        raise CacheMismatch(
            f"{len(wrong)} of {len(rows)} views that {device} renders are not the pixels of a CPU",
            where=view_of(steps.samples, view, wrong),
            fix="have the CPU render them: train.resident: false",
        )
    return True
