"""What attention by plain products costs against torch's fused kernels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from gpu_parts.pieces import build, same
from gpu_parts.record import Note
from gpu_parts.running import Place
from gpu_parts.sizes import Kind
from gpu_parts.timing import Work, in_turn
from pipeline.models.device import choose_precision, reproducible
from pipeline.objectives.methods.hard_label import cross_entropy

PLAIN = "plain products"
COMPARED = 3


@contextmanager
def strictly() -> Iterator[None]:
    """Flash attention has a deterministic form, which it takes only where others are refused."""
    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("error")
    try:
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            yield
    finally:
        torch.set_deterministic_debug_mode(before)


def ways(cuda: bool) -> dict[str, object]:
    """Makes a context for each way."""
    found: dict[str, object] = {PLAIN: lambda: sdpa_kernel(SDPBackend.MATH), "fused": nullcontext}
    if cuda:
        found["flash"] = lambda: sdpa_kernel(SDPBackend.FLASH_ATTENTION)
        found["flash, deterministic"] = strictly
        found["memory-efficient"] = lambda: sdpa_kernel(SDPBackend.EFFICIENT_ATTENTION)
        found["cudnn"] = lambda: sdpa_kernel(SDPBackend.CUDNN_ATTENTION)
    return found


def attention(note: Note, place: Place) -> None:
    """Steps of a ViT with few tokens, and of one with many."""
    sizes = place.sizes
    for tokens, kind, batch in ((65, sizes.vit, sizes.batch), (197, sizes.large_vit, max(sizes.batch // 2, 1))):
        if note.time_for(f"{tokens} tokens", 5):
            _of(note, place, f"{tokens} tokens", kind, batch)
    if not place.cuda:
        for what in ("flash, deterministic", "memory"):
            note.skip(what, "needs CUDA")


def _of(note: Note, place: Place, name: str, kind: Kind, batch: int) -> None:
    device, sizes = place.device, place.sizes
    precision = choose_precision("auto", device)
    first = build(kind, sizes.classes).to(device)
    first.keep_taps([])
    note.fact(f"{name}: network", f"{kind.model}, {first.places} places, batch {batch}, {precision}")
    images = torch.randint(0, 256, (batch, 3, kind.size, kind.size), dtype=torch.uint8).to(device)
    labels = torch.arange(batch, device=device) % sizes.classes
    works: dict[str, Work] = {}

    def student(way: object) -> tuple[torch.nn.Module, Work]:
        network = deepcopy(first)
        optimizer = torch.optim.SGD(network.parameters(), 0.01, 0.9)

        def step() -> None:
            with way(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):  # type: ignore[operator]
                loss = cross_entropy(network(images).logits, labels).mean()
                optimizer.zero_grad()
                loss.backward()
            optimizer.step()

        return network, step

    with reproducible(device):
        for label, way in ways(place.cuda).items():
            with note.trying(f"{name}, {label}"):
                (one, step), (other, again) = student(way), student(way)
                if place.cuda:
                    step()
                    torch.cuda.reset_peak_memory_stats()
                    before = torch.cuda.memory_allocated()
                    step()
                    more = (torch.cuda.max_memory_allocated() - before) / 2**20
                    note.measure(f"{name}, {label}: memory", "MiB", [more])
                    again(), again()
                for _ in range(COMPARED):
                    step(), again()
                note.fact(f"{name}, {label}: repeats itself", same(one.state_dict(), other.state_dict()))
                works[label] = step
        found = in_turn(works, device, sizes.rounds, note, sizes.steps)
        for label, seconds in found.items():
            note.rate(f"{name}, {label}", "images/s", batch, seconds)
            if label != PLAIN:
                note.ratio(f"{name}: {label} over plain products", found[PLAIN], seconds)
