"""What `simulation.py` simulates, and what comes out: a job, the cluster that does it, the outcome."""

from __future__ import annotations

from dataclasses import dataclass, field

NEVER = float("inf")


@dataclass(frozen=True)
class Job:
    """Equal units: their number, and views, bytes and files of each.

    Unit u is of row block u modulo `blocks`. A worker is given up to `most` units of a row block at a time: a task.
    """

    units: int
    views: int
    bytes: int = 0
    files: int = 0
    blocks: int = 1
    most: int = 1


@dataclass(frozen=True)
class Cluster:
    """Workers of one GPU each. Times are in seconds, rates per second, failures mean times between two."""

    workers: int
    gpu: float  # views that the teacher answers on one GPU
    render: float = NEVER  # views that the CPU cores of one GPU decode and render, an image decoded for each
    decode: float = 0.0  # share of that time in which images are decoded
    read: float = NEVER  # image files that reach the CPU cores of one GPU
    processes: int = 1  # that share a GPU, and have tasks of their own
    disk: float = NEVER  # bytes that all workers write together
    link: float = NEVER  # bytes that one worker writes
    schedule: float = 0.0  # between two units of a worker
    commit: float = 0.0  # of the coordinator, for each unit
    check: float = 0.0  # of the coordinator when it comes back, for each file that the ledger lists
    prepare: float = 0.0  # of the coordinator, before anybody works and when it comes back
    start: float = 0.0  # until a new worker works
    spread: float = 0.0  # standard deviation of the logarithm of a unit's time
    slow: float = 0.0  # share of workers that are stragglers ...
    slow_speed: float = 1.0  # ... of this speed, relative to the others
    death: float = NEVER  # of one worker
    hang: float = NEVER  # of one worker, while it computes
    hang_length: float = 0.0  # mean
    time_to_live: float = 300.0
    coordinator_death: float = NEVER
    restart: float = 0.0  # of whatever died

    def views(self, together: int) -> float:
        """Views a second on one GPU, where an image is read and decoded once for so many views."""
        rendered = self.render / (1 - self.decode + self.decode / together)
        return min(self.gpu, rendered, self.read * together)


@dataclass(frozen=True)
class Commit:
    """The coordinator's work on a unit that a worker had written. accepted: the ledger did not list it yet."""

    unit: int
    worker: int
    begin: float
    end: float
    accepted: bool


@dataclass
class Outcome:
    """What happened. spent: seconds of all workers, by what they did; useful and lost: of those computed."""

    seconds: float = 0.0
    spent: dict[str, float] = field(default_factory=dict)
    useful: float = 0.0
    lost: float = 0.0
    commits: list[Commit] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=lambda: {"death": 0, "hang": 0, "coordinator": 0})
    disk_busy: float = 0.0

    @property
    def lost_share(self) -> float:
        """Share of the workers' time that failures took: work thrown away, and nobody there to work."""
        away = sum(self.spent.get(state, 0.0) for state in ("down", "hung", "stranded"))
        return (self.lost + away) / sum(self.spent.values())
