"""A ViT's training step with attention as `pipeline.models.attention` chooses it, over that with torch's own choice.

    python benchmarks/attention.py [--size 32] [--patch 4] [--batch 128] [--rounds 5] [--precision bfloat16]

Rounds time both in turn, so that a drift of the machine's speed hits both alike; median [lowest, highest].
"""

from __future__ import annotations

import statistics
import time
from contextlib import nullcontext
from typing import get_args

import click
import torch

from pipeline.models import build_network
from pipeline.models.attention import fastest_attention
from pipeline.models.device import Precision, choose_device
from pipeline.objectives.methods.hard_label import cross_entropy

STEPS = 3


@click.command()
@click.option("--size", default=32, show_default=True)
@click.option("--patch", default=4, show_default=True)
@click.option("--batch", default=128, show_default=True)
@click.option("--rounds", default=5, show_default=True)
@click.option("--precision", type=click.Choice(get_args(Precision)), default="bfloat16", show_default=True)
def main(size: int, patch: int, batch: int, rounds: int, precision: Precision) -> None:
    device = choose_device()
    options = {"img_size": size, "patch_size": patch, "depth": 6, "global_pool": "avg"}
    network = build_network("vit_tiny_patch16_224", 100, input_size=size, options=options, seed=0).to(device)
    images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, device=device)
    labels = torch.randint(0, 100, (batch,), device=device)
    optimizer = torch.optim.SGD(network.parameters(), 0.01, 0.9)

    def seconds(chosen: bool) -> float:
        start = time.perf_counter()
        for _ in range(STEPS):
            way = fastest_attention(network, device, precision) if chosen else nullcontext()
            with way, torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                value = cross_entropy(network(images).logits, labels).mean()
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / STEPS

    seconds(True), seconds(False)  # warm up
    ratios = sorted(seconds(True) / seconds(False) for _ in range(rounds))
    print(f"{network.places} tokens, batch {batch}, {precision}, {device.type}, {torch.get_num_threads()} threads")
    print(f"time of a step {statistics.median(ratios):.2f} x [{ratios[0]:.2f}, {ratios[-1]:.2f}]")


if __name__ == "__main__":
    main()
