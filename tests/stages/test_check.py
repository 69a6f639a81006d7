from __future__ import annotations

import io
import json
import shutil
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
from experiment import CLASSES, COUNT, HOLDOUT, LIMIT, TEST, begin, moved_to, source, student
from PIL import Image

from pipeline.commands import check
from pipeline.errors import CacheError, ConfigError
from pipeline.experiment.students import StudentRun
from pipeline.planning import plan_lines
from pipeline.store.reader import TeacherCache


@pytest.fixture(autouse=True)
def _no_dvc_but_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's own settings of DVC do not count."""
    for level in ("GLOBAL", "SYSTEM"):
        monkeypatch.setenv(f"DVC_{level}_CONFIG_DIR", str(tmp_path / "none"))


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
    assert f"data      {COUNT} samples to learn from, {HOLDOUT} held out, 4 classes" in printed
    assert "limit: the first 60 of the 72 samples of split train\n" in printed
    assert "held out: 12 of them, evenly from the classes with seed 0; the ids: holdout.csv in the folder" in printed
    assert "views     2 per sample, 8 x 8 pixels, 3 stored parameters each: pad-crop, horizontal-flip" in printed
    assert "6 units of work of 20 samples" in printed
    assert "students  6 runs: small, vit x 3 objective sets\n" in printed


def test_the_plan_for_machines_is_what_cache_teacher_wrote(here: Path, capsys: pytest.CaptureFixture[str]):
    check.run(source(), as_json=True)
    facts = json.loads(capsys.readouterr().out)
    plan = TeacherCache.open(Path("artifacts/caches/tiny.zarr")).manifest.layout
    assert facts["bytes_per_view"] == plan.bytes_per_view
    for signal, entry in facts["encodings"].items():
        assert entry["chosen"] == "float32"
        assert entry["bytes_per_view"]["float32"] == plan.bytes_per_view[signal]
    assert facts["units"] == plan.views * plan.blocks
    files = [path for path in Path("artifacts/caches/tiny.zarr").rglob("*") if path.is_file()]
    assert facts["files"] == len(files)
    assert facts["total_bytes"] == pytest.approx(sum(path.stat().st_size for path in files), rel=0.5)
    assert (facts["samples"], facts["holdout"], facts["student_runs"]) == (COUNT, HOLDOUT, 6)


def planned(*overrides: str) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """The artifacts by name and the disks of the plan for machines."""
    with redirect_stdout(io.StringIO()) as printed:
        check.run(source(*overrides), as_json=True)
    facts = json.loads(printed.getvalue())
    return {artifact["name"]: artifact for artifact in facts["artifacts"]}, facts["disks"]


def test_all_that_is_written_is_counted_as_large_as_it_becomes(here: Path):
    artifacts, disks = planned()
    caches = {f"{name} cache": count for name, count in {"training": 0, "holdout": HOLDOUT, "evaluation": TEST}.items()}
    assert artifacts.keys() == {*caches, "teacher", "students"}
    for name, count in caches.items():
        written = sum(path.stat().st_size for path in Path(artifacts[name]["path"]).rglob("*") if path.is_file())
        assert artifacts[name]["bytes"] == pytest.approx(written, rel=0.5)
        assert artifacts[name]["bytes"] > count * CLASSES * 4  # logits in float32
    weights = Path("artifacts/teacher/teacher.safetensors").stat().st_size
    assert artifacts["teacher"]["bytes"] == pytest.approx(weights, rel=0.1)
    left = {name for name, artifact in artifacts.items() if artifact["remaining_bytes"]}
    assert left == {"students"}
    before = artifacts["students"]["remaining_bytes"]
    assert [disk["needed_bytes"] for disk in disks] == [before] == [artifacts["students"]["bytes"]]
    weights = (student("small", "kd") / "student.safetensors").stat().st_size
    assert before - planned()[0]["students"]["remaining_bytes"] == pytest.approx(weights, rel=0.1)


def test_what_is_not_there_yet_is_still_to_be_written(here: Path):
    Path("artifacts/caches/tiny.holdout.zarr").rename("elsewhere")
    shutil.rmtree("artifacts/teacher")
    artifacts, (disk,) = planned()
    for name in ("holdout cache", "teacher"):
        assert artifacts[name]["remaining_bytes"] == artifacts[name]["bytes"] > 0
    assert disk["needed_bytes"] == sum(artifact["remaining_bytes"] for artifact in artifacts.values())
    bare = planned("teacher_training=null", "data.holdout=null")[0]
    assert bare.keys() == {"training cache", "evaluation cache", "students"}


def test_units_that_are_finished_are_not_counted_again(here: Path, capsys: pytest.CaptureFixture[str]):
    path = Path("artifacts/caches/tiny.zarr")
    scratch = path.with_name(".tiny.zarr.0123456789abcdef.partial")
    path.rename(scratch)
    lines = (scratch / "ledger.jsonl").read_text().splitlines(keepends=True)
    units = [json.loads(line) for line in lines]
    done = [unit["unit"] for unit in units[:4]]
    (scratch / "ledger.jsonl").write_text("".join(lines[:4]))
    size = sum((scratch / name).stat().st_size for unit in units[:4] for name in unit["files"])
    artifact = planned()[0]["training cache"]
    assert artifact["bytes"] - artifact["remaining_bytes"] == size, done
    check.run(source(), as_json=False)
    assert f"artifacts/caches/tiny.zarr, {check.size(size)} of it there" in capsys.readouterr().out
    # Two unfinished ones: only one can be of these settings. And one without features is not.
    other = path.with_name(".tiny.zarr.fedcba9876543210.partial")
    shutil.copytree(scratch, other)
    (other / "ledger.jsonl").write_text("".join(lines[:2]))
    assert planned()[0]["training cache"] == artifact
    bare = planned("signals.features=null", "objectives.lfcc=[{name: kd}]")[0]["training cache"]
    static = units[0]["files"] if units[0]["unit"] == "static" else {}
    assert bare["bytes"] - bare["remaining_bytes"] == sum((scratch / name).stat().st_size for name in static)


SHM = Path("/dev/shm")


@pytest.fixture
def here_on_disk(road: Path, on_disk: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `road` on a disk, as the working directory, and a second file system in memory."""
    if not SHM.is_dir() or SHM.stat().st_dev == on_disk.stat().st_dev:
        pytest.skip("needs a second file system, /dev/shm")
    return moved_to(road, on_disk / "here", monkeypatch)


def test_every_file_system_is_counted_by_itself(here_on_disk: Path, monkeypatch: pytest.MonkeyPatch):
    elsewhere = ("store.path=/dev/shm/decant-none/a.zarr", "runs.path=none")
    artifacts, (memory, disk) = planned(*elsewhere)
    caches = [artifact for name, artifact in artifacts.items() if name.endswith("cache")]
    assert memory["path"] == "/dev/shm"
    assert memory["needed_bytes"] == sum(cache["bytes"] for cache in caches)
    assert memory["free_bytes"] == pytest.approx(shutil.disk_usage(SHM).free, rel=0.1)
    assert disk["needed_bytes"] == artifacts["students"]["bytes"]  # the teacher is there
    real = shutil.disk_usage
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: real(path)._replace(free=9) if Path(path).is_relative_to(SHM) else real(path)
    )
    with pytest.raises(CacheError, match="is too small for what is still to be written\n  where: /dev/shm\n"):
        check.run(source(*elsewhere), as_json=True)


def test_dvc_copies_what_it_cannot_link(here_on_disk: Path, capsys: pytest.CaptureFixture[str]):
    repository('[cache]\n    type = "reflink,hardlink,copy"\n')
    check.run(source("store.path=new.zarr"), as_json=False)
    assert "its cache links to what is written: no second copy" in capsys.readouterr().out
    artifacts, (memory, disk) = planned("store.path=/dev/shm/decant-none/a.zarr")
    caches = sum(artifact["bytes"] for name, artifact in artifacts.items() if name.endswith("cache"))
    assert (memory["dvc_bytes"], disk["dvc_bytes"]) == (0, caches)  # in .dvc/cache, on the disk of the repository


def test_dvc_without_hard_links_needs_everything_twice(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    repository("")
    artifacts, (disk,) = planned("store.path=new.zarr")
    left = [artifact for artifact in artifacts.values() if artifact["remaining_bytes"]]
    assert disk["dvc_bytes"] == sum(artifact["bytes"] for artifact in left)
    free = disk["needed_bytes"] + disk["dvc_bytes"] - 1
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    check.run(source("store.path=new.zarr"), as_json=False)  # a run without DVC has room enough
    printed = capsys.readouterr().out
    assert f"copies what it cannot link: {check.size(disk['dvc_bytes'])} more on" in printed
    assert "is too small for DVC's copy" in printed


def repository(config: str) -> None:
    Path(".dvc").mkdir()
    Path(".dvc/config").write_text(config)


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
    assert text.startswith("4 problems in the configuration tiny.yaml")
    assert "teacher: unknown model 'cifar_resnet9'" in text
    assert "students.small: unknown model 'cifar_resnet88'" in text
    assert "train.optimizer: unknown name 'adamv' (student vit)" in text
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
    assert "objectives.lfcc.0.scales: a scale is finer than the cached map" in text
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


def problems(*overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        check.run(source(*overrides), as_json=False)
    return [f"{problem.key}: {problem.what}".splitlines()[0] for problem in error.value.problems]


def test_problems_of_form_and_of_content_in_one_round_in_the_order_of_the_file(here: Path):
    assert problems(
        "train.epochs=none",  # form: `train` cannot be bound, all else can
        "runs={seeds: [1, 1]}",
        "objectives.kd=[{name: kd, temprature: 2}]",
        "students.vit.model=7",
        "students.other={model: nothing}",
        "signals.features.grid=0",
        "views.operations=[{name: center-crop, size: 9}]",
        "teacher.model=cifar_resnet9",
        "evaluate.split=tset",
        "trian={}",
    ) == [
        "teacher: unknown model 'cifar_resnet9'",
        "views.operations.0.size: the crop is larger than the images",
        "signals.features.grid: Input should be greater than 0",
        "students.vit.model: Input should be a valid string",
        "students.other: unknown model 'nothing'",
        "objectives.kd.0.temprature: unknown key",
        "train.epochs: Input should be a valid integer, unable to parse string as an integer",
        "runs.seeds: names every seed once",
        "evaluate.split: unknown name 'tset'",
        "trian: unknown name 'trian'",
    ]


def test_a_broken_set_or_student_keeps_no_other_from_being_bound(here: Path):
    scale = "objectives.lfcc.0.scales: a scale is finer than the cached map of block2, 2 x 2 (student small)"
    overrides = ["objectives.lfcc=[{name: lfcc, scales: [1, 4]}]"]
    assert scale in problems(*overrides)
    others = ("objectives.kd=[{name: kdd}]", "students.vit={}", "views.count=0", "store={}", "train=3", "evaluate=3")
    found = problems(*overrides, *others)
    assert scale in found
    assert len(found) == 1 + len(others)
    for other in ("signals=3", "teacher={}"):  # nothing to bind it to
        assert scale not in problems(*overrides, other)


def test_sections_that_are_missing_are_named_after_those_that_are_there(here: Path):
    text = Path("tiny.yaml").read_text()
    Path("tiny.yaml").write_text("\n".join(line for line in text.splitlines() if not line.startswith("store:")))
    assert problems("students.vit.model=nothing", "zzz=1") == [
        "students.vit: unknown model 'nothing'",
        "zzz: unknown name 'zzz'",
        "store: Field required",
    ]


def test_a_data_set_that_does_not_fit_is_a_problem_among_others(here: Path):
    assert problems("data.split=trian", "teacher.model=nothing") == [
        "data: there is no split 'trian'",
        "teacher: unknown model 'nothing'",
    ]
    assert problems("data.holdout.count=99", "train.schedule=cosinus")[0].startswith("data: the holdout leaves nothing")
    assert problems("data={path: nowhere.h5}") == ["data: there is no data set"]


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
    with pytest.raises(ConfigError, match=r"signals\.logits\.encoding(\.name)?: .*\bname\b") as error:
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


def test_views_of_a_sample_that_an_objective_needs_and_those_that_there_are(here: Path):
    pairs = "objectives.mlld=[{name: hard-label}, {name: mlld}]"
    assert problems(pairs, "students.small.train={views_per_step: 2}") == [
        "objectives.mlld.1: needs 2 views of every sample in a batch (student vit)"
    ]
    with pytest.raises(ConfigError, match=r"do: set `train\.views_per_step: 2`"):
        check.run(source(pairs), as_json=False)
    different = "train.views_per_step: the views of a sample in a batch are different ones (student {})"
    assert problems(pairs, "train.views_per_step=3") == [different.format("small"), different.format("vit")]
    listed = "caches=[{path: a.zarr, views: {count: 2}}, {path: b.zarr, views: [5]}]"
    assert problems("train.views_per_step=4", listed) == [different.format("small"), different.format("vit")]
    # Nothing is said of views where the settings of training are wrong.
    assert problems(pairs, "train.views_per_step=none") == [
        "train.views_per_step: Input should be a valid integer, unable to parse string as an integer"
    ]
    check.run(source(pairs, "train.views_per_step=2"), as_json=False)


def test_a_disk_that_is_too_small(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1_000_000))
    check.run(source(), as_json=False)  # the caches are there already
    with pytest.raises(CacheError, match="the disk is too small for what is still to be written") as error:
        check.run(source("store.path=new/place.zarr"), as_json=False)
    assert error.value.exit_code == 1
    assert "expected: 1.2 MB free" in str(error.value)
    assert "got: 1 MB free" in str(error.value)
    assert "bytes per view" in capsys.readouterr().out  # the plan is printed all the same


def test_many_files_are_warned_of(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(plan_lines, "MANY_FILES", 10)
    check.run(source(), as_json=False)
    assert "warning: more than 10 files make DVC slow; raise store.rows_per_block" in capsys.readouterr().out


def test_before_data_are_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(begin(tmp_path))
    check.run(source(), as_json=False)
    assert "yet at data.h5: run `pipeline prepare-data --config tiny.yaml`" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="2 problems"):
        check.run(source("teacher.model=nothing", "students.vit.model=nothing"), as_json=False)


def test_before_there_is_a_teacher(here: Path, capsys: pytest.CaptureFixture[str]):
    shutil.rmtree("artifacts")
    check.run(source(), as_json=False)
    assert "the configuration is valid" in capsys.readouterr().out


def test_a_teacher_that_nothing_makes(here: Path, capsys: pytest.CaptureFixture[str]):
    absent = "teacher.weights: there is no such file, and nothing that makes it"
    overrides = ("teacher.weights=mising.safetensors", "teacher_training=null")
    assert problems(*overrides, "store.path=new/place.zarr", "train.schedule=cosinus")[0] == absent
    assert problems("teacher.weights=null", "store.path=new/place.zarr") == ["teacher.weights: a teacher needs weights"]
    check.run(source(*overrides), as_json=False)  # its cache is there: a machine that only trains students
    assert "the configuration is valid" in capsys.readouterr().out


def test_options_of_objectives_are_told_about_as_others_are(here: Path):
    with pytest.raises(ConfigError) as error:
        check.run(source("objectives.kd=[{name: kd, temperature: hot}]"), as_json=False)
    assert "got: 'hot'" in str(error.value)
    assert "do: None" not in str(error.value)


def test_images_of_differing_sizes_need_one_size_only_where_they_are_evaluated(here: Path):
    """Training images that views give one size, and test images that have one."""
    with h5py.File("data.h5", "r+") as file:
        images = file["train/images"][...]
        del file["train/images"]
        kind = h5py.vlen_dtype(np.uint8)
        encoded = file["train"].create_dataset("images", (len(images),), dtype=kind)
        for i, image in enumerate(images):
            stream = io.BytesIO()
            Image.fromarray(np.pad(image[..., 0], ((0, i % 2), (0, 0)))).save(stream, "PNG")
            encoded[i] = np.frombuffer(stream.getvalue(), np.uint8)
    size = "views.operations=[{name: resize, size: [8, 8]}]"
    found = (size, "data.holdout=null", "store.path=new/place.zarr")
    check.run(source(*found), as_json=False)
    (problem,) = problems(size, "store.path=new/place.zarr")
    assert problem.startswith("evaluate.operations: the images of split 'train' differ in size")


def test_a_file_that_is_no_data_set(here: Path):
    Path("data.h5").write_bytes(b"nothing of the kind")
    with pytest.raises(ConfigError, match=r"data: not an HDF5 file\n  where: data\.h5"):
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


def test_a_split_that_is_chosen_by_and_reported_is_warned_of(here: Path, capsys: pytest.CaptureFixture[str]):
    check.run(source("data.holdout={split: test}"), as_json=False)
    printed = capsys.readouterr().out
    assert "held out: split test; the ids: holdout.csv in the folder of every student" in printed
    assert "warning: split test is held out to choose by and reported too" in printed
    assert f"data      {LIMIT} samples to learn from, {TEST} held out" in printed


def test_operations_that_cannot_work_on_these_images_are_found_before_work(here: Path):
    """Colours of five channels, in views and in evaluation: nothing but applying an operation tells."""
    with h5py.File("data.h5", "w") as file:
        for split, count in {"train": LIMIT, "test": TEST}.items():
            file[f"{split}/images"] = np.zeros((count, 8, 8, 5), np.uint8)
            file[f"{split}/labels"] = np.arange(count) % CLASSES
            file[f"{split}/ids"] = [f"{split}/{i}" for i in range(count)]
        file.attrs["class_names"] = json.dumps([str(k) for k in range(CLASSES)])
    settings = ("teacher.mean=[0, 0, 0, 0, 0]", "teacher.std=[1, 1, 1, 1, 1]", "data={path: data.h5}")
    settings = (*settings, "teacher_training={epochs: 1, probe: 0}", "teacher.weights=new/teacher.safetensors")
    check.run(source(*settings, "store.path=five.zarr"), as_json=False)
    with pytest.raises(ConfigError) as error:
        check.run(
            source(*settings, "views.operations=[color-jitter]", "evaluate={operations: [grayscale]}"), as_json=False
        )
    said = str(error.value)
    for place in ("views.operations: color-jitter knows no colours", "evaluate.operations: grayscale knows no colours"):
        assert place in said


def test_what_cannot_be_recorded_is_said_before_anything_is_compared(here: Path, monkeypatch: pytest.MonkeyPatch):
    changes = ("students.small.train={capture: true}", "objectives.lfcc=[{name: nd}, {name: kd}]")
    found = problems(*changes)
    assert "train.capture: records steps on a GPU (student small)" in found
    assert "train.capture: records steps, and the host prepares every step of some objectives (student small)" in found
    monkeypatch.setattr(
        "pipeline.experiment.students.refuse_without_gpu", lambda training: None
    )  # as if there were one
    monkeypatch.setattr(StudentRun, "check_views", None)
    with pytest.raises(ConfigError, match="the host prepares every step of some objectives"):
        student("small", "lfcc", *changes)
