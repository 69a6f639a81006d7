"""Lists the stages of an experiment as DVC runs them: what each reads, writes and depends on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pipeline.config import from_home
from pipeline.data import DataConfig
from pipeline.dvc_file.plugin_files import PluginFiles, objective_files
from pipeline.dvc_file.stage import Stage
from pipeline.experiment.config import ExperimentConfig
from pipeline.experiment.pointers import cache_dependencies, tracked
from pipeline.experiment.sections import cache_paths, named_stores, scores_embeddings
from pipeline.models import TeacherConfig
from pipeline.store.backend import backend_of
from pipeline.store.location import StorePath

SELECTING = {"split", "holdout", "limit", "classes"}
"""Keys of `data` that select packed samples: what is packed does not depend on them."""

PACKING = tuple(f"data.{key}" for key in DataConfig.model_fields if key not in SELECTING)
ARITHMETIC_KEYS = {"precision", "micro_batch", "device"}
"""Keys of `teacher` that decide how it computes, not which network it is."""

NETWORK = tuple(f"teacher.{key}" for key in TeacherConfig.model_fields if key not in ARITHMETIC_KEYS)
PROBING = ("pipeline/training", "pipeline/objectives/methods/__init__.py", "pipeline/objectives/methods/hard_label.py")
"""The code that fits a linear probe in the evaluation."""

DRAWING = ("views.operations", "views.seed")
"""Keys of `views` for networks that are trained on views of their own: how many are cached does not matter to them."""


def stages_of(experiment: ExperimentConfig) -> Iterator[Stage]:
    """Yield every stage of an experiment, in the order in which they run."""
    data, teacher, runs, files = experiment.data, experiment.teacher, experiment.runs, PluginFiles.of(experiment)
    if data.source is not None:
        inputs = _given(data.source.files)
        yield Stage("prepare-data", "prepare-data --replace", inputs, [data.path], PACKING, files.source)
    packed = [data.path, *_given([data.classes])]
    weights, described = _given([teacher.weights]), _given(teacher.described_by)
    if experiment.teacher_training is not None and weights:
        sections = ("data", *NETWORK, "teacher_training", *DRAWING, "evaluate.operations")
        inputs = [*packed, *described, *_given([experiment.teacher_training.start])]
        outputs, operations = [weights[0].parent], files.drawn | files.scored
        yield Stage("train-teacher", "train-teacher --replace", inputs, outputs, sections, operations)
    texts = _given([teacher.text_head])
    yield from _caching(experiment, files, [*packed, *described, *weights, *texts])
    learners = experiment.students.values()
    starts = _given([*described, *(path for each in learners for path in (*each.described_by, each.start))])
    yield from _students(experiment, files, [*packed, *starts])
    students = runs.folders(experiment.students, experiment.objectives)
    caches, made = experiment.caches_read(), _made(experiment)
    compared = cache_dependencies([*caches["training"], *caches["evaluation"], *_named(experiment)], made)
    evaluated = [*packed, *described, *weights, *texts, *compared, *students]
    sections = ("data", "teacher", "caches", "evaluate", "runs")
    probing = PROBING if scores_embeddings(experiment.evaluate, [teacher, *learners]) else ()
    shown = {file for file in files.drawn | files.shown if isinstance(file, str)}  # not code of the user's own
    used = {*files.scored, *files.compared, *probing, *shown}
    found = [runs.evaluation, runs.details]
    yield Stage("evaluate", "evaluate", evaluated, found, sections, used, metrics=runs.metrics)
    yield Stage("report", "report --quiet", [*found, *students], [runs.report], ("runs",))


def _caching(experiment: ExperimentConfig, files: PluginFiles, inputs: Sequence[Path]) -> Iterator[Stage]:
    """Yield two stages, so that another split to report does not cost the main cache."""
    written = {what: tracked(path) for what, path in experiment.caches_written().items()}
    main, beside = written.pop("training"), list(written.values())
    shared = ("data", "teacher", "store")
    command = "cache-teacher --part training --replace"
    yield Stage("cache-teacher", command, inputs, [main], (*shared, "views", "signals"), files.drawn | files.kept)
    command = "cache-teacher --part evaluation --replace"
    yield Stage("cache-evaluation", command, inputs, beside, (*shared, "evaluate"), files.scored | files.compared)


def _students(experiment: ExperimentConfig, files: PluginFiles, inputs: Sequence[Path]) -> Iterator[Stage]:
    """Yield a stage for each objective set, so that an edit of one method reruns its students alone.

    One stage trains all students of a set: it keeps those that are there and were made by the same code.
    """
    caches, made, runs = experiment.caches_read(), _made(experiment), experiment.runs
    cached, seen = cache_dependencies([*caches["training"], *caches.get("holdout", ())], made), ("views", "caches")
    # A student of fresh views takes from the teacher how images are normalised, and nothing else.
    drawn = (*DRAWING, *NETWORK, "teacher_training.start")
    scored = ("evaluate.operations", "runs", "students")
    for name, learnt in experiment.objectives.items():
        methods = objective_files(entry.name for entry in learnt.objectives)
        used = files.drawn | files.scored | (frozenset() if learnt.fresh else files.read)
        yield Stage(
            f"train-students-{name}",
            f"train-students --objectives {name} --replace",
            [*inputs, *([] if learnt.fresh else cached)],
            runs.folders(experiment.students, [name]),
            ("data", "train", *(drawn if learnt.fresh else seen), *scored, f"objectives.{name}"),
            methods | used,
        )


def _named(experiment: ExperimentConfig) -> list[StorePath]:
    """Return the evaluation caches of the teachers that objectives name, of those that are there."""
    paths = [cache_paths(path)["evaluation"] for path in named_stores(experiment.caches).values()]
    return [path for path in paths if backend_of(path).exists()]


def _made(experiment: ExperimentConfig) -> set[Path]:
    """Return what DVC tracks of the caches that the experiment makes."""
    return {tracked(path) for path in experiment.caches_written().values()}


def _given(paths: Iterable[object]) -> list[Path]:
    """Return those that are files or folders of this machine, to depend on; they may still be missing."""
    return list(dict.fromkeys(from_home(path) for path in paths if isinstance(path, Path)))
