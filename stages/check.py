"""check: validates a whole experiment and prints the plan, before any work starts."""

from __future__ import annotations

import json

from pipeline.data import described
from pipeline.errors import CacheError
from pipeline.progress import size
from stages.binding import Bound, bind_experiment
from stages.caches import is_there
from stages.disks import DvcCache
from stages.experiment import Experiment
from stages.inputs import Source
from stages.parts import Data
from stages.plan import Plan, table
from stages.requirements import MissingSignalsError
from stages.teachers import open_caches, put_together

MANY_FILES = 10_000


def run(source: Source, *, as_json: bool) -> None:
    """Print the plan, or fail with every problem. Exit code 1 if a disk is too small for it."""
    try:
        bound = bind_experiment(source)
    except MissingSignalsError as error:
        if as_json:
            print(json.dumps({"packed": True, "requirements": error.requirements.facts()}, indent=2))
        raise
    if bound.data is None and as_json:
        print(json.dumps({"packed": False}))
        return
    if bound.data is None:
        print(f"{source.file}: the configuration is valid")
        path = bound.experiment.data.path
        print(f"no packed data set yet at {path}: run `pipeline prepare-data`, then check again")
        return
    given = _given_caches(bound.experiment, bound.data)
    dvc = DvcCache.find()
    plan = Plan.of(bound, bound.data, dvc)
    if as_json:
        needs = bound.requirements.facts() if bound.requirements else None
        print(json.dumps({**plan.facts(), "requirements": needs}, indent=2))
    else:
        print(f"{source.file}: the configuration is valid")
        _show(bound, plan)
        for line in given:
            print(line)
        _show_disks(plan, dvc)
    _refuse_small_disks(plan)


def _given_caches(experiment: Experiment, data: Data) -> list[str]:
    """A line for each of `caches`: whether it is there. Those that are must fit, else CacheMismatch is raised."""
    entries = sorted(experiment.caches or (), key=lambda entry: entry.role != "teacher")
    there = [entry for entry in entries if is_there(entry.path)]
    if there:
        opened = open_caches(experiment.store, there, experiment.teacher, experiment.signals, data, exact=False)
        if len(there) == len(entries):
            put_together(opened, experiment.caches)
    return [f"learnt    {e.path}, {e.role}: {'fits' if e in there else 'not there yet'}" for e in entries]


def _show(bound: Bound, plan: Plan) -> None:
    cache, network = plan.caches["training"], bound.teacher
    held = plan.caches["holdout"].samples if "holdout" in plan.caches else 0
    print(f"data      {cache.samples:,} samples, {held:,} held out, {plan.data.classes} classes")
    for line in described(plan.data.dataset, bound.experiment.data):
        print(f"          {line}")
    print(f"views     {cache.views} per sample, {cache.parameters} stored parameters each")
    print(f"teacher   {network.name}, taps {', '.join(network.taps)}")
    print(f"signals   {sum(cache.bytes_per_view.values()):,} bytes per view; in every encoding, * the chosen one:")
    for line in table(cache.encodings):
        print(f"            {line.rstrip()}")
    print(f"cache     {bound.experiment.store.path}: {size(cache.total_bytes)} in {cache.files:,} files,")
    print(f"          {cache.views * cache.blocks:,} units of work of {cache.rows:,} samples")
    if plan.remote:
        puts, gets, held = plan.remote
        print(f"requests  about {puts:,} puts to make it, {gets:,} gets for an epoch of all signals;")
        print(f"          up to {size(held)} of it in memory in training; DVC tracks a pointer to it")
    elif cache.files > MANY_FILES:
        print(f"warning: more than {MANY_FILES:,} files make DVC slow; raise store.rows_per_block")
    print(f"students  {plan.runs} runs: {', '.join(bound.students)}")
    for line in bound.requirements.lines() if bound.requirements else ():
        print(line)


def _show_disks(plan: Plan, dvc: DvcCache | None) -> None:
    print("writes    of networks, the weights alone")
    for artifact in plan.artifacts:
        there = artifact.bytes - artifact.remaining
        part = f", {size(there)} of it there" if there else ""
        note = part if artifact.remaining else ", there already"
        print(f"            {artifact.name:<18} {size(artifact.bytes):>8}  {artifact.path}{note}")
    for disk in plan.disks:
        print(f"disk      {disk.path}: {size(disk.needed)} to write, {size(disk.free)} free")
    if dvc is None:
        return
    copied = [disk for disk in plan.disks if disk.copied]
    if not copied:
        print("dvc       its cache links to what is written: no second copy")
    for disk in copied:
        more = f"{size(disk.copied)} more on {disk.path}"
        print(f"dvc       its cache at {dvc.folder} copies what it cannot link: {more}")
        if disk.needed + disk.copied > disk.free:
            print(f"warning: {disk.path} is too small for DVC's copy; set cache.dir or cache.type (dvc config)")


def _refuse_small_disks(plan: Plan) -> None:
    small = [disk for disk in plan.disks if disk.needed > disk.free]
    if small:
        raise CacheError(
            "the disk is too small for what is still to be written",
            where=", ".join(str(disk.path) for disk in small),
            expected=", ".join(f"{size(disk.needed)} free" for disk in small),
            got=", ".join(f"{size(disk.free)} free" for disk in small),
            fix="free space, name another disk in store.path or runs.path, or keep fewer views or smaller signals",
        )
