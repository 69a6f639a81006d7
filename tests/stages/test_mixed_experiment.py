"""Views that mix samples, on the whole road: planned, cached, checked, learnt from, drawn, and refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from experiment import COUNT, content, interrupted, source, student

from pipeline import plugins
from pipeline.commands import check, inspect, verify
from pipeline.errors import CacheMismatch, ConfigError
from pipeline.inspection.origin import SampleCheck
from pipeline.planning.binding import bind_experiment
from pipeline.store.reader import TeacherCache
from stages import cache_teacher, train_teacher

OPERATIONS = "operations: [{name: pad-crop, padding: 1}, mixup-or-cutmix, horizontal-flip]"
MIXED = (f"views={{count: 2, {OPERATIONS}}}", "store.path=mixed.zarr")
ONE_LABEL = {"crcd", "crd", "dkd", "hcd", "nd", "nkd", "refilled", "sdd"}
ONE_LABEL |= {"angular", "ic-kd", "lift", "rld", "wkd-logits"}
"""Methods that ask which class a view is of, or what the teacher said of other samples of the same class."""


def test_from_the_plan_to_a_student(here: Path, capsys: pytest.CaptureFixture[str]):
    check.run(source(*MIXED), as_json=False)
    printed = capsys.readouterr().out
    # Own shift, partner, share, box, the partner's shift, flip.
    assert "8 x 8 pixels, 11 stored parameters each: pad-crop, mixup-or-cutmix, horizontal-flip" in printed
    assert "mixup-or-cutmix mixes each with another sample: two images are read for a view, and labels mix" in printed

    cache_teacher.run(source(*MIXED), replace=False, wait=False)
    assert "its views mix two samples each" in capsys.readouterr().out
    cache = TeacherCache.open("mixed.zarr")
    assert cache.manifest.layout.parameters == 11
    evaluation = TeacherCache.open("mixed.evaluation.zarr").manifest.identity.views
    assert (evaluation.partners, evaluation.parameters) == (None, ())

    folder = student("small", "kd", *MIXED)
    assert "all 2 views match the teacher's pixels" in capsys.readouterr().out
    verify.run(source(*MIXED), role="training", check=SampleCheck(views=1000, seed=0), as_json=False)
    assert "nothing wrong" in capsys.readouterr().out
    inspect.run(source(*MIXED), None, sheet=inspect.Sheet(2, 3, Path("sheet.png")), as_json=False)
    assert Path("sheet.png").stat().st_size > 1000

    # Other partners are another cache: a holdout of another size, and so other samples that are learnt from.
    with pytest.raises(CacheMismatch, match=r"views\.partners"):
        student("small", "kd", *MIXED, "data.holdout.count=8", output=Path("other"))
    interrupted("small", "kd", *MIXED, output=Path("again"))
    again = student("small", "kd", *MIXED, output=Path("again"))  # goes on where it was interrupted
    assert content(again)["student.safetensors"] == content(folder)["student.safetensors"]


def test_methods_that_want_one_label_are_refused_by_name_before_work_starts(here: Path):
    names = plugins.names("pipeline.objectives.methods")
    own = {"sdd": "{name: sdd, scales: [1, 2]}"}
    sets = ", ".join(f"{name}: [{own.get(name, name)}]" for name in names)
    known = f"objectives={{{sets}}}", "train.views_per_step=2", "signals={features: {}, embedding: {}}"
    students = "students={small: {model: cifar_resnet8, input_size: 8}}"
    with pytest.raises(ConfigError) as error:
        bind_experiment(source(*MIXED, *known, students))
    what = "cannot say what a view is that mixup-or-cutmix makes of two samples"
    refused = {problem.key.split(".")[1] for problem in error.value.problems if what in problem.what}
    assert refused == ONE_LABEL
    assert all("such as kd and hard-label" in str(p) for p in error.value.problems if what in p.what)


def test_evaluation_and_probes_see_one_image(here: Path):
    for operations, place in (("[mixup]", 0), ("[{name: resize, size: [8, 8]}, cutmix]", 1)):
        with pytest.raises(ConfigError, match="evaluation asks what is in one image") as error:
            bind_experiment(source(f"evaluate.operations={operations}"))
        assert [problem.key for problem in error.value.problems] == [f"evaluate.operations.{place}"]
    begun = (
        *MIXED,
        "teacher.weights=new/teacher.safetensors",
        "teacher_training.start=artifacts/teacher/teacher.safetensors",
    )
    with pytest.raises(ConfigError, match=r"teacher_training\.probe: a probe is fitted to one label"):
        bind_experiment(source(*begun))
    with pytest.raises(ConfigError, match=r"teacher_training\.probe: a probe is fitted to one label"):
        train_teacher.run(source(*begun), replace=False, wait=False)
    bind_experiment(source(*begun, "teacher_training.probe=1"))


def test_a_teacher_and_a_baseline_learn_from_mixed_views_without_a_cache(here: Path):
    fresh = (*MIXED, "objectives.hard={views: fresh, objectives: [{name: hard-label, label_smoothing: 0.1}]}")
    folder = student("small", "hard", *fresh)
    other = student("small", "hard", *fresh, "views.operations=[horizontal-flip]", output=Path("plain"))
    assert content(folder)["student.safetensors"] != content(other)["student.safetensors"]
    train_teacher.run(source(*MIXED, "teacher.weights=mixed/teacher.safetensors"), replace=False, wait=False)
    assert (here / "mixed/teacher.safetensors").exists()
    assert len(TeacherCache.open("artifacts/caches/tiny.zarr").labels) == COUNT


def test_the_identities_of_runs_without_mixing_have_no_partners(here: Path, capsys: pytest.CaptureFixture[str]):
    check.run(source(), as_json=True)
    assert "partners" not in json.dumps(json.loads(capsys.readouterr().out))
    assert TeacherCache.open("artifacts/caches/tiny.zarr").manifest.identity.views.partners is None
