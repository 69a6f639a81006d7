"""Chooses the device on which a network computes, the precision, and arithmetic that repeats itself."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal, cast, get_args

import torch

from pipeline.allocator import fix_workspaces
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


@contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """Compute so that the same inputs give the same bits, in a resumed run too; for teachers, training and evaluation.

    Args:
        device: that computes.

    On a GPU: it becomes the current one of this thread, algorithms are chosen by rule and not by a race, those whose
    results do not depend on the order of threads are taken where torch has them, and float32 in convolutions is not
    TF32. All of it is as before afterwards. A CPU computes so anyway, and nothing is changed there.
    """
    if device.type != "cuda":
        yield
        return
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        fix_workspaces()
    mode, filling = torch.get_deterministic_debug_mode(), cast(Any, torch.utils.deterministic)
    filled = filling.fill_uninitialized_memory
    exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    with torch.cuda.device(device), exact:
        try:
            if mode == 0:  # else somebody has chosen it, or that such operations are refused
                torch.set_deterministic_debug_mode("warn")
            filling.fill_uninitialized_memory = False  # for who reads what was never written: nobody here
            yield
        finally:
            filling.fill_uninitialized_memory = filled
            torch.set_deterministic_debug_mode(mode)


class _Noting:
    """Holds the list that takes what torch says of such operations now; None where nobody wants to know.

    It belongs to the process, as filters of warnings do: torch's own threads, in which gradients are computed, say it
    too.
    """

    found: list[str] | None = None


@contextmanager
def chance_operations(device: torch.device) -> Iterator[list[str]]:
    """Yield a list that takes what torch says of operations for which it has no deterministic form on this device.

    Args:
        device: that computes, inside of `reproducible`.

    Filters of warnings belong to the process: not for several threads at once. Inside of another one they are left as
    they are, and this list takes the place of that one's.
    """
    found: list[str] = []
    if device.type != "cuda":
        yield found
        return
    outer, _Noting.found = _Noting.found, found
    try:
        with nullcontext() if outer is not None else _noted():
            yield found
    finally:
        _Noting.found = outer


def exchange_noting(found: list[str] | None) -> list[str] | None:
    """Have another list take what torch says, and return the one that did so far: for work that is done in turn.

    Args:
        found: the list of a `chance_operations` that was entered and is left later; None for none.
    """
    before, _Noting.found = _Noting.found, found
    return before


@contextmanager
def _noted() -> Iterator[None]:
    """Put what torch says of such operations into the list that takes it now, and show it if it is new there."""
    with warnings.catch_warnings():
        # Always: by default Python shows a warning once for each place, and this place may be that of many trainings.
        warnings.filterwarnings("always", message=r"(?s).*deterministic")
        show = warnings.showwarning

        def note(message: Warning | str, *where: Any, **more: Any) -> None:
            found = _Noting.found
            if "deterministic" in str(message) and found is not None:
                text = str(message).partition("\n")[0]
                if text in found:
                    return
                found.append(text)
            show(message, *where, **more)

        warnings.showwarning = note
        yield
