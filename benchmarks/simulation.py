"""A discrete-event simulation of `cache-teacher` on many workers: units of known cost, a shared disk, one committer.

A worker computes a task, writes it while it computes the next, and hands it to the coordinator, which alone renames
files and appends to the ledger, unit by unit. A task is one unit, or several views of a row block, whose images are
decoded once: as many as `pipeline.store.cluster.outstanding` would take. Whatever fails, what the ledger lists stays,
and the rest is computed again, one unit at a time:

- a worker dies: others take the units that it computed or wrote; it is replaced;
- a worker hangs: after its time to live others take its units; when it comes back it delivers what it had, and the
  coordinator drops what the ledger lists already;
- the coordinator dies: all that is not in the ledger is lost, on every worker. It comes back, looks at every file
  that the ledger lists, and goes on.

`simulate` is a function of its arguments.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from cluster import NEVER, Cluster, Commit, Job, Outcome
from simulated_disk import Disk

from pipeline.store.cluster.worker import UNITS_AT_ONCE
from pipeline.store.making.shared_images import SECONDS_AT_ONCE


@dataclass
class Attempt:
    """Units in a worker's hands, the seconds that they take and have taken. orphan: others have the units, too."""

    units: tuple[int, ...]
    worker: int
    cost: float
    done: float = 0.0
    since: float = 0.0
    orphan: bool = False


class Worker:
    def __init__(self, number: int, speed: float) -> None:
        self.number, self.speed = number, speed
        self.state, self.since = "start", 0.0
        self.life = 0  # raised to forget what was to happen
        self.computing: Attempt | None = None
        self.writing: Attempt | None = None


class Simulation:
    def __init__(self, job: Job, cluster: Cluster, seed: int) -> None:
        self.job, self.cluster, self.random = job, cluster, random.Random(seed)
        self.now, self.count = 0.0, 0
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.disk, self.outcome = Disk(cluster.disk, cluster.link), Outcome()
        order = range(job.units) if job.most == 1 else sorted(range(job.units), key=lambda unit: unit % job.blocks)
        self.waiting, self.again, self.ledger = deque(order), deque[int](), set[int]()
        self.unit_seconds = 0.0  # as the last that was handed in took; 0 as long as none was
        self.written: deque[Attempt] = deque()  # for the coordinator; it works on the first
        self.alive, self.life = True, 0
        slow = round(cluster.slow * cluster.workers)
        self.workers = [Worker(n, cluster.slow_speed if n < slow else 1.0) for n in range(cluster.workers)]

    def run(self) -> Outcome:
        working = {"idle", "schedule", "compute", "blocked"}
        for worker in self.workers:
            self.later(self.cluster.prepare + self.cluster.start, self.mine(worker, self.ask))
            self.threaten(worker, self.cluster.death, working, self.die)
            self.threaten(worker, self.cluster.hang, {"compute"}, self.hang)
        self.later(self.drawn(self.cluster.coordinator_death), self.coordinator_dies)
        while len(self.ledger) < self.job.units:
            written = self.disk.next()
            event = heapq.heappop(self.events) if self.events and self.events[0][0] <= written else None
            self.now = event[0] if event else written
            self.disk.move(self.now)
            action = event[2] if event else self.disk.pop()
            action()
        for worker in self.workers:
            for attempt in self.drop(worker):
                self.outcome.lost += attempt.done
            self.enter(worker, "end")
        self.outcome.lost += sum(attempt.done for attempt in self.written)
        self.outcome.seconds, self.outcome.disk_busy = self.now, self.disk.busy
        return self.outcome

    def later(self, delay: float, action: Callable[[], None]) -> None:
        if delay < NEVER:
            self.count += 1
            heapq.heappush(self.events, (self.now + delay, self.count, action))

    def mine(self, worker: Worker, action: Callable[[Worker], None]) -> Callable[[], None]:
        """The action, unless the worker's life takes another turn before."""
        life = worker.life
        return lambda: action(worker) if worker.life == life else None

    def drawn(self, mean: float) -> float:
        return self.random.expovariate(1 / mean) if 0 < mean < NEVER else mean

    def enter(self, worker: Worker, state: str) -> None:
        spent = self.outcome.spent
        spent[worker.state] = spent.get(worker.state, 0.0) + self.now - worker.since
        worker.state, worker.since = state, self.now

    # A worker's round: ask, compute, write.

    def ask(self, worker: Worker) -> None:
        units = self.task() if self.alive else ()
        if not units:
            self.enter(worker, "idle" if self.alive else "stranded")
            return
        noise = self.random.lognormvariate(0, self.cluster.spread) if self.cluster.spread else 1.0
        views = len(units) * self.job.views
        cost = views / self.cluster.views(len(units)) / worker.speed * noise
        worker.computing = Attempt(units, worker.number, cost)
        self.enter(worker, "schedule")
        self.later(self.cluster.schedule, self.mine(worker, self.compute))

    def task(self) -> tuple[int, ...]:
        """The next units to compute together; none if all are in somebody's hands."""
        while self.again and self.again[0] in self.ledger:
            self.again.popleft()  # a worker that had been given up has delivered it
        if self.again:
            return (self.again.popleft(),)
        found: list[int] = []
        count = self.size()
        while self.waiting and len(found) < count:
            if found and self.waiting[0] % self.job.blocks != found[0] % self.job.blocks:
                break
            found.append(self.waiting.popleft())
        return tuple(found)

    def size(self) -> int:
        """How many units the next task should have."""
        if self.job.most == 1 or not self.unit_seconds:
            return 1
        processes = self.cluster.processes
        balanced = len(self.waiting) // (UNITS_AT_ONCE * self.cluster.workers * processes)
        return max(1, min(self.job.most, balanced, int(SECONDS_AT_ONCE / (self.unit_seconds * processes))))

    def compute(self, worker: Worker) -> None:
        attempt = worker.computing
        assert attempt is not None
        attempt.since = self.now
        self.enter(worker, "compute")
        self.later(attempt.cost - attempt.done, self.mine(worker, self.computed))

    def stop(self, worker: Worker) -> None:
        """Count what was computed until now, and forget what was to happen."""
        if worker.state == "compute" and worker.computing is not None:
            worker.computing.done += self.now - worker.computing.since
        worker.life += 1

    def computed(self, worker: Worker) -> None:
        self.stop(worker)
        if worker.writing is not None:
            self.enter(worker, "blocked")
        else:
            self.write(worker)

    def write(self, worker: Worker) -> None:
        attempt, worker.computing = worker.computing, None
        assert attempt is not None
        if self.cluster.disk == self.cluster.link == NEVER:
            self.deliver(attempt)
        else:
            worker.writing = attempt
            self.disk.add(self.job.bytes * len(attempt.units), lambda: self.arrived(worker, attempt))
        self.ask(worker)

    def arrived(self, worker: Worker, attempt: Attempt) -> None:
        if worker.writing is not attempt:
            return  # its worker or the coordinator died meanwhile; nobody will rename this file
        worker.writing = None
        self.deliver(attempt)
        if worker.state == "blocked":
            self.write(worker)

    # The coordinator: one unit after the other.

    def deliver(self, attempt: Attempt) -> None:
        idle, count = not self.written, len(attempt.units)
        self.unit_seconds = attempt.done / count
        for unit in attempt.units:
            self.written.append(replace(attempt, units=(unit,), done=attempt.done / count))
        if self.alive and idle:
            self.commit()

    def commit(self) -> None:
        life, begin = self.life, self.now
        self.later(self.cluster.commit, lambda: self.committed(begin) if self.life == life else None)

    def committed(self, begin: float) -> None:
        attempt = self.written.popleft()
        (unit,) = attempt.units
        accepted = unit not in self.ledger
        self.ledger.add(unit)
        self.outcome.commits.append(Commit(unit, attempt.worker, begin, self.now, accepted))
        if accepted:
            self.outcome.useful += attempt.done
        else:
            self.outcome.lost += attempt.done
        if self.written:
            self.commit()

    # Failures.

    def threaten(self, worker: Worker, mean: float, states: Collection[str], strike: Callable[[Worker], None]) -> None:
        """Let failures strike at random, for ever; in other states they do not count."""

        def fall() -> None:
            if worker.state in states:
                strike(worker)
            self.threaten(worker, mean, states, strike)

        self.later(self.drawn(mean), fall)

    def drop(self, worker: Worker) -> list[Attempt]:
        """Take everything out of a worker's hands."""
        self.stop(worker)
        held = [attempt for attempt in (worker.computing, worker.writing) if attempt is not None]
        worker.computing = worker.writing = None
        return held

    def lose(self, attempts: Collection[Attempt]) -> None:
        """What was computed is lost; others take the units, the idle at once."""
        for attempt in attempts:
            self.outcome.lost += attempt.done
            if not attempt.orphan:
                self.give(attempt.units)

    def give(self, units: Collection[int]) -> None:
        for unit in units:
            self.again.appendleft(unit)
            idle = next((worker for worker in self.workers if worker.state == "idle"), None)
            if idle is not None and self.alive:
                self.ask(idle)

    def die(self, worker: Worker) -> None:
        self.outcome.failures["death"] += 1
        held = self.drop(worker)
        self.enter(worker, "down")
        self.later(self.cluster.restart + self.cluster.start, self.mine(worker, self.ask))
        self.lose(held)

    def hang(self, worker: Worker) -> None:
        self.outcome.failures["hang"] += 1
        self.stop(worker)
        self.enter(worker, "hung")
        self.later(self.cluster.time_to_live, self.mine(worker, self.give_up))
        self.later(self.drawn(self.cluster.hang_length), self.mine(worker, self.come_back))

    def give_up(self, worker: Worker) -> None:
        assert worker.computing is not None
        worker.computing.orphan = True
        self.give(worker.computing.units)

    def come_back(self, worker: Worker) -> None:
        worker.life += 1
        self.compute(worker)

    def coordinator_dies(self) -> None:
        self.outcome.failures["coordinator"] += 1
        self.alive = False
        self.life += 1
        lost = list(self.written)
        self.written.clear()
        for worker in self.workers:
            if worker.state not in ("start", "down", "hung"):
                lost += self.drop(worker)
                self.enter(worker, "stranded")
        self.lose(lost)
        check = self.cluster.check * self.job.files * len(self.ledger)
        self.later(self.cluster.restart + self.cluster.prepare + check, self.coordinator_returns)

    def coordinator_returns(self) -> None:
        self.alive = True
        if self.written:
            self.commit()
        for worker in self.workers:
            if worker.state == "stranded":
                self.ask(worker)
        self.later(self.drawn(self.cluster.coordinator_death), self.coordinator_dies)


def simulate(job: Job, cluster: Cluster, seed: int = 0) -> Outcome:
    """Run the job to its end. Random numbers depend on the seed alone."""
    return Simulation(job, cluster, seed).run()
