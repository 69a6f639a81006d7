"""What every method costs: time and memory of its terms and their gradient, beside the student's own step.

    python benchmarks/objective_cost.py [--batch 128] [--rounds 5] [--method NAME] [--device cpu|cuda]

Signals are random: the student's of the shapes that a ResNet-20 has on CIFAR-100, maps as it hands them over in
training (channels last, in its precision: bfloat16 where the device has instructions for it), logits and embedding in
float32; the teacher's those of a ResNet-56 from a cache, two blocks low-passed to 4 x 4. With 100 classes and with
1,000. Methods have their default options, and two views of a sample where they need them.

Each runs in a process of its own, on one thread: the median of the rounds, and in MiB what a step needs at its peak
beyond signals and the teacher's bank, together with what the method keeps (parameters, buffers). First in the table is
the step of the ResNet-20 itself, forward, cross-entropy and backward, in the same run: shares are
of that.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor, nn

from pipeline import plugins
from pipeline.experiment.networks import shapes_of
from pipeline.models import build_network
from pipeline.models.device import Precision, choose_precision
from pipeline.objectives import Batch, Context, build_objective
from pipeline.objectives.methods.hard_label import cross_entropy
from pipeline.signals import LinearHead, Signals, SignalShapes
from pipeline.store.format.provenance import device_name

PACKAGE = "pipeline.objectives.methods"
SAMPLES, WIDTH, GRID = 50_000, 64, 4
MAPS = {"block2": (32, GRID, GRID), "block3": (WIDTH, GRID, GRID)}
"""What is cached of the teacher's maps."""

STUDENT = "resnet20's step"
WARM_UP = 8
"""Rows of the batch by which everything is built that is built once."""


@dataclass(frozen=True)
class Case:
    """Something that is timed. given: the inputs of a step of that many rows. keeps: what stays between steps."""

    given: Callable[[int], Any]
    step: Callable[[Any], None]
    keeps: nn.Module


def student_signals(shapes: SignalShapes, rows: int, device: str, precision: Precision) -> Signals:
    """Leaves that want gradients, as a network in training says them."""
    generator = torch.Generator().manual_seed(0)

    def leaf(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    def handed_over(maps: Tensor) -> Tensor:
        return maps.to(device, getattr(torch, precision), memory_format=torch.channels_last).requires_grad_()

    assert shapes.embedding is not None
    features = {tap: handed_over(leaf(rows, *shape)) for tap, shape in shapes.features.items()}
    vectors = [(rows, shapes.logits), (rows, shapes.embedding), (shapes.logits, shapes.embedding), (shapes.logits,)]
    logits, embedding, weight, bias = (leaf(*shape).to(device).requires_grad_() for shape in vectors)
    return Signals(logits, embedding, features, LinearHead(weight, bias, linear=bool(shapes.linear)))


def teacher_signals(classes: int, rows: int, device: str) -> Signals:
    """As they are decoded from a cache."""
    generator = torch.Generator().manual_seed(1)
    features = {tap: torch.rand(rows, *shape, generator=generator).to(device) for tap, shape in MAPS.items()}
    head = LinearHead(torch.randn(classes, WIDTH, generator=generator).to(device) / 8, torch.zeros(classes).to(device))
    embedding = features["block3"].mean((2, 3))
    return Signals(head(embedding), embedding, features, head)


@functools.cache  # made when a method asks for it
def bank(signal: str, width: int, device: str) -> Tensor:
    """What the teacher said of all samples: in training it lies in the cache's files."""
    return torch.rand(SAMPLES, width, generator=torch.Generator().manual_seed(2)).to(device)


def method_case(name: str, classes: int, device: str, precision: Precision) -> Case:
    """A method's terms and their gradient."""
    shapes = shapes_of(build_network("cifar_resnet20", classes, input_size=32, seed=0))
    widths = {"logits": classes, "embedding": WIDTH}
    context = Context(
        SAMPLES,
        classes,
        torch.arange(SAMPLES) % classes,
        bank=lambda signal, samples, view: bank(signal, widths[signal], device)[samples],
        class_means=lambda: torch.rand(classes, WIDTH, generator=torch.Generator().manual_seed(3)),
        views_per_step=2,
        nearest=lambda count, same: torch.arange(SAMPLES * count).view(SAMPLES, count) % SAMPLES,
    )
    objective = build_objective(name, {}, shapes, teacher_signals(classes, 1, device).shapes(), context).to(device)

    def given(rows: int) -> tuple[Signals, Signals, Batch]:
        row = torch.arange(rows, device=device)
        sample = row // objective.needs.views
        said = student_signals(shapes, rows, device, precision), teacher_signals(classes, rows, device)
        return *said, Batch(sample % classes, sample, row % objective.needs.views)

    def step(inputs: tuple[Signals, Signals, Batch]) -> None:
        student, teacher, batch = inputs
        assert student.embedding is not None
        assert student.head is not None
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
            terms = objective(student, teacher, batch, 0.5)
        torch.stack(list(terms.values())).sum().backward()
        vectors = student.logits, student.embedding, student.head.weight, student.head.bias
        for leaf in (*student.features.values(), *vectors, *objective.parameters()):
            leaf.grad = None

    return Case(given, step, objective)


def student_case(classes: int, device: str, precision: Precision) -> Case:
    """The step of a ResNet-20 with hard labels."""
    network = build_network("cifar_resnet20", classes, input_size=32, seed=0).to(device)
    network = network.to(memory_format=torch.channels_last).train()

    def given(rows: int) -> tuple[Tensor, Tensor]:
        images = torch.randint(0, 256, (rows, 3, 32, 32), dtype=torch.uint8, device=device)
        return images, torch.arange(rows, device=device) % classes

    def step(inputs: tuple[Tensor, Tensor]) -> None:
        images, labels = inputs
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
            loss = cross_entropy(network(images).logits, labels).mean()
        loss.backward()
        network.zero_grad()

    return Case(given, step, network)


class Peak:
    """The most memory that is in use from now on, beyond what is in use now."""

    def __init__(self, device: str) -> None:
        self.device = device
        gc.collect()
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
        else:
            ctypes.CDLL(None).malloc_trim(0)  # what was freed is not to be taken for what is free
            Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
            self.before = _status("VmRSS")

    def bytes(self) -> int:
        """Since it was made."""
        most = torch.cuda.max_memory_allocated() if self.device == "cuda" else _status("VmHWM")
        return most - self.before


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def measured(case: Case, batch: int, rounds: int, device: str) -> dict[str, float]:
    """`ms` of a step, the median of the rounds, and `mib` at its peak."""
    case.step(case.given(WARM_UP))
    inputs = case.given(batch)
    peak, times = Peak(device), []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        case.step(inputs)
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    kept = sum(x.numel() * x.element_size() for x in (*case.keeps.parameters(), *case.keeps.buffers()))
    return {"ms": 1000 * statistics.median(times[1:]), "mib": (peak.bytes() + kept) / 2**20}


@click.command()
@click.option("--batch", default=128, show_default=True)
@click.option("--rounds", default=5, show_default=True)
@click.option("--method", "chosen", multiple=True)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--one", hidden=True, help="NAME,K: measure one, print JSON.")
def main(batch: int, rounds: int, chosen: tuple[str, ...], device: str, one: str | None) -> None:
    torch.set_num_threads(1)
    precision = choose_precision("auto", torch.device(device))
    if one:
        name, number = one.rsplit(",", 1)
        make = student_case if name == STUDENT else functools.partial(method_case, name)
        case = make(int(number), device, precision)
        print(json.dumps(measured(case, batch, rounds, device)))
        return
    print(f"{precision}, {device_name(torch.device(device))}\n")
    print(f"| method | ms, K = 100 | of {STUDENT} | ms, K = 1000 | MiB, K = 100 | MiB, K = 1000 |")
    print("| --- | --- | --- | --- | --- | --- |")
    base = None
    for name in [STUDENT, *(chosen or plugins.names(PACKAGE))]:
        few, many = (_in_its_own_process(name, classes, batch, rounds, device) for classes in (100, 1000))
        base = base or few["ms"]
        times = f"{few['ms']:.1f} | {few['ms'] / base:.1%} | {many['ms']:.1f}"
        print(f"| {name} | {times} | {few['mib']:.0f} | {many['mib']:.0f} |", flush=True)


def _in_its_own_process(name: str, classes: int, batch: int, rounds: int, device: str) -> dict[str, float]:
    arguments = ["--one", f"{name},{classes}", "--batch", str(batch), "--rounds", str(rounds), "--device", device]
    result = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{name}: {result.stderr}")
    found: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
