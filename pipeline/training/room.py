"""Says whether something fits into a device's memory beside a training."""

from __future__ import annotations

import os

import torch

BATCHES_SHARE = 0.5
"""The part of a device's free memory that batches may take; the rest is for the network."""


def fits(amount: int, device: torch.device) -> bool:
    """Return whether there is room for batches.

    Args:
        amount: in bytes.
        device: whose memory is asked; a CPU's is that of the machine.
    """
    return amount <= BATCHES_SHARE * _free_bytes(device)


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):  # a system that does not say it
        return 0
