"""Writes the folder of a training run: its files, and the digest of the code that made them."""

from __future__ import annotations

import functools
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline import own_code
from pipeline.config import Section, resolved
from pipeline.data import HELD_OUT
from pipeline.errors import REPLACE_HINT, CacheMismatch, ConfigError
from pipeline.experiment.scoring import Scorer
from pipeline.experiment.source import SECTIONS
from pipeline.files import write_atomic
from pipeline.measuring.cost import parameters
from pipeline.models.reused import HEAD_FILE
from pipeline.publishing import Scratch, differences, fingerprint
from pipeline.publishing.artifacts import published, scratch_folder, unfinished
from pipeline.training import Checkpoint, TrainingResult
from pipeline.training.checkpoint import started_by
from pipeline.training.linear_probe import forget
from pipeline.untrusted import parse_json, read_file
from pipeline.yaml_text import read_config, to_yaml

METRICS = "metrics.json"
STUDENT = "student.safetensors"
RUN_FILES = frozenset(("config.yaml", "history.csv", METRICS, HELD_OUT))
"""The files that a run writes beside its fingerprint and its weights."""

TOLD = "pipeline.training.trackers"
SWEEPING = "pipeline.sweeping"
PRINTING = ("pipeline.cli", "pipeline.commands", "pipeline.progress", "pipeline.allocator", TOLD, SWEEPING)
"""Modules that decide what is printed, how fast, who else is told, which runs are stopped; never what is written."""

DESCRIPTION_FILES = frozenset(("model.json", "model-card.md"))
"""What describes a student, beside its weights. Students of older versions have none of it."""

METRICS_MAX_BYTES = 64 << 20


CONFIG_FILE = "config.yaml"

MOST_PROCESSES = 1024
"""So many are looked for that may have begun a run together."""

VALUES_NAMED = 8
"""How many values of another configuration a message names at most."""


def run_files(weights: str = STUDENT) -> frozenset[str]:
    """Return the names that a run's files may have.

    Args:
        weights: the file of weights; of a student, more may be there.
    """
    return RUN_FILES | {weights} | ({HEAD_FILE, *DESCRIPTION_FILES} if weights == STUDENT else frozenset())


@functools.cache  # hundreds of files, which are those that run, whatever becomes of them on the disk
def _source(file: str) -> bytes:
    return Path(file).read_bytes()


def imported_code() -> str:
    """Return `sha256:...` over the source of all modules of Decant, and of the user's own, that are imported by now.

    The user's own are those below the working directory that are not installed. Called at the same place of a command,
    it covers the code that decides what the command makes.
    """
    digest = hashlib.sha256()
    for name, text in imported_sources():
        digest.update(name.encode() + b"\0" + text + b"\0")
    return f"sha256:{digest.hexdigest()}"


def imported_sources() -> Iterator[tuple[str, bytes]]:
    """Yield the modules that `imported_code` is of, each with its source."""
    ours = (name for name in list(sys.modules) if name.split(".")[0] in ("pipeline", "stages"))  # threads may import
    for name in sorted(name for name in ours if not name.startswith(PRINTING)):
        file = getattr(sys.modules[name], "__file__", None)
        if file is not None:
            yield name, _source(file)
    for name, path in own_code.imported_files().items():
        yield name, path.read_bytes()


def of_processes(identity: Mapping[str, Any], count: int) -> dict[str, Any]:
    """Return the identity of what several processes train together: rounding goes by their number.

    Args:
        identity: of what one process trains.
        count: of the processes.
    """
    return {**identity, **({"processes": count} if count > 1 else {})}


def refuse_other_processes(target: Path, identity: Mapping[str, Any], count: int, *, replace: bool) -> None:
    """Raise CacheMismatch if another number of processes has trained the same here, or has begun to.

    Args:
        target: the folder of the run.
        identity: of what one process trains.
        count: of the processes.
        replace: whether what is finished there may be replaced.
    """
    own = fingerprint(of_processes(identity, count))
    begun, finished = {*unfinished(target)} - {scratch_folder(target, own)}, None if replace else published(target)
    if not begun and finished in (None, own):
        return
    for other in range(1, MOST_PROCESSES + 1):
        print_of = fingerprint(of_processes(identity, other))
        counts = {"expected": _processes(other), "got": _processes(count)}
        if other != count and finished == print_of:
            fix = f"{REPLACE_HINT} to replace it, or name another path (`--output`)"
            raise CacheMismatch("another number of processes has trained this student", where=target, **counts, fix=fix)
        if other != count and (folder := scratch_folder(target, print_of)) in begun:
            fix = f"{started_by(other)} to go on, or delete the folder to begin anew"
            what = "another number of processes has begun to train this student"
            raise CacheMismatch(what, where=folder, **counts, fix=fix)


def _processes(count: int) -> str:
    return "1 process" if count == 1 else f"{count} processes"


class RunFolder(Scratch):
    """Holds the scratch folder of a training run, and publishes it.

    Args:
        target: the folder to publish.
        fingerprint: of the run's identity.
        weights: the name of the file of weights.
        replace: whether another run, or one of other code, may be replaced.
        wait: for another process that makes the same run; else raise.
        code: what `imported_code` says where nothing but this run is made; None for what it says now.
    """

    def __init__(
        self,
        target: Path,
        fingerprint: str,
        weights: str = STUDENT,
        *,
        replace: bool,
        wait: bool,
        code: str | None = None,
    ) -> None:
        super().__init__(target, fingerprint, files=run_files(weights), wait=wait)
        self.weights, self.code, self._replace = weights, code or imported_code(), replace

    def kept(self, inputs: Section | None = None) -> bool:
        """Tell whether the run need not be made: it is there, and, if it may be replaced, the same code made it.

        Args:
            inputs: the sections that the run is configured with, to name what differs from a run that is there.

        DVC runs a stage again, with `--replace`, when code changed, and the fingerprint knows nothing of code.
        Raises CacheMismatch if something is there that must not be replaced.
        """
        if self.done and (not self._replace or self._made_by() == self.code):
            print(f"{self.target}: already there")
            return True
        if not self._replace and (lines := self._other_values(inputs)):
            raise CacheMismatch(
                "\n".join(["another artifact is published at the target", *(f"  - {line}" for line in lines)]),
                where=self.target,
                fix=f"{REPLACE_HINT} to replace it, or name another path (`--output`)",
            )
        self.refuse_other(self._replace)
        return False

    def _other_values(self, inputs: Section | None) -> list[str]:
        """Return how the configuration of a run that is there, of another fingerprint, differs; nothing if unknown."""
        if inputs is None or published(self.target) in (None, self.fingerprint):
            return []
        with suppress(ConfigError):
            return differences(_said(inputs), read_config(self.target / CONFIG_FILE))[:VALUES_NAMED]
        return []

    def finish(
        self,
        run: TrainingResult,
        scorer: Scorer | None,
        facts: Mapping[str, Any],
        inputs: Section,
        describe: Callable[[Mapping[str, Any]], Mapping[str, str]] | None = None,
    ) -> dict[str, Any]:
        """Write weights, configuration, metrics, history and held-out ids, remove the checkpoint, publish the folder.

        Args:
            run: the finished training.
            scorer: scores the network; None without a holdout.
            facts: the first entries of the metrics.
            inputs: the sections that the run was configured with.
            describe: makes more texts of the metrics, by the names of `DESCRIPTION_FILES`.

        Returns the metrics.
        """
        folder = self.folder
        run.network.save(folder / self.weights)
        write_atomic(folder / CONFIG_FILE, to_yaml(_said(inputs)))
        write_atomic(folder / "history.csv", run.history.csv())
        if scorer:
            write_atomic(folder / HELD_OUT, scorer.samples.listing())
        metrics = {
            **facts,
            "code": self.code,
            "parameters": parameters(run.network),
            "epochs": int(run.history.rows[-1]["epoch"]),
            **({"best_epoch": run.best} if run.best is not None else {}),
            "train_seconds": round(run.seconds, 3),
            "images_per_second": round(run.images_per_second, 1),
            "device": run.device,
            "precision": run.precision,
            **({} if run.deterministic else {"deterministic": False}),
            "holdout": scorer.metrics(run.network) if scorer else None,
            "final_loss": run.history.rows[-1]["loss"],
        }
        for name, text in (describe(metrics) if describe else {}).items():
            write_atomic(folder / name, text)
        write_atomic(folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")
        Checkpoint.remove(folder)
        forget(folder)
        self.publish(self._replace)
        return metrics

    def _made_by(self) -> object:
        try:
            return parse_json(read_file(self.target / METRICS, METRICS_MAX_BYTES, follow=True)).get("code")
        except (OSError, ValueError, AttributeError):
            return None


def _said(inputs: Section) -> dict[str, Any]:
    """Return the sections that a run was configured with, with defaults, in the order of a configuration."""
    said = resolved(inputs)
    return {name: said[name] for name in SECTIONS if name in said}
