"""What fused optimisers gain over the loop."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import nn

from gpu_parts.pieces import build, same
from gpu_parts.record import Note
from gpu_parts.running import Place
from gpu_parts.timing import in_turn

CLASSES: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
    "sgd": (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}),
    "adamw": (torch.optim.AdamW, {"lr": 1e-3, "weight_decay": 0.05}),
}
WAYS = {"loop": {"foreach": False, "fused": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}
STEPS = 3


def optimisers(note: Note, place: Place) -> None:
    """Steps of the optimisers alone, over the parameters of a ResNet-20 (SGD) and of a ViT (AdamW)."""
    sizes, device = place.sizes, place.device
    for name, kind in (("sgd", sizes.student), ("adamw", sizes.vit)):
        first = build(kind, sizes.classes).to(device)
        torch.manual_seed(0)
        for parameter in first.parameters():
            parameter.grad = torch.randn_like(parameter) / 100
        made: dict[str, tuple[nn.Module, torch.optim.Optimizer]] = {}
        for way, how in WAYS.items():
            with note.trying(f"{name}, {way}"):
                made[way] = _made(first, name, how)
                for _ in range(STEPS):
                    made[way][1].step()
                if way != "loop":
                    equal = same(made[way][0].state_dict(), made["loop"][0].state_dict())
                    note.fact(f"{name}: {way}: same bits", equal)
        works = {way: optimizer.step for way, (_, optimizer) in made.items()}
        found = in_turn(works, device, sizes.rounds, note, sizes.steps)
        for way, seconds in found.items():
            note.measure(f"{name}, {way}", "ms", [1000 * each for each in seconds])
            if way != "loop":
                note.ratio(f"{name}: {way} over loop", found["loop"], seconds)
    with note.trying("fused: skips a step that is not finite"):
        network, optimizer = _made(first, name, WAYS["fused"])
        before = deepcopy(network.state_dict())
        for parameter in network.parameters():
            parameter.grad.fill_(float("nan"))  # type: ignore[union-attr]
        optimizer.grad_scale, optimizer.found_inf = None, torch.ones((), device=device)  # type: ignore[attr-defined]
        optimizer.step()
        note.fact("fused: skips a step that is not finite", same(network.state_dict(), before))


def _made(first: nn.Module, name: str, how: dict[str, bool]) -> tuple[nn.Module, torch.optim.Optimizer]:
    network = deepcopy(first)
    for parameter, given in zip(network.parameters(), first.parameters(), strict=True):
        assert given.grad is not None
        parameter.grad = given.grad.clone()
    kind, options = CLASSES[name]
    return network, kind(network.parameters(), **options, **how)
