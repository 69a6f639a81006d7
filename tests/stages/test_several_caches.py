"""Students of several caches: more views later, fewer views, other teachers, other disks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from experiment import MORE, OTHER, TEST, content, source, student
from numpy.typing import NDArray

import pipeline.experiment.objective_set
from pipeline.commands import check, dvc_file
from pipeline.data import PackedDataset
from pipeline.errors import CacheMismatch, CacheNotFound, ConfigError
from pipeline.experiment.config import ExperimentConfig
from pipeline.objectives import Needs, ObjectiveSet
from pipeline.objectives.methods.kd import KD
from pipeline.reporting.results import Evaluation
from pipeline.store.format.identity import CacheIdentity
from pipeline.store.reader import TeacherCache
from pipeline.yaml_text import parse_yaml, to_yaml
from stages import cache_teacher, evaluate

TINY = "{path: artifacts/caches/tiny.zarr}"
BOTH = f"caches=[{TINY}, {{path: more.zarr}}]"
ENSEMBLE = f"caches=[{TINY}, {{path: other.zarr, views: {{count: 2}}, role: mean-probabilities}}]"


def weights(folder: Path) -> bytes:
    return content(folder)["student.safetensors"]


def refused(*overrides: str) -> str:
    with pytest.raises((CacheMismatch, ConfigError)) as error:
        student("small", "kd", *overrides)
    return str(error.value)


def test_more_views_cached_later_are_as_if_cached_at_once(among: Path, capsys: pytest.CaptureFixture[str]):
    whole = ("views.count=4", "store={path: whole.zarr, rows_per_block: 20}")
    cache_teacher.run(source(*whole), part="training", replace=False, wait=False)
    one = student("small", "lfcc", *whole, "train.epochs=4", "data.holdout.count=12", output=Path("one"))
    assert "all 4 views match the teacher's pixels" in capsys.readouterr().out
    two = student("small", "lfcc", BOTH, "train.epochs=4", output=Path("two"))
    assert "all 4 views match the teacher's pixels" in capsys.readouterr().out
    assert weights(one) == weights(two)
    assert parse_yaml((two / "config.yaml").read_text(), "")["caches"][1] == {
        "path": "more.zarr",
        "views": None,
        "role": "teacher",
    }


def test_a_part_of_the_views(among: Path):
    one = student("small", "kd", "views.count=1", output=Path("one"))
    two = student("small", "kd", "caches=[{path: artifacts/caches/tiny.zarr, views: [0]}]", output=Path("two"))
    assert weights(one) == weights(two)
    span = "caches=[{path: artifacts/caches/tiny.zarr, views: {first: 1, count: 1}}, {path: more.zarr, views: [3]}]"
    assert weights(student("small", "kd", span, output=Path("three"))) != weights(one)


def test_without_caches_views_count_says_what_is_used_and_with_them_they_do(among: Path):
    shutil.rmtree("artifacts/caches/tiny.zarr")
    with pytest.raises(CacheNotFound):
        student("small", "kd")
    given = "caches=[{path: more.zarr}]"
    assert Path(student("small", "kd", given, "views.count=1", output=Path("one"))).exists()
    assert weights(Path("one")) == weights(student("small", "kd", given, "views.count=7", output=Path("two")))


def test_caches_elsewhere(among: Path, tmp_path_factory: pytest.TempPathFactory):
    one = student("small", "kd", BOTH, output=Path("one"))
    disk = tmp_path_factory.mktemp("disk")
    shutil.move("more.zarr", disk / "more.zarr")
    two = student("small", "kd", f"caches=[{TINY}, {{path: {disk}/more.zarr}}]", output=Path("two"))
    assert weights(one) == weights(two)


def test_other_views_and_other_roles_are_other_students(among: Path):
    folder = student("small", "kd", BOTH)
    assert student("small", "kd", f"caches=[{{path: more.zarr}}, {TINY}]") == folder  # the order does not matter
    for other in (f"caches=[{TINY}]", f"caches=[{TINY}, {{path: more.zarr, views: [3]}}]", ENSEMBLE):
        with pytest.raises(CacheMismatch, match="another artifact is published"):
            student("small", "kd", other)


def softmax(z: NDArray[Any]) -> NDArray[np.float64]:
    powers = np.exp(z.astype(np.float64) - z.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True))


def stored(path: str, name: str = "logits") -> NDArray[Any]:
    array: Any = zarr.open_group(path, mode="r")[name]
    return np.asarray(array)


def test_students_of_an_ensemble(among: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    contexts: list[Any] = []

    class Seen(ObjectiveSet):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            contexts.append(arguments[-1])
            super().__init__(*arguments, **named)

    monkeypatch.setattr(pipeline.experiment.objective_set, "ObjectiveSet", Seen)
    folder = student("small", "lfcc", ENSEMBLE)
    printed = capsys.readouterr().out
    digest = TeacherCache.open(Path("other.zarr")).manifest.identity.teacher.weights
    assert "note: not checked against other.zarr: which teacher it is (cifar_resnet8, weights " in printed
    assert digest[:23] in printed
    assert "mean-probabilities of 2 teachers; all else is the first's, and there is no head" in printed

    # Objectives see all of the training samples: the mean of both for logits, the own teacher for the rest.
    (context,) = contexts
    rows = torch.tensor([40, 7])
    mean = (softmax(stored("artifacts/caches/tiny.zarr")[1]) + softmax(stored("other.zarr")[1])) / 2
    np.testing.assert_allclose(context.bank("logits", rows, 1).exp(), mean[rows.numpy()], rtol=1e-5)
    embeddings = stored("artifacts/caches/tiny.zarr", "embedding")
    assert np.array_equal(context.bank("embedding", rows, 1), embeddings[1][rows.numpy()])
    expected = [embeddings[:, context.labels.numpy() == k].astype(np.float64).mean((0, 1)) for k in range(4)]
    np.testing.assert_allclose(context.class_means(), expected, rtol=1e-6)

    # The holdout is compared with the same mean.
    metrics = json.loads((folder / "metrics.json").read_text())["holdout"]
    assert metrics["agreement"] is not None
    alone = json.loads((student("small", "lfcc", output=Path("alone")) / "metrics.json").read_text())["holdout"]
    assert alone["kl"] != metrics["kl"]


def test_an_ensemble_has_no_head(among: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(KD, "needs", Needs(teacher=frozenset({"logits", "head"})))
    assert (student("small", "kd") / "metrics.json").exists()
    text = refused(ENSEMBLE)
    assert "objectives.kd.1: needs the teacher's 'head'" in text
    assert "as every ensemble" in text


def test_both_means_teach_differently_and_a_member_left_out_too(among: Path):
    given = [ENSEMBLE, ENSEMBLE.replace("probabilities", "logits"), f"caches=[{TINY}]"]
    found = [weights(student("small", "kd", each, output=Path(str(i)))) for i, each in enumerate(given)]
    assert len(set(found)) == 3


@pytest.mark.parametrize("mean", ["mean-probabilities", "mean-logits"])
def test_evaluation_is_against_the_ensemble(among: Path, mean: str):
    given = ENSEMBLE.replace("mean-probabilities", mean)
    student("small", "kd", given)
    evaluate.run(source(given))
    found = Evaluation.read(Path("artifacts/tiny/evaluation.json"))
    one, two = (stored(path)[0] for path in ("artifacts/caches/tiny.evaluation.zarr", "other.evaluation.zarr"))
    both = [np.log(softmax(logits)) for logits in (one, two)] if mean == "mean-logits" else [softmax(one), softmax(two)]
    labels = PackedDataset.open(Path("data.h5")).split("test").labels
    assert found.teacher is not None
    assert found.teacher.model == f"cifar_resnet8 + cifar_resnet8, {mean}"
    assert found.teacher.parameters is None
    assert found.teacher.metrics.top1 == pytest.approx((np.mean(both, 0).argmax(1) == labels).mean())
    assert found.teacher.metrics.kl == pytest.approx(0.0, abs=1e-12)
    assert found.teacher.metrics.count == TEST
    (result,) = found.students
    assert result.metrics.kl is not None
    assert result.metrics.kl > 0


def test_without_one_of_the_evaluation_caches_there_is_no_comparison(among: Path, capsys: pytest.CaptureFixture[str]):
    shutil.rmtree("other.holdout.zarr")
    shutil.rmtree("other.evaluation.zarr")
    folder = student("small", "kd", ENSEMBLE)
    note = "note: no holdout cache at other.holdout.zarr: no comparison with the teacher"
    assert note in capsys.readouterr().err
    assert json.loads((folder / "metrics.json").read_text())["holdout"]["agreement"] is None
    evaluate.run(source(ENSEMBLE))
    assert "no evaluation cache at other.evaluation.zarr" in capsys.readouterr().err
    assert Evaluation.read(Path("artifacts/tiny/evaluation.json")).teacher is None


def test_evaluation_caches_of_yet_another_teacher_are_refused(among: Path):
    for what in ("holdout", "evaluation"):
        shutil.rmtree(f"other.{what}.zarr")
        shutil.copytree(f"artifacts/caches/tiny.{what}.zarr", f"other.{what}.zarr")
    assert "teacher.weights: expected" in refused(ENSEMBLE)


REFUSED = {
    "two caches of one teacher have view 1\n": f"caches=[{TINY}, {{path: again.zarr, views: [1]}}]",
    "the teacher cache lacks views 3, 9\n": "caches=[{path: artifacts/caches/tiny.zarr, views: [1, 3, 9]}]",
    "must have the same views\n": f"caches=[{TINY}, {{path: other.zarr, role: mean-logits}}]",
    "this cache is of another teacher than artifacts/caches/tiny.zarr\n  - options.widths: expected nothing": (
        f"caches=[{TINY}, {{path: other.zarr}}]"
    ),
    "same teacher as artifacts/caches/tiny.zarr": f"caches=[{TINY}, {{path: more.zarr, role: mean-logits}}]",
    "teacher.weights: expected": "caches=[{path: other.zarr}]",
    "caches: the first must be of the experiment's own": "caches=[{path: other.zarr, role: mean-logits}]",
    "caches: an ensemble has one mean": f"caches=[{TINY}, {{path: a, role: mean-logits}},"
    " {path: b, role: mean-probabilities}]",
    "caches: names a cache twice": f"caches=[{TINY}, {TINY}]",
    "caches.0.role: Input should be": "caches=[{path: a, role: mean}]",
    "caches.0.views.count: Input should be": "caches=[{path: a, views: {first: 1, count: 0}}]",
    "caches.0.views.count: Input should be less": "caches=[{path: a, views: {count: 1000000000000}}]",
    "caches.0.views.last: unknown key": "caches=[{path: a, views: {first: 1, last: 3}}]",
    "caches.0.views.1: Input should be": "caches=[{path: a, views: [0, -1]}]",
    "caches: Tuple should have at least 1 item": "caches=[]",
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_makes_no_sense_is_refused(among: Path, message: str):
    shutil.copytree("artifacts/caches/tiny.zarr", "again.zarr")
    assert message in refused(REFUSED[message])


CHANGES = {
    "views.seed: expected 0, got 5": "views.seed=5",
    "views.operations": "views.operations=[{name: pad-crop, padding: 1}]",
    "data.ids: expected": "data.holdout.seed=1",
}


@pytest.mark.parametrize("change", ["teacher.micro_batch=8", "teacher.precision=bfloat16"])
def test_the_own_teacher_asked_in_another_way_does_not_count_twice(among: Path, change: str):
    cache_teacher.run(source(change, "store.path=again.zarr"), part="training", replace=False, wait=False)
    assert "same teacher as" in refused(f"caches=[{TINY}, {{path: again.zarr, role: mean-logits}}]")
    text = refused(f"caches=[{TINY}, {{path: again.zarr, views: [1]}}]")
    assert "of another teacher than" in text
    assert "role: mean" not in text


@pytest.mark.parametrize("line", CHANGES)
@pytest.mark.parametrize("settings", [MORE, OTHER], ids=["more", "other"])
def test_caches_of_other_samples_or_views_are_refused(among: Path, line: str, settings: tuple[str, ...]):
    changed = (*settings, CHANGES[line], "store.path=changed.zarr")
    cache_teacher.run(source(*changed), part="training", replace=False, wait=False)
    role = "" if settings is MORE else ", views: [0, 1], role: mean-logits"
    text = refused(f"caches=[{TINY}, {{path: changed.zarr{role}}}]")
    assert f"  - {line}" in text
    assert "where: changed.zarr" in text


def test_a_cache_whose_pixels_changed_is_refused_even_where_pixels_are_not_read(among: Path):
    """What is compared between caches costs nothing, so it is always compared."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.data.Samples.pixel_digest", lambda samples: "sha256:0")
        changed = (*OTHER, "store.path=changed.zarr")
        cache_teacher.run(source(*changed), part="training", replace=False, wait=False)
    given = ENSEMBLE.replace("other.zarr", "changed.zarr")
    with pytest.raises(CacheMismatch, match=r"data\.pixels: expected"):
        student("small", "kd", given, verify="none")


def test_a_teacher_of_other_classes_is_refused(among: Path, monkeypatch: pytest.MonkeyPatch):
    manifest = TeacherCache.open(Path("other.zarr")).manifest
    changed = manifest.identity.plain()
    changed["teacher"]["num_classes"] = 5
    monkeypatch.setattr(manifest, "_identity", CacheIdentity.model_validate(changed))
    original = TeacherCache.open.__func__  # type: ignore[attr-defined]

    def opened(cls: Any, path: Path, signals: Any = None) -> TeacherCache:
        cache: TeacherCache = original(cls, path, signals)
        if path.name == "other.zarr":
            cache.manifest = manifest
        return cache

    monkeypatch.setattr(TeacherCache, "open", classmethod(opened))
    assert "teacher.num_classes: expected 4, got 5" in refused(ENSEMBLE)


def test_check_says_which_are_there_and_refuses_those_that_do_not_fit(among: Path, capsys: pytest.CaptureFixture[str]):
    check.run(source(f"caches=[{TINY}, {{path: later.zarr}}]"), as_json=False)
    printed = capsys.readouterr().out
    assert "learnt    artifacts/caches/tiny.zarr, teacher: fits\n" in printed
    assert "learnt    later.zarr, teacher: not there yet\n" in printed
    check.run(source(ENSEMBLE.replace("artifacts/caches/tiny", "later")), as_json=True)
    json.loads(capsys.readouterr().out)
    with pytest.raises(CacheMismatch, match="of another teacher"):
        check.run(source(f"caches=[{TINY}, {{path: other.zarr}}]"), as_json=False)
    with pytest.raises(CacheMismatch, match="must have the same views"):
        check.run(source(f"caches=[{TINY}, {{path: other.zarr, role: mean-logits}}]"), as_json=True)
    with pytest.raises(CacheMismatch, match=r"views\.seed: expected 3, got 0"):
        check.run(source(BOTH, "views.seed=3"), as_json=True)


def test_dvc_depends_on_all_of_them(among: Path):
    path = Path("tiny.yaml")
    given = parse_yaml(path.read_text(), "")
    other = {"path": "other.zarr", "views": {"first": 0, "count": 2}, "role": "mean-logits"}
    given["caches"] = [{"path": "a.zarr"}, {"path": "b.zarr"}, other]
    path.write_text(to_yaml(given))
    stages = dvc_file.stage_file(source().read(ExperimentConfig), source(), Path())["stages"]
    read = ["a.zarr", "b.zarr", "other.zarr", "a.holdout.zarr", "other.holdout.zarr"]
    assert stages["train-students-kd"]["deps"] == ["data.h5", *(f"{path}/.fingerprint" for path in read)]
    assert "caches" in stages["train-students-kd"]["params"][0]["tiny.yaml"]
    compared = {path for path in stages["evaluate"]["deps"] if ".evaluation.zarr" in path}
    assert compared == {"a.evaluation.zarr/.fingerprint", "other.evaluation.zarr/.fingerprint"}
    assert "caches" in stages["evaluate"]["params"][0]["tiny.yaml"]
    assert [*stages["cache-teacher"]["outs"][0]] == ["artifacts/caches/tiny.zarr"]
    assert "caches" not in stages["cache-teacher"]["params"][0]["tiny.yaml"]
