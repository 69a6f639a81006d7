"""What every method costs: time and memory of its terms and their gradient, beside the student's own step.

    python benchmarks/objective_cost.py [--batch 128] [--rounds 5] [--method NAME ...] [--device cpu|cuda]

Signals are random, of the sizes of a ResNet-56 and a ResNet-20 on CIFAR-100: embeddings of 64, maps of 16, 32 and 64
channels on 32 x 32, 16 x 16 and 8 x 8 places, the teacher's low-passed to 4 x 4; with 100 classes and with 1,000.
Methods have their default options, and two views of a sample where they need them. Each runs in a process of its own:
the median of the rounds, and by how much the process grew. Last, the step of a ResNet-20 in bfloat16 autocast,
forward, cross-entropy and backward, in the same run: the share is of that. One thread.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time

import click
import torch
from torch import Tensor

from pipeline import plugins
from pipeline.models import build_network
from pipeline.objectives import Batch, Context, Objective, build_objective
from pipeline.objectives.hard_label import cross_entropy
from pipeline.signals import LinearHead, Signals, SignalShapes, lowpass

PACKAGE = "pipeline.objectives"
CHANNELS, SIZES, WIDTH, SAMPLES = (16, 32, 64), (32, 16, 8), 64, 50_000
STUDENT = "resnet20's step"


def signals(batch: int, classes: int, seed: int, grid: int | None, device: str) -> Signals:
    generator = torch.Generator().manual_seed(seed)
    maps = {
        f"block{i + 1}": torch.rand(batch, c, size, size, generator=generator)
        for i, (c, size) in enumerate(zip(CHANNELS, SIZES, strict=True))
    }
    if grid is not None:
        maps = {name: lowpass(each, grid) for name, each in list(maps.items())[1:]}
    maps = {name: each.to(device).requires_grad_(grid is None) for name, each in maps.items()}
    weight = (torch.randn(classes, WIDTH, generator=generator) / 8).to(device)
    head = LinearHead(weight, torch.zeros(classes, device=device))
    embedding = maps["block3"].mean((2, 3))
    return Signals(head(embedding), embedding, maps, head)


def objective_of(name: str, classes: int, student: SignalShapes, teacher: SignalShapes, device: str) -> Objective:
    generator = torch.Generator().manual_seed(0)
    bank = {
        "embedding": torch.rand(SAMPLES, WIDTH, generator=generator).to(device),
        "logits": torch.randn(SAMPLES, classes, generator=generator).to(device),
    }
    context = Context(
        SAMPLES,
        classes,
        torch.arange(SAMPLES) % classes,
        bank=lambda signal, samples, view: bank[signal][samples],
        class_means=lambda: torch.rand(classes, WIDTH, generator=torch.Generator().manual_seed(1)),
        views_per_step=2,
    )
    return build_objective(name, {}, student, teacher, context).to(device)


def seconds(rounds: int, step: object, device: str) -> float:
    assert callable(step)
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        step()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def term(name: str, classes: int, batch: int, rounds: int, device: str) -> float:
    student = signals(batch, classes, 0, None, device)
    teacher = signals(batch, classes, 1, 4, device)
    objective = objective_of(name, classes, student.shapes(), teacher.shapes(), device)
    views = objective.needs.views
    sample = (torch.arange(batch) // views).to(device)
    rows = Batch(sample % classes, sample, torch.arange(batch, device=device) % views)

    def step() -> None:
        with torch.autocast(device, torch.bfloat16):
            terms = objective(student, teacher, rows, 0.5)
        torch.stack(list(terms.values())).sum().backward(inputs=[*wanted, *objective.parameters()], retain_graph=True)

    wanted: list[Tensor] = list(student.features.values())
    return seconds(rounds, step, device)


def student_step(classes: int, batch: int, rounds: int, device: str) -> float:
    network = build_network("cifar_resnet20", classes, input_size=32, seed=0).to(device)
    network = network.to(memory_format=torch.channels_last).train()
    images = torch.randint(0, 256, (batch, 3, 32, 32), dtype=torch.uint8, device=device)
    labels = torch.arange(batch, device=device) % classes

    def step() -> None:
        with torch.autocast(device, torch.bfloat16):
            loss = cross_entropy(network(images).logits, labels).mean()
        loss.backward()

    return seconds(rounds, step, device)


@click.command()
@click.option("--batch", default=128, show_default=True)
@click.option("--rounds", default=5, show_default=True)
@click.option("--method", "chosen", multiple=True)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--one", hidden=True, help="NAME,K: measure one, print JSON.")
def main(batch: int, rounds: int, chosen: tuple[str, ...], device: str, one: str | None) -> None:
    torch.set_num_threads(1)
    if one:
        name, number = one.rsplit(",", 1)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        run = student_step if name == STUDENT else lambda *a: term(name, *a)
        took = run(int(number), batch, rounds, device)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        memory = torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else grown
        print(json.dumps({"ms": 1000 * took, "mib": memory}))
        return
    print(f"| method | ms, K = 100 | of {STUDENT} | MiB | ms, K = 1000 | of {STUDENT} | MiB |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    names = [STUDENT, *(chosen or plugins.names(PACKAGE))]
    base: dict[int, float] = {}
    for name in names:
        cells = []
        for classes in (100, 1000):
            found = _in_its_own_process(name, classes, batch, rounds, device)
            base.setdefault(classes, found["ms"])
            cells += [f"{found['ms']:.1f}", f"{found['ms'] / base[classes]:.2f}", f"{found['mib']:.0f}"]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def _in_its_own_process(name: str, classes: int, batch: int, rounds: int, device: str) -> dict[str, float]:
    arguments = ["--one", f"{name},{classes}", "--batch", str(batch), "--rounds", str(rounds), "--device", device]
    result = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{name}: {result.stderr}")
    found: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
