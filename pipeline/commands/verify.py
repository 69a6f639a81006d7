"""verify: whether teacher caches are still what was written, and what the teacher says today."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import suppress

import torch

from pipeline.data import Samples
from pipeline.errors import CacheError, ConfigError
from pipeline.experiment.experiment import NOTHING_HELD_OUT, CacheSections, Experiment
from pipeline.experiment.source import ConfigFile
from pipeline.inspection.files import check_files
from pipeline.inspection.report import Asking, CacheReport, ask_again
from pipeline.models import Network
from pipeline.models.device import choose_device
from pipeline.progress import Lines
from pipeline.store.backend import backend_of
from pipeline.store.format.manifest import Manifest
from pipeline.store.location import StorePath
from pipeline.store.reader import TeacherCache
from pipeline.views import Views

Known = tuple[Samples, Views, Network | None, torch.device]  # no network where its weights are not here


def run(target: StorePath | ConfigFile, *, role: str, asking: Asking | None, as_json: bool) -> None:
    """Verify the files of the cache at a path, or the caches of an experiment with their views and teacher.

    role: `training`, `holdout`, `evaluation` or `all`. asking: None leaves it at the files. Raises CacheError, after
    the report, if anything is wrong.
    """
    if not isinstance(target, ConfigFile):
        note = "neither views nor teacher were looked at: name their experiment with --config"
        reports = [CacheReport(target, None, check_files(target, Lines()), unchecked=[note])]
    else:
        experiment = Experiment(target.read(CacheSections))
        there = _there(experiment, role)
        known = _known(there, experiment) if asking and experiment.config.data.path.exists() else {}
        reports = [CacheReport(path, name, check_files(path, Lines())) for name, path in there.items()]
        for report in reports:
            _ask(report, experiment.config, known.get(report.role or ""), asking)
    wrong = [report for report in reports if report.problems]
    if as_json:
        print(json.dumps({"fine": not wrong, "caches": [report.to_json() for report in reports]}, indent=2))
    else:
        print("\n".join(report.text() for report in reports))
        if not wrong:
            print("nothing wrong" + (" in what was checked" if any(each.unchecked for each in reports) else ""))
    if wrong:
        raise CacheError(
            f"{len(wrong)} of {len(reports)} teacher caches cannot be trusted",
            where=", ".join(str(report.path) for report in wrong),
            fix="restore the files (`dvc checkout`), or make the cache again with `pipeline cache-teacher --replace`"
            if any(report.files.damaged for report in wrong)
            else "look for what changed since (code, versions, machine), or make the cache again",
        )


def _there(experiment: Experiment[CacheSections], role: str) -> dict[str, StorePath]:
    """The caches that were named, by what they are for. Of `all`, those there are; a note about the others."""
    paths = experiment.paths
    if role not in (*paths, "all"):
        raise ConfigError([NOTHING_HELD_OUT])
    there = {name: path for name, path in paths.items() if role in (name, "all") and backend_of(path).exists()}
    for name, path in paths.items():
        if role in (name, "all") and name not in there:
            if not there:
                Manifest.read(path)  # raises: there is none, or it is unfinished
            print(f"note: there is no cache of the {name} samples at {path}", file=sys.stderr)
    return there


def _known(there: Mapping[str, StorePath], experiment: Experiment[CacheSections]) -> dict[str, Known]:
    """What each cache must be, by its role. Raises CacheMismatch, ConfigError, DataError or ModelError.

    Files are read after that: a mistake costs no hours, and no report of damage is lost to it.
    """
    caches, known = experiment.caches, dict[str, Known]()
    for name, path in there.items():
        cache = None
        with suppress(CacheError):  # the reading of its files says more about it
            cache = TeacherCache.open(path)
        held, found = caches[name], cache.manifest.identity if cache is not None else None
        wanted, unchecked = experiment.required(held, found, exact=True)
        if cache is not None:
            cache.require(wanted, unchecked)
        network = None if unchecked else experiment.teacher
        device = choose_device(experiment.config.teacher.device if network else "cpu")
        known[name] = held.samples, held.views, network, device
    return known


def _ask(report: CacheReport, inputs: CacheSections, known: Known | None, asking: Asking | None) -> None:
    """Render views and ask the teacher, as far as data and weights are here."""
    if asking is None or known is None or report.problems:
        why = "files are damaged" if known else f"no data set at {inputs.data.path}"
        report.unchecked.append(f"neither views nor teacher were looked at: {why if asking else '--no-teacher'}")
        return
    samples, views, network, device = known
    if network is None:
        report.unchecked.append(f"the teacher was not asked: no weights at {inputs.teacher.weights}")
    cache = TeacherCache.open(report.path)
    ask_again(report, cache, samples, views, network, asking, device=device, progress=Lines())
