"""Counts what a step asks of a device, without one. `python tests/contracts/step_costs.py` writes the table anew.

`launches` of an objective are the operations of its terms and their gradient, over real tensors on the CPU, but those
that only look at a tensor in another way: about as many kernels are started on a GPU. `asked` is how often `prepare`
has a tensor's value on the host; it may, but a device is waited for. All else is counted on tensors that only claim to
be on CUDA (`contracts.claimed`): `copies` go from one device to another.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from contracts.claimed import WAITS, by_a_mask, moved, on_cuda

TABLE = Path(__file__).with_suffix(".json")
AGAIN = "python tests/contracts/step_costs.py"

aten = torch.ops.aten
LOOKS = {
    "alias",
    "as_strided",
    "detach",
    "expand",
    "permute",
    "select",
    "slice",
    "split",
    "split_with_sizes",
    "squeeze",
}
LOOKS |= {"t", "transpose", "unbind", "unfold", "unsqueeze", "view", "view_as", "_reshape_alias", "_unsafe_view"}
LOOKS |= {"diagonal", "empty", "empty_like", "empty_strided", "lift_fresh", "new_empty", "new_empty_strided"}
"""Operations that start no kernel."""

DRAWS = {"rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "bernoulli", "multinomial"}
DRAWS |= {"uniform_", "normal_", "random_", "bernoulli_", "exponential_", "normal"}
"""Operations that draw random numbers: where they are captured, they would draw the same again."""

VALUES = {
    "__bool__",
    "__int__",
    "__float__",
    "__index__",
    "item",
    "tolist",
    "numpy",
    "cpu",
    "__array__",
    "nonzero",
    "unique",
}
"""Functions of a tensor that want its value on the host."""


class Launches(TorchDispatchMode):
    """Counts operations that start a kernel, and names those that wait for one, or draw random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.count, self.waits, self.draws = 0, list[str](), list[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.count += name not in LOOKS
        by_truth = by_a_mask(name, args)
        if name in WAITS or by_truth:
            self.waits.append(f"{name} by a mask" if by_truth else name)
        if name in DRAWS:
            self.draws.append(name)
        return func(*args, **(kwargs or {}))


class Asked(TorchFunctionMode):
    """Counts how often a tensor's value is wanted on the host."""

    count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += getattr(func, "__name__", "") in VALUES
        return func(*args, **(kwargs or {}))


def of_objective(name: str, options: dict[str, Any]) -> dict[str, int]:
    """What a step with an objective costs, at two times of training. Raises AssertionError for what no step may do."""
    from contracts.objective_cases import as_leaves, batch, build, signals, total

    found, seen = {"launches": 0, "copies": 0, "asked": 0}, dict[frozenset[str], float]()
    objective = build(name, options)
    given, teacher = batch(6, objective.needs.views), signals("teacher", 6, 2).detached()
    objective(as_leaves(signals("student", 6, 1))[0], teacher, given, 0.0)  # the first step does more
    for progress in (0.0, 0.5):
        launches, asked = Launches(), Asked()
        objective.zero_grad()
        with asked:
            objective.prepare(given, progress)
        student = as_leaves(signals("student", 6, 1))[0]
        with launches, mock.patch("pipeline.plugins.load", _looked_for), no_draws_of_numpy():
            terms = objective.forward(student, teacher, given, progress)
            torch.autograd.backward([total(terms)])
        assert not launches.draws, f"a step draws by {', '.join(launches.draws)}: draw in `prepare`"
        assert not launches.waits, f"a step waits for {', '.join(launches.waits)}: do it in `prepare`, or without"
        found |= {"launches": max(found["launches"], launches.count), "asked": max(found["asked"], asked.count)}
        seen.setdefault(frozenset(terms), progress)
    found["copies"] = max(_copies(objective, student, teacher, given, progress) for progress in seen.values())
    return found


def _copies(objective: nn.Module, student: Any, teacher: Any, given: Any, progress: float) -> int:
    """Copies between devices in a step on CUDA, whose terms are there, in float32."""
    with on_cuda() as devices:
        on_it = [moved(each) for each in (objective, student, teacher, given)]
        with torch.autocast("cuda", torch.bfloat16):
            terms = on_it[0].forward(*on_it[1:], progress)
    for term, value in terms.items():
        kind = f"{str(value.dtype).removeprefix('torch.')} on {value.device.type}"
        assert kind == "float32 on cuda", f"{term} is {kind}"
    return devices.copies


def _looked_for(*given: object) -> None:
    raise AssertionError(f"a step looks for the plug-in {given[1]!r}: find it where the objective is built")


@contextmanager
def no_draws_of_numpy() -> Iterator[None]:
    """NumPy draws no random numbers. Raises AssertionError if it is asked to."""
    with ExitStack() as stack:
        for name in ("Generator", "default_rng", "RandomState", "rand", "randn", "randint", "permutation", "choice"):
            stack.enter_context(mock.patch(f"numpy.random.{name}", _drawn))
        yield


def _drawn(*_: object, **__: object) -> None:
    raise AssertionError("a step draws random numbers on the host: draw them in `prepare`")


def of_operation(operation: dict[str, Any]) -> dict[str, int]:
    """What rendering views on a device costs."""
    from pipeline.contracts.mixing import TRIED_AMONG, TRIED_ROWS, mixed_images, mixed_views

    views = mixed_views(operation)
    drawn = torch.from_numpy(views.parameters(0, TRIED_AMONG[TRIED_ROWS]))
    images = mixed_images()[TRIED_ROWS]
    with on_cuda() as devices:
        images, drawn = moved(images), moved(drawn)
        pixels = views.apply(images, drawn, images if views.mixing else None)
    assert pixels.device.type == "cuda", f"the views are on {pixels.device.type}"
    assert pixels.dtype == torch.uint8
    return {"copies": devices.copies}


def of_encoding(name: str) -> dict[str, int]:
    """What decoding its signals on a device costs."""
    import numpy as np

    from pipeline.contracts.encodings import TRIED_SIGNALS
    from pipeline.store.encodings import encodings_for, load_encoding
    from pipeline.store.format.encoded import part_tensor

    copies = 0
    for signal, shape in TRIED_SIGNALS:
        if name in encodings_for(signal.partition("/")[0]):
            codec = load_encoding({"name": name}, signal, shape)
            parts = {part: part_tensor(x) for part, x in codec.encode(np.ones((3, *shape), np.float32)).items()}
            with on_cuda() as devices:
                values = codec.decode(moved(parts))
            assert (values.device.type, values.dtype) == ("cuda", torch.float32)
            copies += devices.copies
    return {"copies": copies}


def row_name(name: str, options: dict[str, Any]) -> str:
    """In the table."""
    return ",".join([name, *(f"{key}={value}" for key, value in options.items() if key != "name")])


def _write() -> None:
    from contracts.objective_cases import VARIANTS
    from contracts.test_step_costs import OPERATIONS, UNFINISHED

    from pipeline import plugins
    from pipeline.store.encodings import ENCODINGS

    rows: dict[str, Any] = {"torch": torch.__version__.partition("+")[0]}
    rows["objectives"] = {row_name(*each): of_objective(*each) for each in VARIANTS if each[0] not in UNFINISHED}
    rows["operations"] = {row_name(each["name"], each): of_operation(each) for each in OPERATIONS}
    rows["encodings"] = {name: of_encoding(name) for name in plugins.names(ENCODINGS)}
    text = json.dumps(rows, indent=1)
    for row in {str(cost): cost for part in list(rows.values())[1:] for cost in part.values()}.values():
        text = text.replace(json.dumps(row, indent=1).replace("\n", "\n  "), json.dumps(row))
    TABLE.write_text(text + "\n")


if __name__ == "__main__":
    _write()
