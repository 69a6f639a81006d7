"""check: validates a whole experiment and prints the plan, before any work starts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import CacheError
from pipeline.models import Network
from pipeline.progress import size
from pipeline.store import StorePlan
from stages.binding import bind_experiment
from stages.caches import is_there
from stages.experiment import Experiment
from stages.inputs import Source
from stages.parts import Data
from stages.teachers import open_caches, put_together

MANY_FILES = 10_000


def run(source: Source, *, as_json: bool) -> None:
    """Print the plan, or fail with every problem. Exit code 1 if the disk is too small for it."""
    experiment = source.read(Experiment)
    bound = bind_experiment(experiment, source.file)
    data = bound.data
    if data is None and as_json:
        print(json.dumps({"packed": False}))
        return
    if data is None:
        print(f"{source.file}: the configuration is valid")
        print(f"no packed data set yet at {experiment.data.path}: run `pipeline prepare-data`, then check again")
        return
    given = _given_caches(experiment, data)
    facts = _facts(experiment, data, bound.plan)
    if as_json:
        print(json.dumps(facts, indent=2))
    else:
        _show(source, experiment, data, bound.teacher, facts)
        for line in given:
            print(line)
    if facts["total_bytes"] > facts["free_bytes"] and not experiment.store.path.exists():
        raise CacheError(
            "the disk is too small for the teacher cache",
            where=experiment.store.path,
            expected=f"{size(facts['total_bytes'])} free",
            got=f"{size(facts['free_bytes'])} free",
            fix="free space, name another disk in store.path, or keep fewer views or smaller signals",
        )


def _facts(experiment: Experiment, data: Data, plan: StorePlan) -> dict[str, Any]:
    folder = experiment.store.path
    while not folder.exists():
        folder = folder.parent if folder != folder.parent else Path()
    runs = len(experiment.students) * len(experiment.objectives) * len(experiment.runs.seeds)
    return {
        "samples": data.training.count,
        "holdout": data.holdout.count if data.holdout else 0,
        "views": plan.views,
        "units": plan.views * plan.blocks,
        "rows_per_block": plan.rows,
        "bytes_per_view": plan.bytes_per_view,
        "encodings": plan.encodings,
        "files": plan.files,
        "total_bytes": plan.total_bytes,
        "free_bytes": shutil.disk_usage(folder).free,
        "student_runs": runs,
    }


def _table(encodings: dict[str, Any]) -> Iterator[str]:
    """Bytes per view: a line for every signal and a column for every encoding."""
    columns = sorted({name for signal in encodings.values() for name in signal["bytes_per_view"]})
    yield " " * 18 + "".join(f"{name:>11} " for name in columns)
    for signal, entry in encodings.items():
        chosen = entry["chosen"] if isinstance(entry["chosen"], str) else entry["chosen"]["name"]
        amounts = {name: f"{amount:,}" for name, amount in entry["bytes_per_view"].items()}
        cells = (f"{amounts.get(name, '-'):>11}{'*' if name == chosen else ' '}" for name in columns)
        yield f"{signal:<18}{''.join(cells)}"


def _given_caches(experiment: Experiment, data: Data) -> list[str]:
    """A line for each of `caches`: whether it is there. Those that are must fit, else CacheMismatch is raised."""
    entries = sorted(experiment.caches or (), key=lambda entry: entry.role != "teacher")
    there = [entry for entry in entries if is_there(entry.path)]
    if there:
        opened = open_caches(experiment.store, there, experiment.teacher, experiment.signals, data, exact=False)
        if len(there) == len(entries):
            put_together(opened, experiment.caches)
    return [f"learnt    {e.path}, {e.role}: {'fits' if e in there else 'not there yet'}" for e in entries]


def _show(source: Source, experiment: Experiment, data: Data, network: Network, facts: dict[str, Any]) -> None:
    print(f"{source.file}: the configuration is valid")
    print(f"data      {facts['samples']:,} samples, {facts['holdout']:,} held out, {data.classes} classes")
    print(f"views     {facts['views']} per sample, {len(data.views.parameter_names)} stored parameters each")
    print(f"teacher   {network.name}, taps {', '.join(network.taps)}")
    print(f"signals   {sum(facts['bytes_per_view'].values()):,} bytes per view; in every encoding, * the chosen one:")
    for line in _table(facts["encodings"]):
        print(f"            {line.rstrip()}")
    print(f"cache     {experiment.store.path}: {size(facts['total_bytes'])} in {facts['files']:,} files,")
    print(f"          {facts['units']:,} units of work of {facts['rows_per_block']:,} samples")
    print(f"disk      {size(facts['free_bytes'])} free; DVC's cache links to the store where the file system can,")
    print("          else it holds a copy of the same size")
    print(f"students  {facts['student_runs']} runs: {', '.join(experiment.students)}")
    if facts["files"] > MANY_FILES:
        print(f"warning: more than {MANY_FILES:,} files make DVC slow; raise store.rows_per_block")
