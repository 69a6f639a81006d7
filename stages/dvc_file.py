"""Writes the dvc.yaml of a configuration: the stages, what each depends on, its metrics and plots."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.config import read_config, to_yaml
from pipeline.errors import ConfigError, Problem
from pipeline.files import write_atomic
from stages.dependencies import CODE, COMMON, objective_files, written_in
from stages.experiment import Experiment
from stages.inputs import Source
from stages.pointers import stamps, tracked


def stage_file(experiment: Experiment, source: Source, folder: Path) -> dict[str, Any]:
    """The content of a dvc.yaml that lies in `folder`, for an experiment run from the working directory."""
    config = source.file.as_posix()
    data, teacher, runs = experiment.data, experiment.teacher, experiment.runs
    up = os.path.relpath(Path(), folder)
    raw = read_config(source.file, source.overrides)
    with_code = Path("pipeline/cli.py").exists()
    stages: dict[str, Any] = {}

    def stage(name: str, code: str, arguments: str, deps: Sequence[Path], outs: Sequence[Any], **more: Any) -> None:
        methods = more.pop("files", ())
        files = [*COMMON, *CODE[code], *methods] if with_code else []
        # DVC refuses parameters that the file leaves to their defaults.
        sections = [key for key in more.pop("params") if "${" in key or written_in(raw, key)]
        named = [data.classes] if isinstance(data.classes, Path) and data.path in deps else []
        stages[name] = {
            **({"wdir": up} if up != "." else {}),
            **more,
            "cmd": f"pipeline {code} --config {config}{arguments}",
            "deps": [*sorted(files), *(path.as_posix() for path in [*deps, *named])],
            "params": [{config: sections}],
            "outs": [out.as_posix() if isinstance(out, Path) else out for out in outs],
        }

    if data.source is not None:
        files = [file for file in data.source.files if file.exists()]
        stage("prepare-data", "prepare-data", "", files, [data.path], params=["data"])
    weights = [teacher.weights] if isinstance(teacher.weights, Path) else []
    if experiment.teacher_training is not None and weights:
        network = [f"teacher.{key}" for key in ("model", "weights", "options", "input_size", "mean", "std")]
        drawn = ["views.operations", "views.seed"]  # how many are cached is nothing to the teacher
        sections = ["data", *network, "teacher_training", *drawn, "evaluate.operations"]
        start = experiment.teacher_training.start
        begun = [start] if isinstance(start, Path) else []
        stage("train-teacher", "train-teacher", "", [data.path, *begun], [weights[0].parent], params=sections)
    written = {what: tracked(path) for what, path in experiment.caches_written().items()}
    made, caches = set(written.values()), experiment.caches_read()
    sections, inputs = ["data", "teacher", "views", "signals", "store"], [data.path, *weights]
    main = written.pop("training")
    stage("cache-teacher", "cache-teacher", " --part training", inputs, [main], params=sections)
    # A stage of its own: another split to report must not cost the main cache.
    sections, beside = ["data", "teacher", "store", "evaluate"], list(written.values())
    stage("cache-evaluation", "cache-teacher", " --part evaluation", inputs, beside, params=sections)
    answers, seen = stamps([*caches["training"], *caches.get("holdout", ())], made), ["views", "caches"]
    # A student of fresh views has from the teacher how images are normalised, and nothing else.
    drawn = ["views.operations", "views.seed", "teacher.mean", "teacher.std"]
    scored = ["evaluate.operations", "runs.path", "students.${item.student}"]
    for name, learnt in experiment.objectives.items():
        stage(
            f"train-student-{name}",
            "train-student",
            f" --student ${{item.student}} --objectives {name} --seed ${{item.seed}}",
            [data.path, *([] if learnt.fresh else answers)],
            [runs.student("${item.student}", name, "${item.seed}")],
            matrix={"student": list(experiment.students), "seed": list(runs.seeds)},
            files=objective_files(entry.name for entry in learnt.objectives),
            params=["data", "train", *(drawn if learnt.fresh else seen), *scored, f"objectives.{name}"],
        )
    students = runs.folders(experiment.students, experiment.objectives)
    evaluated = [data.path, *weights, *stamps(caches["evaluation"], made), *students]
    sections = ["data", "teacher", "caches", "evaluate", "runs"]
    stage("evaluate", "evaluate", "", evaluated, [], params=sections)
    stages["evaluate"]["metrics"] = [{runs.evaluation.as_posix(): {"cache": False}}]
    stage("report", "report", " --quiet", [runs.evaluation, *students], [runs.report], params=["runs"])
    return {
        "stages": {name: {key: value for key, value in body.items() if value} for name, body in stages.items()},
        "metrics": [os.path.relpath(student / "metrics.json", folder) for student in students],
        "plots": [
            {
                os.path.relpath(student / "history.csv", folder): {
                    "x": "epoch",
                    "y": ["loss"] + (["holdout_top1"] if data.holdout else []),
                    "title": "/".join(student.parts[-3:]),
                }
            }
            for student in students
        ],
    }


def run(source: Source, output: Path | None) -> None:
    """Write the file, or print it."""
    if source.overrides:
        fix = "write the values to the configuration, or run the commands without DVC"
        raise ConfigError([Problem("--set", "a dvc.yaml runs the configuration as it is written", fix=fix)])
    experiment = source.read(Experiment)
    folder = output.parent if output else Path()
    target = f" --output {output.as_posix()}" if output else ""
    head = "# Written by the command below; to change it, edit the configuration and run the command again.\n"
    head += f"#   pipeline dvc-file --config {source.file.as_posix()}{target}\n"
    text = head + to_yaml(stage_file(experiment, source, folder))
    if output is None:
        sys.stdout.write(text)
    else:
        write_atomic(output, text)
