"""A step of the digits demo's students while another process works beside them, over a step alone; by how threads wait.

    python benchmarks/busy.py [--rounds 7] [--steps 20] [--beside 1]

Torch's threads wait for each other at the end of every operation. By default they spin for a while before they sleep. A
thread that spins takes a core that the other process could have, and the system then stops the thread that is waited
for as often as any. Each setting is a process of its own, since OpenMP reads it when torch is loaded; rounds ask all of
them in turn. Milliseconds of a step: the quickest, which is what a quiet machine would take, and the median over all
rounds with the lowest and highest median of a round.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click

SETTINGS: dict[str, dict[str, str]] = {
    "as torch comes": {},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "GOMP_SPINCOUNT=10000": {"GOMP_SPINCOUNT": "10000"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
OURS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS", "KMP_BLOCKTIME")
STUDENTS = {
    "small": ("cifar_resnet8", 64, {"widths": [16, 16, 16]}),
    "vit": (
        "vit_tiny_patch16_224",
        32,
        {"img_size": 16, "patch_size": 4, "embed_dim": 64, "depth": 2, "num_heads": 4, "global_pool": "avg"},
    ),
}
"""As in `configs/digits.yaml`: the model, the batch, and its options."""


def serve(steps: int) -> None:
    """Answer every line of the input, the name of a student, with the milliseconds of each of some of its steps."""
    import torch

    from pipeline.models import build_network

    trained = {}
    for name, (model, batch, options) in STUDENTS.items():
        network = build_network(model, 10, input_size=16, options=options, seed=0)
        images = torch.randint(0, 256, (batch, 3, 8, 8), dtype=torch.uint8)
        trained[name] = network, images, torch.optim.SGD(network.parameters(), 0.01, 0.9)
    for line in sys.stdin:
        network, images, optimizer = trained[line.strip()]
        seen = []
        for _ in range(steps):
            start = time.perf_counter()
            optimizer.zero_grad()
            network(images).logits.square().mean().backward()
            optimizer.step()
            seen.append(1e3 * (time.perf_counter() - start))
        print(json.dumps(seen), flush=True)


@contextmanager
def others(count: int) -> Iterator[None]:
    """So many processes that never rest."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


@click.command()
@click.option("--rounds", default=7, show_default=True)
@click.option("--steps", default=20, show_default=True)
@click.option("--beside", default=1, show_default=True, help="Processes that work at the same time.")
def main(rounds: int, steps: int, beside: int) -> None:
    """Print a table."""
    clean = {name: value for name, value in os.environ.items() if name not in OURS}
    command = [sys.executable, __file__, "serve", str(steps)]
    processes = {
        name: subprocess.Popen(
            command, env=clean | setting, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        for name, setting in SETTINGS.items()
    }

    def ask(setting: str, student: str) -> list[float]:
        process = processes[setting]
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{student}\n")
        process.stdin.flush()
        steps_taken: list[float] = json.loads(process.stdout.readline())
        return steps_taken

    found: dict[str, dict[str, dict[str, list[list[float]]]]] = {
        when: {student: {setting: [] for setting in SETTINGS} for student in STUDENTS} for when in ("alone", "beside")
    }
    for student in STUDENTS:
        for setting in SETTINGS:
            ask(setting, student)  # the first steps take longer
    for _ in range(rounds):
        for when, count in (("alone", 0), ("beside", beside)):
            with others(count):
                for student in STUDENTS:
                    for setting in SETTINGS:
                        found[when][student][setting].append(ask(setting, student))
    for process in processes.values():
        process.kill()
        process.wait()
    print("| student | setting | quickest | alone | beside |\n| --- | --- | ---: | ---: | ---: |")
    for student in STUDENTS:
        for setting in SETTINGS:
            texts = [f"{min(min(seen) for seen in found['alone'][student][setting]):.1f}"]
            for when in ("alone", "beside"):
                medians = [statistics.median(seen) for seen in found[when][student][setting]]
                texts.append(f"{statistics.median(medians):.1f} [{min(medians):.1f}, {max(medians):.1f}]")
            print(f"| {student} | {setting} | {' | '.join(texts)} |")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(int(sys.argv[2]))
    else:
        main()
