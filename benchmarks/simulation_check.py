"""The simulated cluster against a real one: threads that sleep for the teacher, real files, a real ledger.

    python benchmarks/simulation_check.py [--rounds 3] [--folder DIR]

Worker threads take units, sleep, write the unit's files durably under another name and hand them to the one thread
that renames them and appends to the ledger (`pipeline.store`'s own). Workers die at random moments and come back.
What writing and committing cost is measured first and given to the simulation. Printed: seconds of both, and their
ratio, without failures and with them.
"""

from __future__ import annotations

import queue
import random
import statistics
import tempfile
import threading
import time
from collections import deque
from pathlib import Path

import click
import numpy as np
from cluster import NEVER, Cluster, Job
from simulation import simulate

from pipeline.files import sync_directory
from pipeline.publishing.ledger import Ledger
from pipeline.store.format.chunks import write_chunk

JOB = Job(units=160, views=100, bytes=600_000, files=6)
WORKERS, GPU, RESTART, DEATH = 8, 250.0, 0.5, 3.0
CHUNK = np.zeros(JOB.bytes // JOB.files // 8)


class Run:
    """One run in `folder`. death: mean seconds of a worker's life."""

    def __init__(self, folder: Path, death: float, seed: int) -> None:
        self.folder, self.death, self.random = folder, death, random.Random(seed)
        self.waiting, self.lock = deque(range(JOB.units)), threading.Lock()
        self.written: queue.Queue[tuple[int, list[tuple[Path, int]]]] = queue.Queue()
        self.ledger = Ledger(folder)
        self.writing: list[float] = []
        self.committing: list[float] = []

    def seconds(self) -> float:
        workers = [threading.Thread(target=self.work, args=(n,), daemon=True) for n in range(WORKERS)]
        begin = time.perf_counter()
        for worker in workers:
            worker.start()
        while len(self.ledger.units) < JOB.units:
            self.commit(*self.written.get())
        return time.perf_counter() - begin

    def work(self, number: int) -> None:
        left = self.random.expovariate(1 / self.death) if self.death < NEVER else NEVER
        while len(self.ledger.units) < JOB.units:
            with self.lock:
                unit = self.waiting.popleft() if self.waiting else None
            if unit is None:
                time.sleep(0.005)
                continue
            time.sleep(min(JOB.views / GPU, left))
            left -= JOB.views / GPU
            begin = time.perf_counter()
            files = self.write(unit, number) if left > 0 else []
            left -= time.perf_counter() - begin
            if left > 0:
                self.writing.append(time.perf_counter() - begin)
                self.written.put((unit, files))
            else:  # it died; another one comes
                with self.lock:
                    self.waiting.appendleft(unit)
                time.sleep(RESTART)
                left = self.random.expovariate(1 / self.death)

    def write(self, unit: int, number: int) -> list[tuple[Path, int]]:
        files = []
        for i in range(JOB.files):
            path = self.folder / f"array{i}" / f"{unit}.{number}"
            path.parent.mkdir(exist_ok=True)
            files.append((path, write_chunk(path, CHUNK)))
        return files

    def commit(self, unit: int, files: list[tuple[Path, int]]) -> None:
        begin = time.perf_counter()
        for path, _ in files:
            path.rename(path.with_name(f"{unit}"))
            sync_directory(path.parent)
        self.ledger.append(f"0/{unit}", {f"array{i}/c/0/{unit}": crc for i, (_, crc) in enumerate(files)})
        self.committing.append(time.perf_counter() - begin)


@click.command()
@click.option("--rounds", default=3, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), default=None, help="Where to work.")
def main(rounds: int, folder: Path | None) -> None:
    for name, death in (("no failures", NEVER), (f"a death every {DEATH:.0f} s of each worker", DEATH)):
        real, simulated, writing, committing = [], [], [], []
        for seed in range(rounds):
            with tempfile.TemporaryDirectory(dir=folder) as work:
                run = Run(Path(work), death, seed)
                real.append(run.seconds())
            writing.append(statistics.mean(run.writing))
            committing.append(statistics.mean(run.committing))
            # Here a worker writes and computes in turn, as one unit's time.
            cost = JOB.views / GPU + writing[-1]
            cluster = Cluster(
                WORKERS, gpu=JOB.views / cost, commit=committing[-1], death=death, restart=RESTART, time_to_live=NEVER
            )
            simulated += [simulate(JOB, cluster, 100 * seed + k).seconds for k in range(20)]
        figures = [statistics.mean(values) for values in (real, simulated, writing, committing)]
        print(f"{name}: real {figures[0]:.2f} s [{min(real):.2f}, {max(real):.2f}],", end=" ")
        print(f"simulated {figures[1]:.2f} s, ratio {figures[0] / figures[1]:.2f};", end=" ")
        print(f"writing a unit {1e3 * figures[2]:.0f} ms, committing {1e3 * figures[3]:.0f} ms")


if __name__ == "__main__":
    main()
