"""Tensors that only claim to be on CUDA: what they hold is on the CPU, and computed there.

`FakeTensorMode` of torch tells devices apart, too, and finds out the shapes without any numbers; in Python, which takes
five times as long as to compute the few numbers of a test.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import fields, is_dataclass, replace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

WAITS = {"_local_scalar_dense", "nonzero", "_unique2", "_unique", "unique_dim", "unique_consecutive", "masked_select"}
WAITS |= {"equal", "bincount", "repeat_interleave"}
"""Operations whose result, or its shape, the host has to wait for."""


def by_a_mask(name: str, args: Any) -> bool:
    """Whether an operation picks elements by truth values: how many, the host has to wait for."""
    picks = name in ("index", "index_put", "index_put_")
    return picks and any(each is not None and each.dtype == torch.bool for each in args[1])


class Claimed(Tensor):
    """Claims to be on CUDA. `held` has its numbers."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def of(cls, held: Tensor) -> Claimed:
        """The tensor that holds another one."""
        made: Claimed = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, held.size(), held.stride(), held.storage_offset(), dtype=held.dtype, device="cuda"
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, *_: Any, **__: Any) -> Any:
        raise AssertionError(f"{func} of a tensor that claims to be on CUDA, outside of `on_cuda`")


class OnCuda(FakeTensorMode):
    """Counts copies between devices, and refuses operations of tensors of several, and such as wait for a device.

    Of torch's mode it has what lets a machine without a GPU name one.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.copies = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, there = func.overloadpacket.__name__, dict[int, Claimed]()
        here: list[Tensor] = []
        kwargs = dict(kwargs or {})
        device = kwargs.get("device")
        on_cuda = device is not None and torch.device(device).type == "cuda"
        if on_cuda:
            kwargs["device"] = torch.device("cpu")
        args, kwargs = _held(args, here, there), _held(kwargs, here, there)
        if name in ("_to_copy", "copy_"):
            to_cuda = on_cuda if device is not None else id(args[0]) in there
            self.copies += bool(here if to_cuda else there)
            on_cuda = to_cuda
        else:
            # An index on the CPU of a tensor on CUDA is copied, and the other way round is an error.
            assert not there or not any(each.ndim for each in here), f"{name} of tensors on cpu and cuda"
            assert not there or not (name in WAITS or (name == "index" and by_a_mask(name, args))), (
                f"{name} waits for the device"
            )
            on_cuda = on_cuda or (bool(there) and device is None)
        return _claimed(func(*args, **kwargs), on_cuda, there)


def _held(given: Any, here: list[Tensor], there: dict[int, Claimed]) -> Any:
    """Arguments with what their tensors hold; `here` gets those on the CPU, `there` the others, by what they hold."""
    if isinstance(given, Claimed):
        there[id(given.held)] = given
        return given.held
    if isinstance(given, Tensor):
        here.append(given)
    elif isinstance(given, list | tuple):
        return type(given)([_held(each, here, there) for each in given])
    elif isinstance(given, dict):
        return {name: _held(each, here, there) for name, each in given.items()}
    return given


def _claimed(found: Any, on_cuda: bool, there: dict[int, Claimed]) -> Any:
    """A result; of an operation that changes its argument, the argument."""
    if isinstance(found, Tensor):
        if id(found) in there:
            assert found.shape == there[id(found)].shape, "an operation changed the shape of its argument"
            return there[id(found)]
        return Claimed.of(found) if on_cuda else found
    if isinstance(found, list | tuple):
        return type(found)([_claimed(each, on_cuda, there) for each in found])
    return found


@contextmanager
def on_cuda() -> Iterator[OnCuda]:
    """Tensors may claim to be on CUDA, and autocast believes it."""
    with ExitStack() as stack:
        stack.enter_context(mock.patch("torch.cuda.amp.common.amp_definitely_not_available", return_value=False))
        stack.enter_context(mock.patch("torch.cuda.is_bf16_supported", return_value=True))
        stack.enter_context(torch.backends.cudnn.flags(enabled=False))  # whose operations the CPU does not have
        stack.enter_context(torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH))  # likewise
        yield stack.enter_context(OnCuda())


def moved(given: Any) -> Any:
    """Tensors, and what holds some, with the same numbers on CUDA, for use in `on_cuda`."""
    if isinstance(given, nn.Module):
        for module in given.modules():
            for name, parameter in module._parameters.items():
                module._parameters[name] = None if parameter is None else nn.Parameter(moved(parameter))
            for name, buffer in module._buffers.items():
                module._buffers[name] = moved(buffer)
        return given
    if isinstance(given, Tensor):
        return given if isinstance(given, Claimed) else Claimed.of(given.detach().clone())
    if isinstance(given, Mapping):
        return {name: moved(each) for name, each in given.items()}
    if is_dataclass(given) and not isinstance(given, type):
        return replace(given, **{each.name: moved(getattr(given, each.name)) for each in fields(given)})
    return given
