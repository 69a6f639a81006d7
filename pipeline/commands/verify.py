"""Checks that teacher caches are what was written, and that the teacher computes the same today: `verify`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import suppress

from pipeline.commands.verify_files import tell, tell_of_files
from pipeline.errors import CacheError, ConfigError
from pipeline.experiment.experiment import NOTHING_HELD_OUT, Experiment
from pipeline.experiment.section_sets import CacheSections
from pipeline.experiment.source import ConfigFile
from pipeline.inspection.files import check_files
from pipeline.inspection.origin import CacheOrigin, SampleCheck, check_sample
from pipeline.inspection.report import CacheReport
from pipeline.models.device import choose_device
from pipeline.progress import Lines
from pipeline.store.backend import backend_of
from pipeline.store.format.manifest import Manifest
from pipeline.store.location import StorePath
from pipeline.store.reader import TeacherCache


def run(target: StorePath | ConfigFile, *, role: str, check: SampleCheck | None, as_json: bool) -> None:
    """Verify the files of the cache at a path, or the caches of an experiment with their views and teacher.

    Args:
        target: the path, or the configuration of the experiment.
        role: `training`, `holdout`, `evaluation` or `all`.
        check: how views and teacher are checked; None checks the files alone.
        as_json: print the report for programs.

    Raises CacheError, after the report, if anything is wrong.
    """
    if not isinstance(target, ConfigFile):
        tell_of_files(target, as_json=as_json)
        return
    experiment = Experiment(target.read(CacheSections))
    there = _there(experiment, role)
    origins = _origins(there, experiment) if check and experiment.config.data.path.exists() else {}
    reports = [CacheReport(path, name, check_files(path, Lines())) for name, path in there.items()]
    for report in reports:
        _check_sample(report, experiment.config, origins.get(report.role or ""), check)
    tell(reports, as_json=as_json)


def _there(experiment: Experiment[CacheSections], role: str) -> dict[str, StorePath]:
    """Return the caches of a role, by what they are for. Of `all`, those that exist, with a note on the others."""
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


def _origins(there: Mapping[str, StorePath], experiment: Experiment[CacheSections]) -> dict[str, CacheOrigin]:
    """Compare each cache with the experiment, and return what it was made from, by its role.

    Raises CacheMismatch, ConfigError, DataError or ModelError. Files are read after that: a mistake costs no hours, and
    no report of damage is lost to it.
    """
    caches, origins = experiment.caches, dict[str, CacheOrigin]()
    for name, path in there.items():
        cache = None
        with suppress(CacheError):  # reading its files tells more about it
            cache = TeacherCache.open(path)
        held, found = caches[name], cache.manifest.identity if cache is not None else None
        required = experiment.required(held, found, exact=True)
        if cache is not None:
            cache.require(required)
        network = None if required.unchecked else experiment.teacher
        device = choose_device(experiment.config.teacher.device if network else "cpu")
        origins[name] = CacheOrigin(held.samples, held.views, network, device)
    return origins


def _check_sample(
    report: CacheReport, inputs: CacheSections, origin: CacheOrigin | None, check: SampleCheck | None
) -> None:
    """Render views and run the teacher on them, as far as data and weights are here."""
    if check is None or origin is None or report.problems:
        why = "files are damaged" if origin else f"no data set at {inputs.data.path}"
        report.unchecked.append(f"neither views nor teacher were checked: {why if check else '--no-teacher'}")
        return
    if origin.network is None:
        report.unchecked.append(f"the teacher was not run: no weights at {inputs.teacher.weights}")
    check_sample(report, TeacherCache.open(report.path), origin, check, Lines())
