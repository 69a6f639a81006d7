"""Students that learn from several teachers at once, each with objectives and projections of its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from experiment import CLASSES, TEST, content, source, student

from pipeline.commands import check, dvc_file
from pipeline.data import PackedDataset
from pipeline.errors import CacheMismatch, ConfigError
from pipeline.experiment import evaluator
from pipeline.experiment.experiment import Experiment
from pipeline.experiment.reference import open_named_references, open_reference
from pipeline.experiment.runs import RunName
from pipeline.experiment.source import ConfigFile
from pipeline.experiment.students import StudentRun, StudentSections
from pipeline.measuring.cost import Rate
from pipeline.models import build_network
from pipeline.objectives import Batch
from pipeline.objectives.methods.srrl import SRRL
from pipeline.store.format.manifest import Manifest
from pipeline.store.reader import TeacherCache
from pipeline.training.encoded_outputs import decode_others
from pipeline.yaml_text import parse_yaml, to_yaml
from stages import cache_teacher, evaluate

OWN = "{path: artifacts/caches/tiny.zarr, teacher: wide}"
NAMED = f"caches=[{OWN}, {{path: other.zarr, views: {{count: 2}}, teacher: narrow}}]"
BOTH = (NAMED, "objectives={both: [{name: vkd, teacher: wide}, {name: vkd, teacher: narrow}]}")


def opened(*overrides: str, objectives: str = "both") -> StudentRun:
    """What `train-student` opens."""
    inputs = source(*overrides).read_only(StudentSections, {"students": "small", "objectives": objectives})
    return Experiment(inputs).student(RunName("small", objectives))


def test_every_objective_reads_the_teacher_that_it_names(among: Path, capsys: pytest.CaptureFixture[str]):
    run = opened(*BOTH)
    wide, narrow = run.objective_set.members
    assert wide.projector.weight.shape == (64, 16)  # type: ignore[union-attr, operator]
    assert narrow.projector.weight.shape == (32, 16)  # type: ignore[union-attr, operator]
    step = run.steps[0]
    assert step.teacher_outputs is not None
    rows = step.sample.numpy()
    others = step.teacher_outputs.others  # type: ignore[union-attr]
    expected = TeacherCache.open(Path("other.zarr")).signal("embedding", 0, rows)
    found = others["narrow"].decode().embedding
    assert torch.equal(found, expected)
    own = step.teacher_outputs.decode().embedding
    assert torch.equal(own, TeacherCache.open(Path("artifacts/caches/tiny.zarr")).signal("embedding", 0, rows))
    assert "note: not checked against other.zarr: which teacher it is (cifar_resnet8" in capsys.readouterr().out

    folder = student("small", "both", *BOTH)
    header = (folder / "history.csv").read_text().splitlines()[0].split(",")
    assert {"vkd-wide/feature", "vkd-narrow/feature"} <= set(header)
    assert "teacher narrow: cifar_resnet8, read by objectives that name it" in capsys.readouterr().out
    written = parse_yaml((folder / "config.yaml").read_text(), "")
    assert written["caches"][1]["role"] == "named"
    assert ConfigFile(folder / "config.yaml").raw()["objectives"]["both"][1]["teacher"] == "narrow"


def test_the_gradient_of_two_teachers_is_the_sum_of_those_of_each(among: Path):
    """Against the same student with one objective at a time, whose projections are given the same weights."""
    run = opened(*BOTH)
    step, chosen = run.steps[0], run.objective_set
    images, weight = step.images, next(run.network.model.parameters())

    def gradient(objectives: torch.nn.Module, outputs: object, others: dict[str, object]) -> torch.Tensor:
        run.network.eval()
        weight.grad = None
        objectives(run.network(images), outputs, None, 0.0, others).total.backward()
        assert weight.grad is not None
        return weight.grad.clone()

    assert step.teacher_outputs is not None
    own = step.teacher_outputs.decode()
    narrow = step.teacher_outputs.others["narrow"].decode()  # type: ignore[union-attr]
    both = gradient(chosen, own, {"narrow": narrow})
    parts = []
    for index, name in enumerate(("wide", "narrow")):
        alone = opened(NAMED, f"objectives={{one: [{{name: vkd, teacher: {name}}}]}}", objectives="one").objective_set
        alone.members[0].load_state_dict(chosen.members[index].state_dict())
        parts.append(gradient(alone, own, {"narrow": narrow}))
    torch.testing.assert_close(both, parts[0] + parts[1])


def test_a_name_for_the_own_teacher_changes_no_pixel_of_the_result_and_unread_names_no_identity(among: Path):
    plain = opened(objectives="kd").identity()
    for caches in (f"caches=[{OWN}]", NAMED):
        assert opened(caches, objectives="kd").identity() == plain
    assert opened(*BOTH).identity()["answers"]["named"].keys() == {"narrow"}
    one = student("small", "kd", output=Path("one"))
    two = student("small", "kd", NAMED, output=Path("two"))
    assert content(one)["student.safetensors"] == content(two)["student.safetensors"]


def test_a_teacher_of_an_ensemble_may_be_named_too(among: Path):
    caches = f"caches=[{OWN}, {{path: other.zarr, views: [0, 1], role: mean-logits, teacher: narrow}}]"
    sets = "objectives={all: [kd, {name: kd, teacher: wide}, {name: kd, teacher: narrow}]}"
    run = opened(caches, sets, objectives="all")
    step = run.steps[0]
    assert step.teacher_outputs is not None
    mean = step.teacher_outputs.decode().logits
    others = step.teacher_outputs.others  # type: ignore[union-attr]
    each = [others[name].decode().logits for name in ("wide", "narrow")]
    torch.testing.assert_close(mean, (each[0] + each[1]) / 2)
    assert (student("small", "all", caches, sets) / "metrics.json").exists()


def test_methods_read_the_head_of_the_teacher_that_they_name(among: Path):
    sets = "objectives={both: [{name: srrl, teacher: narrow}, {name: simkd, teacher: narrow}]}"
    run = opened(NAMED, sets)
    head = TeacherCache.open(Path("other.zarr")).head
    assert head is not None
    assert run.head is None
    assert torch.equal(run.other_heads["narrow"].weight, head.weight)
    step, network = run.steps[0], run.network.eval()
    assert step.teacher_outputs is not None
    heads = {"narrow": head}
    others = decode_others(step.teacher_outputs, heads)
    batch = Batch(step.labels, step.sample, step.view)
    found = run.objective_set(network(step.images), step.teacher_outputs.decode(), batch, 0.0, others).terms
    srrl = run.objective_set.members[0]
    assert isinstance(srrl, SRRL)
    projected = srrl.connector(network(step.images).features["block3"])
    judged = projected.relu().mean((2, 3)) @ head.weight.T + head.bias
    expected = (judged - others["narrow"].logits).square().mean()
    assert float(found["srrl-narrow/regression"]) == pytest.approx(expected.item(), rel=1e-4)

    folder = student("small", "both", NAMED, sets)
    kept = safetensors.torch.load_file(folder / "head.safetensors")
    assert torch.equal(kept["classifier.weight"], head.weight)
    assert torch.equal(kept["classifier.bias"], head.bias)


REFUSED = {
    "objectives.both.0.teacher: unknown name 'narow'": (
        NAMED,
        "objectives={both: [{name: kd, teacher: narow}]}",
    ),
    "objectives.both.0.teacher: there is no teacher of that name": ("objectives={both: [{name: kd, teacher: a}]}",),
    "objectives.both.1: needs cached features of the teacher, and there are none": (
        NAMED,
        "objectives={both: [kd, {name: at, blocks: [block3], teacher: narrow}]}",
    ),
    "caches: a teacher that objectives are to name needs a name": (f"caches=[{OWN}, {{path: a, role: named}}]",),
    "caches: 'wide' is the name of two teachers": (f"caches=[{OWN}, {{path: a, role: mean-logits, teacher: wide}}]",),
    "same teacher as artifacts/caches/tiny.zarr": (f"caches=[{OWN}, {{path: more.zarr, teacher: narrow}}]",),
    "the caches of all teachers must have the same views": (f"caches=[{OWN}, {{path: other.zarr, teacher: narrow}}]",),
    "this cache is of another teacher than": (f"caches=[{OWN}, {{path: other.zarr, teacher: wide}}]",),
    "objectives.both.0: needs the teacher's 'head'": (
        f"caches=[{OWN}, {{path: other.zarr, views: [0, 1], role: mean-logits, teacher: narrow}}]",
        "objectives={both: [srrl, {name: srrl, teacher: narrow}]}",
    ),
    "objectives.both.views: the teacher has not seen views that are drawn anew": (
        NAMED,
        "objectives={both: {views: fresh, objectives: [{name: kd, teacher: narrow}]}}",
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_makes_no_sense_is_refused(among: Path, message: str):
    given = REFUSED[message]
    sets = () if any(each.startswith("objectives") for each in given) else (BOTH[1],)
    with pytest.raises((CacheMismatch, ConfigError)) as error:
        student("small", "both", *given, *sets)
    assert message in str(error.value)


def test_check_shows_teachers_and_what_is_read_of_them(among: Path, capsys: pytest.CaptureFixture[str]):
    check.run(source(*BOTH), as_json=False)
    said = capsys.readouterr().out
    assert "learnt    artifacts/caches/tiny.zarr, teacher wide: fits" in said
    assert "learnt    other.zarr, named narrow: fits" in said
    assert "of narrow, embedding: both" in said
    check.run(source(*BOTH), as_json=True)
    needs = json.loads(capsys.readouterr().out)["requirements"]["needs"]
    assert needs[0]["signals"] == ["embedding"]
    assert needs[0]["teachers"] == {"narrow": ["embedding"]}

    wrong = "objectives={both: [{name: kd, teacher: narrow}, {name: vkd, teacher: wide}, {name: at, teacher: narrow}]}"
    with pytest.raises(ConfigError, match=r"objectives\.both\.2: needs cached features"):
        check.run(source(NAMED, wrong), as_json=False)


def test_check_of_a_teacher_that_is_not_cached_yet(among: Path, capsys: pytest.CaptureFixture[str]):
    shutil.rmtree("other.zarr")
    check.run(source(*BOTH), as_json=False)
    said = capsys.readouterr().out
    assert "learnt    other.zarr, named narrow: not there yet" in said
    sets = "objectives={both: [{name: at, teacher: narrow}, {name: vkd, teacher: wdie}]}"
    with pytest.raises(ConfigError, match=r"objectives\.both\.1\.teacher: unknown name 'wdie'"):
        check.run(source(NAMED, sets), as_json=False)


def test_dvc_depends_on_the_caches_of_all_teachers(among: Path):
    raw = source(*BOTH).raw()
    Path("tiny.yaml").write_text(to_yaml(raw))
    dvc_file.run(source(), Path("dvc.yaml"))
    stages = parse_yaml(Path("dvc.yaml").read_text(), "")["stages"]
    (training,) = [str(stage) for stage in stages.values() if "train-student" in str(stage)]
    assert "other.zarr" in training


def test_two_teachers_without_classifiers(here: Path):
    headless = ("teacher.head=none", "teacher_training=null", "students.small.head=none")
    build_network("cifar_resnet8", CLASSES, input_size=8, options={"widths": [8, 16, 24]}, seed=5).save(
        Path("b.safetensors")
    )
    cache_teacher.run(source(*headless, "store.path=a.zarr"), replace=False, wait=False)
    second = ("teacher.weights=b.safetensors", "teacher.options={widths: [8, 16, 24]}", "signals.features=null")
    cache_teacher.run(source(*headless, *second, "store.path=b.zarr"), part="training", replace=False, wait=False)
    settings = (
        *headless,
        "caches=[{path: a.zarr, teacher: a}, {path: b.zarr, teacher: b}]",
        "objectives={both: [{name: vkd, teacher: a}, {name: pkt, teacher: b, weight: 100}]}",
    )
    check.run(source(*settings), as_json=False)
    folder = student("small", "both", *settings)
    rows = [line.split(",") for line in (folder / "history.csv").read_text().splitlines()]
    last = dict(zip(rows[0], rows[-1], strict=True))
    total = float(last["vkd-a/feature"]) + 100 * float(last["pkt-b/resemblance"])
    assert float(last["loss"]) == pytest.approx(total, rel=1e-4)
    evaluate.run(source(*settings))


def test_agreement_with_every_named_teacher_is_measured(
    among: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    rate = Rate(1000.0, 900.0, 1100.0, 3)
    monkeypatch.setattr(evaluator, "images_per_second", lambda *arguments, **options: rate)
    student("small", "kd", "train.epochs=1")
    written = Path("artifacts/tiny/evaluation.json")
    evaluate.run(source())
    plain = json.loads(written.read_text())
    assert all("agreements" not in each for each in (plain["teacher"], *plain["students"]))
    evaluate.run(source(NAMED))
    found = json.loads(written.read_text())
    wide, narrow = (
        TeacherCache.open(Path(path)).read(0, np.arange(TEST)).logits.argmax(1)
        for path in ("artifacts/caches/tiny.evaluation.zarr", "other.evaluation.zarr")
    )
    split = PackedDataset.open(Path("data.h5")).split("test").read(np.arange(TEST))
    assert isinstance(split, torch.Tensor)
    options = {"widths": [16, 16, 16]}
    weights = Path("artifacts/tiny/students/small/kd/seed-0/student.safetensors")
    network = build_network("cifar_resnet8", CLASSES, weights=weights, input_size=8, options=options).eval()
    with torch.inference_mode():
        said = network(split).logits.argmax(1)
    (of_student,) = [each for each in found["students"] if (each["student"], each["objectives"]) == ("small", "kd")]
    assert of_student["agreements"] == {"narrow": pytest.approx((said == narrow).double().mean().item())}
    assert found["teacher"]["agreements"] == {"narrow": pytest.approx((wide == narrow).double().mean().item())}
    for before, after in zip(
        (plain["teacher"], *plain["students"]), (found["teacher"], *found["students"]), strict=True
    ):
        assert before["metrics"] == after["metrics"]  # what was there stays

    Path("tiny.yaml").write_text(to_yaml(source(NAMED).raw()))
    dvc_file.run(source(), Path("dvc.yaml"))
    stages = parse_yaml(Path("dvc.yaml").read_text(), "")["stages"]
    assert any(each.startswith("other.evaluation.zarr") for each in stages["evaluate"]["deps"])
    shutil.rmtree("other.evaluation.zarr")
    assert open_named_references(Experiment(source(NAMED).read_only(evaluate.Inputs, {})), "evaluation") == {}
    assert "no evaluation cache at other.evaluation.zarr: no comparison with teacher narrow" in capsys.readouterr().err


def test_a_teacher_whose_cache_is_made_by_code_of_its_own_is_noted(among: Path, capsys: pytest.CaptureFixture[str]):
    made_by(Path("other.zarr"), "elsewhere:corner")
    assert open_named_references(Experiment(source(NAMED).read_only(evaluate.Inputs, {})), "evaluation") == {}
    note = "no comparison with teacher narrow, since other.zarr cannot be read: the signals of the teacher cache are ma"
    assert note in capsys.readouterr().err
    ensemble = "caches=[{path: artifacts/caches/tiny.zarr}, {path: other.zarr, role: mean-logits, views: {count: 2}}]"
    assert open_reference(Experiment(source(ensemble).read_only(evaluate.Inputs, {})), "evaluation") is None
    assert "no comparison with the teacher on evaluation, since other.zarr cannot be read" in capsys.readouterr().err


def made_by(cache: Path, filter_name: str) -> None:
    """Let the manifest of a cache say that its filter is another one."""
    manifest = Manifest.read(cache)
    identity = manifest.identity.model_copy(
        update={"signals": manifest.identity.signals.model_copy(update={"filter": filter_name})}
    )
    root = json.loads((cache / "zarr.json").read_text())
    changed = Manifest.of(identity, manifest.provenance, {"zarr.json": b"{}"})
    changed = changed.model_copy(update={"metadata": manifest.metadata})
    root["attributes"] = {**changed.attributes(), "checksum": changed._checksum()}
    (cache / "zarr.json").write_text(json.dumps(root))
    (cache / ".fingerprint").write_text(f"{changed.fingerprint}\n")


def test_teachers_of_other_classes_are_compared_by_neighbours(among: Path, monkeypatch: pytest.MonkeyPatch):
    opened = Experiment(source(NAMED).read_only(evaluate.Inputs, {}))
    cached = TeacherCache.open(Path("other.evaluation.zarr")).read(0, np.arange(TEST)).logits
    monkeypatch.setattr(Experiment, "classes", CLASSES + 1)
    signals = open_named_references(opened, "evaluation")["narrow"]
    assert signals.logits.shape[1] == 0
    assert signals.embedding is not None
    assert torch.equal(signals.embedding, cached)
    with pytest.raises(CacheMismatch, match=r"data\."):
        open_named_references(
            Experiment(source(NAMED, "evaluate.split=train").read_only(evaluate.Inputs, {})), "evaluation"
        )
