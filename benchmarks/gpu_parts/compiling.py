"""What `torch.compile` gains, and how long it takes."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from gpu_parts.pieces import build, calibrated
from gpu_parts.record import Note
from gpu_parts.running import Place
from gpu_parts.sizes import Kind
from gpu_parts.timing import in_turn
from pipeline.models.attention import fastest_attention
from pipeline.models.device import choose_precision, reproducible
from pipeline.objectives.methods.hard_label import cross_entropy

REPLAYED = "ResNet-20, step, compiled and captured"
"""By torch itself, in graphs of its own."""


def compiling(note: Note, place: Place) -> None:
    """A student's step on hard labels, and the teacher's forward pass, eager and compiled."""
    sizes = place.sizes
    note.fact("backend", sizes.backend)
    with reproducible(place.device):
        for name, kind, training in (
            ("ResNet-20, step", sizes.student, True),
            ("ResNet-56, forward", sizes.teacher, False),
            ("ViT, step", sizes.vit, True),
        ):
            if note.time_for(name, 10 if place.cuda else 0):
                with note.trying(name):
                    _of(note, place, name, kind, training, {"backend": sizes.backend})
        if not place.cuda:
            note.skip(REPLAYED, "needs CUDA")
        elif note.time_for(REPLAYED, 10):
            with note.trying(REPLAYED):
                _of(note, place, REPLAYED, sizes.student, True, {"mode": "reduce-overhead"})


def _of(note: Note, place: Place, name: str, kind: Kind, training: bool, how: dict[str, str]) -> None:
    device, sizes = place.device, place.sizes
    batch = sizes.batch if training else sizes.micro_batch
    precision = choose_precision("auto", device)
    network = (build if training else calibrated)(kind, sizes.classes).to(
        device=device, memory_format=torch.channels_last
    )  # type: ignore[call-overload]
    network.train(training)
    network.keep_taps([])
    images = torch.randint(0, 256, (batch, 3, kind.size, kind.size), dtype=torch.uint8).to(device)
    labels = torch.arange(batch, device=device) % sizes.classes

    def logits() -> Tensor:
        found: Tensor = network(images).logits
        return found

    def loss() -> Tensor:
        return cross_entropy(logits(), labels).mean()

    def runs(function: Callable[[], Tensor]) -> Callable[[], Tensor]:
        def work() -> Tensor:
            autocast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
            with autocast, fastest_attention(network, device, precision), torch.set_grad_enabled(training):
                value = function()
            if training:
                network.zero_grad(set_to_none=True)
                value.backward()  # type: ignore[no-untyped-call]
            return value.detach().clone()

        return work

    function = loss if training else logits
    eager, compiled = runs(function), runs(torch.compile(function, **how))
    start = time.perf_counter()
    value = compiled()
    note.measure(f"{name}: compiling", "s", [time.perf_counter() - start])
    wanted = eager()
    note.measure(f"{name}: difference", "of the value's norm", [float((value - wanted).norm() / wanted.norm())])
    found = in_turn({"eager": eager, "compiled": compiled}, device, sizes.rounds, note, sizes.steps)
    for way, seconds in found.items():
        note.rate(f"{name}, {way}", "images/s", batch, seconds)
    note.ratio(f"{name}: eager over compiled", found["eager"], found["compiled"])
    torch._dynamo.reset()  # type: ignore[no-untyped-call]
