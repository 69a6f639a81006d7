"""Reads, checks, hashes and writes weights. Nothing that is read is executed."""

from __future__ import annotations

import hashlib
import json
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pipeline.errors import ModelError, first_line
from pipeline.files import write_atomic

_WRAPPERS = ("state_dict", "model", "model_state", "model_state_dict")
_PREFIXES = ("_orig_mod.", "module.", "_orig_mod.", "model.")
"""What torch.compile, data parallel training and Lightning put before all names."""


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors by name in a safetensors file or a torch checkpoint, onto the CPU.

    Args:
        path: of the file.

    A checkpoint may wrap them as `state_dict`, `model`, `model_state` or `model_state_dict`, and prefix all names by
    `module.`, `_orig_mod.` or `model.`. What the file is, is seen from its content. Raises ModelError for a file that
    is missing, damaged, or that holds more than tensors and plain values.
    """
    try:
        with path.open("rb") as file:
            start = file.read(2)
    except OSError as error:
        fix = "name a file of weights that is there; `pipeline train-teacher` makes a teacher's"
        raise ModelError("the weights cannot be read", where=path, got=error.strerror, fix=fix) from None
    loaded = _load_torch(path) if _is_torch(start) else _load_safetensors(path)
    for _ in _WRAPPERS:  # so many at most: a pickle can hold a mapping that holds itself
        inner = next((loaded[k] for k in _WRAPPERS if k in loaded), None) if isinstance(loaded, Mapping) else None
        if isinstance(inner, Mapping):
            loaded = inner
    if not holds_weights(loaded):
        raise ModelError(
            "the file holds no weights",
            where=path,
            expected="tensors by name, or these under " + ", ".join(_WRAPPERS),
            got=_kinds(loaded),
        )
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in loaded):
            loaded = {name.removeprefix(prefix): value for name, value in loaded.items()}
    return dict(loaded)


def keeps_order(path: Path) -> bool:
    """Tell whether a file of weights holds them in the order in which they were made: safetensors sorts them.

    Args:
        path: of the file.
    """
    with path.open("rb") as file:
        start = file.read(2)
    return _is_torch(start)


def _is_torch(start: bytes) -> bool:
    """A zip archive, or the pickle of old torch versions; a safetensors file starts with the size of its header."""
    return start == b"PK" or start[:1] == b"\x80"


def _load_safetensors(path: Path) -> Mapping[str, Tensor]:
    try:
        # From bytes, not mapped: the file may be replaced while the weights are in use.
        return safetensors.torch.load(path.read_bytes())
    except (SafetensorError, ValueError) as error:
        raise ModelError(
            "the weights file is damaged or of another kind",
            where=path,
            expected="a safetensors file or a torch checkpoint",
            got=str(error),
            fix="copy or download it again",
        ) from None


def load_metadata(path: Path) -> dict[str, str]:
    """Read the texts in the header of a safetensors file, none if it is of another kind.

    Args:
        path: of the file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except SafetensorError:
        return {}


def _load_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, which advise to execute what is in the file
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            "the checkpoint is damaged, or needs Python code to be read, which is refused",
            where=path,
            expected="tensors and plain values only",
            got=first_line(error),
            fix="where you trust it, save its state dict as safetensors, once, and name that file",
        ) from None
    except Exception as error:  # what a damaged pickle or archive raises depends on where it is damaged
        raise ModelError(
            "the checkpoint is damaged",
            where=path,
            got=first_line(error),
            fix="copy or download it again",
        ) from None


def holds_weights(loaded: object) -> bool:
    """Tell whether a value is plain tensors by name, one at least.

    Args:
        loaded: what was read from a file.
    """
    return isinstance(loaded, Mapping) and bool(loaded) and all(map(_is_weight, loaded.items()))


def _is_weight(item: tuple[Any, Any]) -> bool:
    """Whether a name and a value are those of a plain tensor: not sparse, nor smaller in memory than it claims."""
    name, value = item
    if not isinstance(name, str) or not isinstance(value, Tensor) or value.layout != torch.strided:
        return False
    return value.device.type == "cpu" and value.numel() * value.element_size() <= value.untyped_storage().nbytes()


def _kinds(loaded: Any) -> str:
    if not isinstance(loaded, Mapping):
        return type(loaded).__name__
    odd = [item for item in loaded.items() if not _is_weight(item)]
    kinds = (f"{k}: {'not a plain tensor' if isinstance(v, Tensor) else type(v).__name__}" for k, v in odd[:5])
    return ", ".join(kinds) or "nothing"


def _plain(tensor: Tensor) -> Tensor:
    """On the CPU, in the standard order of elements, sharing memory with nothing."""
    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)


def digest_of(state: Mapping[str, Tensor]) -> str:
    """Compute "sha256:..." over name, dtype, shape and bytes of every tensor in the order of names.

    Args:
        state: tensors by name.

    The same for the same values on any device, in any memory format and from any file.
    """
    hasher = hashlib.sha256()
    for name in sorted(state):
        tensor = _plain(state[name])
        header = json.dumps([name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)])
        hasher.update(f"{len(header)}:{header}".encode())
        hasher.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return f"sha256:{hasher.hexdigest()}"


def save_weights(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a state dict as safetensors, atomically.

    Args:
        path: of the file.
        metadata: of one entry, since several would be written in any order, and the bytes with them.
    """
    plain = {name: _plain(tensor) for name, tensor in state.items()}
    write_atomic(path, safetensors.torch.save(plain, metadata=dict(metadata or {"format": "pt"})))
