"""Chooses the device on which a network computes, and the precision."""

from __future__ import annotations

from typing import Literal, cast, get_args

import torch

from pipeline.errors import ConfigError, ModelError, first_line, unknown_name

Precision = Literal["bfloat16", "float32"]


def choose_device(device: str = "auto") -> torch.device:
    """Return a device: `auto` is CUDA where there is one, else the CPU. Raises ModelError if it is not here."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        what, fix = f"the device {device!r} cannot be used", "set device: auto (in Python, device='auto')"
        raise ModelError(what, got=first_line(error), fix=fix) from None
    return chosen


def require_precision(precision: str) -> Precision:
    """Return `precision` if networks compute in it. Raises ConfigError for another, with the nearest name."""
    if precision not in get_args(Precision):
        raise ConfigError([unknown_name("precision", precision, ["auto", *get_args(Precision)])])
    return cast(Precision, precision)


def choose_precision(precision: Literal["auto", "bfloat16", "float32"], device: torch.device) -> Precision:
    """Return the precision of a name: `auto` is bfloat16 where the device has instructions for it, else float32.

    Raises ConfigError for another name.
    """
    if precision != "auto":
        return require_precision(precision)
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    if device.type != "cpu":
        return "float32"
    # Without instructions for it, bfloat16 is slower than float32 on a CPU.
    instructions = (torch.cpu._is_amx_tile_supported, torch.cpu._is_avx512_bf16_supported)
    return "bfloat16" if any(supported() for supported in instructions) else "float32"
