"""Students of several teachers whose signals are standardised, and of which some are dropped."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from experiment import content, interrupted, source, student

from pipeline.commands import check
from pipeline.errors import ConfigError
from pipeline.experiment.experiment import Experiment
from pipeline.experiment.runs import RunName
from pipeline.experiment.students import StudentRun, StudentSections
from pipeline.store.reader import TeacherCache
from pipeline.yaml_text import parse_yaml

NAMED = (
    "caches=[{path: artifacts/caches/tiny.zarr, teacher: wide}, {path: other.zarr, views: {count: 2}, teacher: narrow}]"
)
PHI_S = (
    "objectives={both: [{name: vkd, teacher: wide, standardise: phi-s},"
    " {name: vkd, teacher: narrow, standardise: channels}]}"
)
NONE = PHI_S.replace("phi-s", "none").replace("channels", "none")
DROPPED = (
    "objectives={both: {teacher_dropping: 0.5, objectives: [{name: vkd, teacher: wide}, {name: vkd, teacher: narrow}]}}"
)


def opened(*overrides: str, objectives: str = "both") -> StudentRun:
    """What `train-student` opens."""
    inputs = source(*overrides).read_only(StudentSections, {"students": "small", "objectives": objectives})
    return StudentRun(Experiment(inputs), RunName("small", objectives, 0))


def all_embeddings(path: str) -> np.ndarray:
    """Every embedding of a cache, float64 [V N, D]."""
    cache = TeacherCache.open(Path(path))
    each = [cache.signal("embedding", view, np.arange(cache.count)).double().numpy() for view in cache.views]
    return np.concatenate(each)


def test_objectives_get_standardised_embeddings(among: Path, monkeypatch: pytest.MonkeyPatch):
    run = opened(NAMED, PHI_S)
    seen: dict[int, torch.Tensor] = {}
    for index, member in enumerate(run.objective_set.members):
        original = member.forward
        monkeypatch.setattr(
            member,
            "forward",
            lambda s, t, b, p, index=index, original=original: (
                seen.update({index: t.embedding}) or original(s, t, b, p)
            ),
        )
    step = run.steps[0]
    assert step.teacher_outputs is not None
    others = {name: each.decode() for name, each in step.teacher_outputs.others.items()}  # type: ignore[union-attr]
    run.objective_set(run.network(step.images), step.teacher_outputs.decode(), None, 0.0, others)  # type: ignore[arg-type]
    rows = step.sample.numpy()

    narrow = all_embeddings("other.zarr")
    batch = TeacherCache.open(Path("other.zarr")).signal("embedding", 0, rows).double().numpy()
    np.testing.assert_allclose(seen[1], (batch - narrow.mean(0)) / narrow.std(0), rtol=1e-3, atol=1e-4)

    wide = all_embeddings("artifacts/caches/tiny.zarr")
    batch = TeacherCache.open(Path("artifacts/caches/tiny.zarr")).signal("embedding", 0, rows).double().numpy()
    scale = wide.var(0).mean()
    own = seen[0].double().numpy()
    expected = (batch - wide.mean(0)) @ (batch - wide.mean(0)).T / scale  # a rotation keeps inner products
    np.testing.assert_allclose(own @ own.T, expected, rtol=1e-3, atol=1e-3)


def test_banks_and_means_of_classes_are_standardised_too(among: Path):
    run = opened(NAMED, "objectives={both: [{name: vkd, teacher: narrow, standardise: phi-s}]}")
    standard = run.objective_set.standardised["0"]
    rows = torch.tensor([4, 40, 7])
    plain = standard._context  # type: ignore[union-attr]
    context = standard.context  # type: ignore[union-attr]
    found = context.bank("embedding", rows, 1)  # type: ignore[union-attr, operator]
    cached = TeacherCache.open(Path("other.zarr")).signal("embedding", 1, rows.numpy())
    assert torch.equal(found, standard.apply_to("embedding", cached))  # type: ignore[union-attr, operator]
    logits = context.bank("logits", rows, 1)  # type: ignore[union-attr, operator]
    assert torch.equal(logits, plain.bank("logits", rows, 1))  # type: ignore[union-attr, operator]
    means = standard.apply_to("embedding", plain.class_means())  # type: ignore[union-attr, operator]
    torch.testing.assert_close(context.class_means(), means)  # type: ignore[union-attr, operator]


def test_statistics_of_several_caches_of_a_teacher_are_those_of_all(among: Path):
    caches = "caches=[{path: artifacts/caches/tiny.zarr}, {path: more.zarr}]"
    run = opened(caches, "objectives={both: [{name: vkd, standardise: channels}]}")
    both = np.concatenate([all_embeddings("artifacts/caches/tiny.zarr"), all_embeddings("more.zarr")])
    standard = run.objective_set.standardised["0"]
    np.testing.assert_allclose(standard.embedding_mean, both.mean(0), rtol=1e-4, atol=1e-6)  # type: ignore[union-attr, arg-type]
    np.testing.assert_allclose(standard.embedding_weight, 1 / both.std(0), rtol=1e-4)  # type: ignore[union-attr, arg-type]


def test_a_run_is_another_and_goes_on_where_it_was_interrupted(among: Path):
    plain = student(
        "small", "both", NAMED, PHI_S.replace("phi-s", "none").replace("channels", "none"), output=Path("a")
    )
    whole = student("small", "both", NAMED, PHI_S, output=Path("b"))
    assert Path("other.statistics/embedding.safetensors").exists()
    assert content(plain)["student.safetensors"] != content(whole)["student.safetensors"]
    interrupted("small", "both", NAMED, PHI_S, output=Path("c"))
    again = student("small", "both", NAMED, PHI_S, output=Path("c"))
    assert content(again)["student.safetensors"] == content(whole)["student.safetensors"]
    written = parse_yaml((whole / "config.yaml").read_text(), "")["objectives"]["both"]
    assert [entry["standardise"] for entry in written] == ["phi-s", "channels"]
    assert "standardise" not in (plain / "config.yaml").read_text()
    identities = [opened(NAMED, sets).identity()["objectives"] for sets in (PHI_S, PHI_S.replace("phi-s", "none"))]
    assert "standardise" in identities[0][0]
    assert "standardise" not in identities[1][0]


def test_statistics_of_a_replaced_cache_are_computed_again(among: Path, capsys: pytest.CaptureFixture[str]):
    first = dict(opened(NAMED, PHI_S).objective_set.named_buffers())
    shutil.rmtree("other.statistics")
    shutil.copytree("artifacts/caches/tiny.statistics", "other.statistics")
    again = dict(opened(NAMED, PHI_S).objective_set.named_buffers())
    assert first.keys() == again.keys()
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert "is of another cache" in capsys.readouterr().err


REFUSED = {
    "reads neither embedding nor maps of a teacher": "{name: kd, standardise: phi-s}",
    "reads the teacher's head": "{name: simkd, standardise: phi-s}",
    "which standardised maps do not tell": "{name: ab, blocks: [block3], standardise: channels}",
    "standardise: Input should be": "{name: vkd, standardise: pca}",
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_standardised_is_refused(among: Path, message: str):
    with pytest.raises(ConfigError) as error:
        check.run(source(f"objectives={{one: [{REFUSED[message]}]}}"), as_json=False)
    assert message in str(error.value)
    assert "objectives.one.0" in str(error.value)
    assert not Path("artifacts/caches/tiny.statistics").exists()


def test_dropped_teachers_are_in_the_history_and_a_run_goes_on_where_it_was_interrupted(among: Path):
    whole = student("small", "both", NAMED, DROPPED, "train.epochs=3", output=Path("a"))
    rows = [line.split(",") for line in (whole / "history.csv").read_text().splitlines()]
    shares = [
        [float(value) for name, value in zip(rows[0], row, strict=True) if name.startswith("dropped/")]
        for row in rows[1:]
    ]
    assert all(len(each) == 2 and 0 <= sum(each) <= 1 for each in shares)
    assert any(sum(each) > 0 for each in shares)
    interrupted("small", "both", NAMED, DROPPED, "train.epochs=3", output=Path("b"))
    again = student("small", "both", NAMED, DROPPED, "train.epochs=3", output=Path("b"))
    assert content(again)["student.safetensors"] == content(whole)["student.safetensors"]
    none = DROPPED.replace("0.5", "0")
    plain = student("small", "both", NAMED, none, "train.epochs=3", output=Path("c"))
    assert content(plain)["student.safetensors"] != content(whole)["student.safetensors"]
    assert "dropped" not in (plain / "history.csv").read_text()
    assert "teacher_dropping" not in (plain / "config.yaml").read_text()
    written = parse_yaml((whole / "config.yaml").read_text(), "")["objectives"]["both"]
    assert written["teacher_dropping"] == 0.5
    assert "teacher_dropping" in opened(NAMED, DROPPED).identity()
    assert "teacher_dropping" not in opened(NAMED, none).identity()
    assert "teacher_dropping" not in opened(objectives="kd").identity()
