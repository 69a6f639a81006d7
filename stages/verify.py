"""verify: whether teacher caches are still what was written, and what the teacher says today."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from pipeline.config import Section
from pipeline.data import DataConfig
from pipeline.errors import CacheError, ConfigError, Problem
from pipeline.models import TeacherConfig
from pipeline.models.device import choose_device
from pipeline.progress import Lines
from pipeline.signals import SignalsConfig
from pipeline.store import (
    Asking,
    CacheReport,
    Manifest,
    StoreConfig,
    StorePath,
    TeacherCache,
    ask_again,
    check_files,
)
from pipeline.views import ViewsConfig
from stages.caches import Cached, cache_paths, caches_of, required
from stages.inputs import Source
from stages.parts import Data, EvaluateConfig, build


class Inputs(Section):
    """What this stage reads."""

    data: DataConfig
    teacher: TeacherConfig
    views: ViewsConfig = ViewsConfig()
    signals: SignalsConfig = SignalsConfig()
    store: StoreConfig
    evaluate: EvaluateConfig = EvaluateConfig()


def run(target: StorePath | Source, *, role: str, asking: Asking | None, as_json: bool) -> None:
    """Verify the files of the cache at a path, or the caches of an experiment with their views and teacher.

    role: `training`, `holdout`, `evaluation` or `all`. asking: None leaves it at the files. Raises CacheError, after
    the report, if anything is wrong.
    """
    if not isinstance(target, Source):
        note = "neither views nor teacher were looked at: name their experiment with --config"
        reports = [CacheReport(target, None, check_files(target, Lines()), unchecked=[note])]
    else:
        inputs = target.read(Inputs)
        reports = [CacheReport(path, name, check_files(path, Lines())) for name, path in _there(inputs, role).items()]
        _ask(reports, inputs, asking)
    wrong = [report for report in reports if report.problems]
    if as_json:
        print(json.dumps({"fine": not wrong, "caches": [report.to_json() for report in reports]}, indent=2))
    else:
        print("\n".join(report.text() for report in reports))
        if not wrong:
            print("nothing wrong" + (" in what was checked" if any(each.unchecked for each in reports) else ""))
    if wrong:
        damaged = any(report.files.damaged for report in wrong)
        raise CacheError(
            f"{len(wrong)} of {len(reports)} teacher caches cannot be trusted",
            where=", ".join(str(report.path) for report in wrong),
            fix="restore the files (`dvc checkout`), or make the cache again with `pipeline cache-teacher --replace`"
            if damaged
            else "look for what changed since (code, versions, machine), or make the cache again",
        )


def _there(inputs: Inputs, role: str) -> dict[str, StorePath]:
    """The caches that were named, by what they are for. Of `all`, those there are; a note about the others."""
    paths = cache_paths(inputs.store.path)
    if inputs.data.holdout is None:
        del paths["holdout"]
    if role not in (*paths, "all"):
        raise ConfigError([Problem("data.holdout", "nothing is held out, so there is no cache of it")])
    there = {name: path for name, path in paths.items() if role in (name, "all") and path.exists()}
    for name, path in paths.items():
        if role in (name, "all") and name not in there:
            if not there:
                Manifest.read(path)  # raises: there is none, or it is unfinished
            print(f"note: there is no cache of the {name} samples at {path}", file=sys.stderr)
    return there


def _ask(reports: Sequence[CacheReport], inputs: Inputs, asking: Asking | None) -> None:
    """Render views and ask the teacher, as far as data and weights are here. Raises CacheMismatch."""
    here = asking is not None and inputs.data.path.exists()
    data = Data.open(inputs.data, inputs.views) if here else None
    for report in reports:
        if asking is None:
            report.unchecked.append("neither views nor teacher were looked at: --no-teacher")
        elif data is None:
            report.unchecked.append(f"neither views nor teacher were looked at: no data set at {inputs.data.path}")
        elif report.problems:
            report.unchecked.append("neither views nor teacher were looked at: files are damaged")
        else:
            cached = caches_of(data, inputs.signals, inputs.evaluate)[report.role or ""]
            _ask_about(report, inputs.teacher, data.classes, cached, asking)


def _ask_about(report: CacheReport, config: TeacherConfig, classes: int, cached: Cached, asking: Asking) -> None:
    cache, (samples, views, signals) = TeacherCache.open(report.path), cached
    wanted, unchecked = required(config, signals, classes, samples, views, exact=True)
    cache.require(wanted, unchecked)
    network, device = None, choose_device("cpu")
    if unchecked:
        report.unchecked.append(f"the teacher was not asked: no weights at {config.weights}")
    else:
        network, device = build(config, classes), choose_device(config.device)
    ask_again(report, cache, samples, views, network, asking, device=device, progress=Lines())
