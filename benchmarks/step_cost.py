"""What objectives add to a student's training step, as a ratio within one run.

    python benchmarks/step_cost.py [--model cifar_resnet20] [--batch 128] [--rounds 9]

Random images and random answers of a ResNet-56 (grids 4 x 4 of its two deepest blocks) lie in memory; every
round times each objective set in turn, so that a drift of the machine's speed hits all alike. Printed: images
per second, and the step's time over that of the first set, median [lowest, highest] over rounds.
"""

from __future__ import annotations

import statistics
import time

import click
import torch

from pipeline.experiment.networks import shapes_of
from pipeline.models import build_network
from pipeline.models.device import choose_device, choose_precision
from pipeline.objectives import Batch, Context, ObjectiveEntry, ObjectiveSet
from pipeline.signals import LinearHead, Signals, SignalShapes

KD = [{"name": "hard-label", "weight": 0.1}, {"name": "kd", "weight": 0.9}]
SETS = {"kd": KD, "hard": [{"name": "hard-label"}], "lfcc-kd": [*KD, {"name": "lfcc"}]}
TEACHER = SignalShapes(100, 64, {"block2": (32, 4, 4), "block3": (64, 4, 4)}, linear=True)
STEPS = 10


def answers(batch: int, device: torch.device) -> Signals:
    features = {tap: torch.randn(batch, *shape, device=device) for tap, shape in TEACHER.features.items()}
    head = LinearHead(torch.randn(100, 64, device=device), torch.zeros(100, device=device))
    embedding = torch.randn(batch, 64, device=device)
    return Signals(head(embedding), embedding, features, head)


@click.command()
@click.option("--model", default="cifar_resnet20", show_default=True)
@click.option("--batch", default=128, show_default=True)
@click.option("--rounds", default=9, show_default=True)
def main(model: str, batch: int, rounds: int) -> None:
    device = choose_device()
    precision = choose_precision("auto", device)
    images = torch.randint(0, 256, (batch, 3, 32, 32), dtype=torch.uint8, device=device)
    rows = torch.arange(batch, device=device)
    known = Batch(torch.randint(0, 100, (batch,), device=device), rows, torch.zeros_like(rows))
    teacher = answers(batch, device)
    steps = {}
    for name, entries in SETS.items():
        network = build_network(model, 100, input_size=32, seed=0)
        parsed = [ObjectiveEntry.model_validate(entry) for entry in entries]
        objectives = ObjectiveSet(name, parsed, shapes_of(network), TEACHER, Context(50_000, 100)).to(device)
        network.keep_taps([need.removeprefix("features/") for need in objectives.needs.student if "/" in need])
        network.to(device=device, memory_format=torch.channels_last)
        optimizer = torch.optim.SGD([*network.parameters(), *objectives.parameters()], 0.01, 0.9)

        def step(network=network, objectives=objectives, optimizer=optimizer) -> None:
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                value = objectives(network(images), teacher, known, 0.0)
            optimizer.zero_grad()
            value.total.backward()
            optimizer.step()

        steps[name] = step
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(rounds + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            for _ in range(STEPS):
                step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if round_:  # the first warms up
                seconds[name].append((time.perf_counter() - start) / STEPS)
    first = next(iter(steps))
    print(f"{model}, batch {batch}, {precision}, {device.type}, {torch.get_num_threads()} threads, {rounds} rounds")
    for name, values in seconds.items():
        ratios = [value / base for value, base in zip(values, seconds[first], strict=True)]
        rate = batch / statistics.median(values)
        print(f"{name:>8} {rate:>8,.0f} images/s  {statistics.median(ratios):.2f} x {first}", end=" ")
        print(f"[{min(ratios):.2f}, {max(ratios):.2f}]")


if __name__ == "__main__":
    main()
