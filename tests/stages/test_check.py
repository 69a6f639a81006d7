from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from experiment import COUNT, HOLDOUT, begin, source

from pipeline.errors import CacheError, ConfigError, DataError
from pipeline.store import TeacherCache
from stages import check


def test_the_plan_has_bytes_per_view_work_and_disk(here: Path, capsys: pytest.CaptureFixture[str]):
    check.run(source(), as_json=False)
    printed = capsys.readouterr().out
    # 4 logits, an embedding of 64, maps of 32 and 64 channels on a 2 x 2 grid; float32 is chosen. int8 has a scale for
    # each vector and channel; topk keeps all 4 logits and indices, 2 bytes each, and the rest.
    table = """
                              float16     float32        int8        topk
        logits                      8          16*          8          20
        embedding                 128         256*         68           -
        features/block2           256         512*        256           -
        features/block3           512       1,024*        512           -
    """
    lines = [line.split() for line in printed.splitlines()]
    for row in table.strip().splitlines():
        assert row.split() in lines
    assert "signals   1,808 bytes per view" in printed
    assert f"data      {COUNT} samples, {HOLDOUT} held out, 4 classes" in printed
    assert "views     2 per sample, 3 stored parameters each" in printed
    assert "6 units of work of 20 samples" in printed
    assert "students  6 runs: small, vit" in printed


def test_the_plan_for_machines_is_what_cache_teacher_wrote(here: Path, capsys: pytest.CaptureFixture[str]):
    check.run(source(), as_json=True)
    facts = json.loads(capsys.readouterr().out)
    plan = TeacherCache.open(Path("artifacts/caches/tiny.zarr")).manifest.plan
    assert facts["bytes_per_view"] == plan.bytes_per_view
    for signal, entry in facts["encodings"].items():
        assert entry["chosen"] == "float32"
        assert entry["bytes_per_view"]["float32"] == plan.bytes_per_view[signal]
    assert facts["units"] == plan.views * plan.blocks
    files = [path for path in Path("artifacts/caches/tiny.zarr").rglob("*") if path.is_file()]
    assert facts["files"] == len(files)
    assert facts["total_bytes"] == pytest.approx(sum(path.stat().st_size for path in files), rel=0.5)
    assert (facts["samples"], facts["holdout"], facts["student_runs"]) == (COUNT, HOLDOUT, 6)


def test_every_problem_at_once(here: Path):
    overrides = (
        "teacher.model=cifar_resnet9",
        "students.small.model=cifar_resnet88",
        "students.vit.train={optimizer: adamv}",
        "students.other={model: cifar_resnet8, input_size: 8, train: {epoch: 3}}",
    )
    with pytest.raises(ConfigError) as error:
        check.run(source(*overrides), as_json=False)
    text = str(error.value)
    assert text.startswith("3 problems in the configuration tiny.yaml")
    assert "teacher: unknown model 'cifar_resnet9'" in text
    assert "students.small: unknown model 'cifar_resnet88'" in text
    assert "students.other.train.epoch: unknown key" in text
    assert "did you mean 'epochs'?" in text


def test_every_problem_of_binding_at_once(here: Path):
    overrides = (
        "students.vit.train={optimizer: adamv}",
        "students.small.train={schedule: cosinus}",
        "objectives.lfcc=[{name: lfcc, scales: [1, 4]}, {name: hard-label}, {name: hard-label}]",
    )
    with pytest.raises(ConfigError) as error:
        check.run(source(*overrides), as_json=False)
    text = str(error.value)
    assert "train.optimizer: unknown name 'adamv' (student vit)" in text
    assert "train.schedule: is not a schedule that timm can make" in text
    assert "objectives.lfcc.0.scales: a scale is finer than the coarsest map" in text
    assert "objectives.lfcc: has several entries named 'hard-label' (student small)" in text
    assert len(error.value.problems) == len(set(error.value.problems)) == 6


def test_every_problem_of_the_sections_at_once(here: Path):
    overrides = ("viewz={}", "train.epochs=none", "objectives.kd=[{name: kdd}]", "signals.features.filter=media")
    with pytest.raises(ConfigError) as error:
        check.run(source(*overrides, "views.operations=[{name: pad-corp}]"), as_json=False)
    keys = {problem.key for problem in error.value.problems}
    expected = {"viewz", "train.epochs", "objectives.kd.0.name", "signals.features.filter"}
    assert keys == expected | {"views.operations.0.name"}
    for name in ("views", "kd", "pad-crop"):
        assert f"did you mean '{name}'?" in str(error.value)


def test_blocks_that_the_teacher_lacks(here: Path):
    with pytest.raises(ConfigError, match=r"signals\.features\.blocks: unknown name 'blok3'") as error:
        check.run(source("signals.features.blocks=[blok3]"), as_json=False)
    assert "did you mean 'block3'?" in str(error.value)
    with pytest.raises(ConfigError, match="asks for more blocks than the teacher has"):
        check.run(source("signals.features.blocks=4"), as_json=False)


def test_an_encoding_with_options_is_the_marked_one(here: Path, capsys: pytest.CaptureFixture[str]):
    overrides = ("signals.logits.encoding={name: topk, k: 3}", "store.path=new/place.zarr")
    check.run(source(*overrides), as_json=False)
    assert ["logits", "8", "16", "8", "16*"] in [line.split() for line in capsys.readouterr().out.splitlines()]
    check.run(source(*overrides), as_json=True)
    logits = json.loads(capsys.readouterr().out)["encodings"]["logits"]
    assert logits["chosen"] == {"name": "topk", "k": 3}
    assert logits["bytes_per_view"]["topk"] == 16


@pytest.mark.parametrize("packed", [True, False])
def test_every_encoding_that_cannot_be_is_refused_before_work_starts(here: Path, packed: bool):
    overrides = (
        "signals.logits.encoding={name: topk, kk: 3}",
        "signals.embedding.encoding=topk",
        "signals.features.encoding=in8",
        "teacher.model=cifar_resnet9",
    )
    if not packed:
        Path("data.h5").unlink()
    with pytest.raises(ConfigError) as error:
        check.run(source(*overrides), as_json=False)
    text = str(error.value)
    assert text.startswith("4 problems in the configuration tiny.yaml")
    assert "signals.logits.encoding.kk: unknown key" in text
    assert "signals.embedding.encoding: 'topk' writes logits only" in text
    assert "signals.features.encoding: unknown name 'in8'" in text
    assert "did you mean 'int8'?" in text


@pytest.mark.parametrize("encoding", ["3", "{k: 3}", "[topk]", "{name: 3}", "null"])
def test_what_names_no_encoding_is_refused_at_its_key(here: Path, encoding: str):
    with pytest.raises(ConfigError, match=r"signals\.logits\.encoding: names an encoding, such as float16") as error:
        check.run(source(f"signals.logits.encoding={encoding}"), as_json=False)
    assert len(error.value.problems) == 1


def test_operations_that_cannot_work_on_the_images(here: Path):
    with pytest.raises(ConfigError, match=r"views\.operations\.0"):
        check.run(source("views.operations=[{name: center-crop, size: 9}]"), as_json=False)


def test_objectives_that_need_what_is_not_cached_name_the_student(here: Path):
    with pytest.raises(ConfigError, match=r"objectives\.lfcc\.1: needs cached features .* \(student small\)") as error:
        check.run(source("signals.features=null"), as_json=False)
    assert "(student vit)" in str(error.value)
    assert "add `features: {}` to `signals`" in str(error.value)


def test_a_disk_that_is_too_small(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=100_000))
    check.run(source(), as_json=False)  # the cache is there already
    with pytest.raises(CacheError, match="the disk is too small for the teacher cache") as error:
        check.run(source("store.path=new/place.zarr"), as_json=False)
    assert error.value.exit_code == 1
    assert "got: 100 kB free" in str(error.value)
    assert "bytes per view" in capsys.readouterr().out  # the plan is printed all the same


def test_many_files_are_warned_of(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(check, "MANY_FILES", 10)
    check.run(source(), as_json=False)
    assert "warning: more than 10 files make DVC slow; raise store.rows_per_block" in capsys.readouterr().out


def test_before_data_are_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(begin(tmp_path))
    check.run(source(), as_json=False)
    assert "no packed data set yet at data.h5: run `pipeline prepare-data`" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="2 problems"):
        check.run(source("teacher.model=nothing", "students.vit.model=nothing"), as_json=False)


def test_before_there_is_a_teacher(here: Path, capsys: pytest.CaptureFixture[str]):
    shutil.rmtree("artifacts")
    check.run(source(), as_json=False)
    assert "the configuration is valid" in capsys.readouterr().out


def test_a_file_that_is_no_data_set(here: Path):
    Path("data.h5").write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match="not an HDF5 file"):
        check.run(source(), as_json=False)


def test_it_writes_nothing(here: Path):
    before = sorted(here.rglob("*"))
    check.run(source("store.path=new/place.zarr"), as_json=False)
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (2.5e6, "2.5 MB"), (3e10, "30 GB"), (4e12, "4 TB")],
)
def test_sizes_for_people(amount: float, text: str):
    assert check.size(amount) == text
