"""prepare-data, train-teacher and cache-teacher, and images of differing sizes through all stages."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest
from experiment import CLASSES, COUNT, HOLDOUT, TEST, begin, content, images, source, student
from intact import verify_files
from PIL import Image
from safetensors.torch import load_file

import stages.train_teacher
from pipeline.commands import check
from pipeline.errors import CacheMismatch, ConfigError, DataError, ModelError, PipelineError
from pipeline.experiment.source import ConfigFile
from pipeline.progress import Silent
from pipeline.reporting.results import Evaluation
from pipeline.store.reader import TeacherCache
from stages import cache_teacher, evaluate, prepare_data, train_teacher

WEIGHTS = Path("artifacts/teacher/teacher.safetensors")


def test_packing_says_what_was_packed_and_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(begin(tmp_path))
    prepare_data.run(source(), replace=False)
    printed = capsys.readouterr().out
    assert printed.startswith("data.h5: 4 classes from ")
    titles, train, test = [line.split() for line in printed.splitlines()[1:4]]
    assert titles[:3] == ["split", "images", "classes"]
    assert train == ["train", "72", "4", "18", "(0)", "18", "(0)", "0", "8x8x1"]
    assert test == ["test", "24", "4", "6", "(0)", "6", "(0)", "0", "8x8x1"]
    before = Path("data.h5").stat().st_mtime_ns
    prepare_data.run(source(), replace=False)
    assert "already there; --replace packs it again" in capsys.readouterr().out
    assert Path("data.h5").stat().st_mtime_ns == before
    prepare_data.run(source(), replace=True)
    assert Path("data.h5").stat().st_mtime_ns > before


def test_nothing_to_pack_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(begin(tmp_path))
    with pytest.raises(DataError, match="there is nothing to pack a data set from"):
        prepare_data.run(source("data.source=null"), replace=False)


def test_a_file_that_was_packed_from_something_else_is_refused_field_by_field(here: Path):
    before = Path("data.h5").read_bytes()
    with pytest.raises(DataError, match="the data set was packed from something else") as error:
        prepare_data.run(source("data.source.path=other.h5", "data.source.labels=targets"), replace=False)
    lines = str(error.value).splitlines()
    assert '  - data.source.labels: expected "targets", got "labels"' in lines
    assert '  - data.source.path: expected "other.h5", got "raw.h5"' in lines
    assert sum(line.startswith("  - ") for line in lines) == 2
    assert "prepare-data --replace" in lines[-1]
    with pytest.raises(DataError, match=r'data\.source\.name: expected "digits", got "hdf5"'):
        prepare_data.run(source("data.source={name: digits}"), replace=False)
    assert Path("data.h5").read_bytes() == before
    prepare_data.run(source("data.source={name: digits}"), replace=True)
    prepare_data.run(source("data.source={name: digits}"), replace=False)


@pytest.mark.parametrize(
    "stage",
    [
        lambda other: check.run(other, as_json=False),
        lambda other: train_teacher.run(other, replace=False, wait=False),
        lambda other: cache_teacher.run(other, replace=False, wait=False),
        lambda other: evaluate.run(other),
    ],
    ids=["check", "train-teacher", "cache-teacher", "evaluate"],
)
def test_no_stage_works_on_a_file_that_was_packed_from_something_else(here: Path, stage: Callable[[ConfigFile], None]):
    with pytest.raises(PipelineError, match=r'data\.source\.path: expected "other\.h5", got "raw\.h5"'):
        stage(source("data.source.path=other.h5"))


def test_a_file_of_an_unknown_source_and_any_file_without_a_source_are_kept(
    here: Path, capsys: pytest.CaptureFixture[str]
):
    prepare_data.run(source("data.source=null"), replace=False)
    assert "  already there; --replace" in capsys.readouterr().out
    with h5py.File("data.h5", "r+") as file:
        del file.attrs["packed_from"]
    prepare_data.run(source("data.source={name: digits}"), replace=False)
    assert "already there, and kept: the file does not say what it was packed from" in capsys.readouterr().out
    check.run(source("data.source={name: digits}"), as_json=False)


def test_images_that_came_or_went_after_packing_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(begin(tmp_path))
    photos(Path("photos"), lambda index: (8, 8))
    Path("photos/train/class0/broken.png").write_bytes(b"no image")
    pack = ("data.source={name: image-folder, path: photos}", "data.path=photos.h5", "data.unreadable=skip")
    prepare_data.run(source(*pack), replace=False)
    prepare_data.run(source(*pack), replace=False)  # the broken one is counted on both sides
    assert "already there" in capsys.readouterr().out
    with pytest.raises(DataError, match=r"data\.unreadable: expected refuse, got skip, which left 1 images out"):
        prepare_data.run(source(*pack[:2]), replace=False)
    Image.new("L", (8, 8)).save("photos/train/class0/new.png")
    next(Path("photos/test/class1").iterdir()).unlink()
    with pytest.raises(DataError, match="the source has changed since it was packed") as error:
        prepare_data.run(source(*pack), replace=False)
    assert "- train: 42 images, 41 when it was packed" in str(error.value)
    assert "- test: 11 images, 12 when it was packed" in str(error.value)
    prepare_data.run(source("data.source=null", *pack[1:]), replace=False)
    Path("photos").rename("elsewhere")  # nothing to compare with
    prepare_data.run(source(*pack), replace=False)
    assert capsys.readouterr().out.count("already there") == 2


def photos(folder: Path, sizes: Callable[[int], tuple[int, int]]) -> None:
    """An image folder with a few PNG files of the sizes (width, height)."""
    for split, count in {"train": 40, "test": 12}.items():
        pixels, labels = images(count, len(split))
        for index in range(count):
            image = Image.fromarray(pixels[index, :, :, 0]).resize(sizes(index))
            path = folder / split / f"class{labels[index]}" / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)


def test_unreadable_images_that_are_skipped_are_listed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(begin(tmp_path))
    photos(Path("photos"), lambda index: (8, 8))
    Path("photos/train/class0/broken.png").write_bytes(b"no image")
    pack = ("data.source={name: image-folder, path: photos}", "data.path=photos.h5")
    with pytest.raises(DataError, match="1 of 53 images cannot be read"):
        prepare_data.run(source(*pack), replace=False)
    prepare_data.run(source(*pack, "data.unreadable=skip"), replace=False)
    assert capsys.readouterr().out.count("broken.png") == 1


def test_what_was_left_out_and_what_is_there_twice_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(begin(tmp_path))
    photos(Path("photos"), lambda index: (8, 8))
    for name in ("a.docx", "b.docx", "notes", "c.TXT"):
        Path("photos/train/class0", name).touch()
    twin = Path("photos/test/class1/twin.bmp")
    with Image.open("photos/train/class0/0.png") as image:
        image.save(twin)  # other bytes, the same pixels
    shutil.rmtree("photos/test/class3")
    pack = source("data.source={name: image-folder, path: photos}", "data.path=photos.h5")
    prepare_data.run(pack, replace=False)
    lines = capsys.readouterr().out.splitlines()
    assert "  left out: 4 files (.docx 2, no suffix 1, .txt 1)" in lines
    assert "  no image in test of 1 classes: class3" in lines
    assert "  the same pixels in train and test: 1 images (train/class0/0.png = test/class1/twin.bmp)" in lines
    assert "  the same pixels with different labels: 1 images (train/class0/0.png = test/class1/twin.bmp)" in lines
    prepare_data.run(pack, replace=False)
    assert "  left out: 4 files (.docx 2, no suffix 1, .txt 1)" in capsys.readouterr().out.splitlines()
    prepare_data.run(pack, replace=True, as_json=True)
    facts = json.loads(capsys.readouterr().out)
    assert facts["left_out"] == {".docx": 2, ".txt": 1, "": 1}
    assert [split["split"] for split in facts["splits"]] == ["train", "test"]
    assert facts["splits"][1]["missing"] == ["class3"]
    assert facts["same_pixels"] == [
        {"samples": [["train", "train/class0/0.png"], ["test", "test/class1/twin.bmp"]], "labels": [0, 1]}
    ]


def test_the_teacher_is_published_with_what_it_was_made_of(road: Path):
    folder = road / "artifacts/teacher"
    files = {".fingerprint", "config.yaml", "history.csv", "holdout.csv", "metrics.json", "teacher.safetensors"}
    assert {path.name for path in folder.iterdir()} == files
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["epochs"] == 2
    assert metrics["holdout"]["count"] == HOLDOUT
    assert load_file(folder / "teacher.safetensors")["fc.weight"].shape == (CLASSES, 64)


def test_a_teacher_that_is_there_is_kept_and_another_refused(here: Path, capsys: pytest.CaptureFixture[str]):
    before = content(WEIGHTS.parent)
    train_teacher.run(source(), replace=False, wait=False)
    assert capsys.readouterr().out == "artifacts/teacher: already there\n"
    with pytest.raises(CacheMismatch, match="another artifact is published"):
        train_teacher.run(source("teacher_training.epochs=1"), replace=False, wait=False)
    assert content(WEIGHTS.parent) == before
    train_teacher.run(source("teacher_training.epochs=1"), replace=True, wait=False)
    assert content(WEIGHTS.parent)["teacher.safetensors"] != before["teacher.safetensors"]


def test_a_teacher_in_training_goes_on_where_it_was_interrupted(here: Path, monkeypatch: pytest.MonkeyPatch):
    class Interrupted(Silent):
        def advance(self, amount: int, note: str = "") -> None:
            if note.startswith("epoch 2"):
                raise KeyboardInterrupt

    before = content(WEIGHTS.parent)["teacher.safetensors"]
    WEIGHTS.parent.rename("before")
    with monkeypatch.context() as patch:
        patch.setattr(stages.train_teacher, "Lines", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            train_teacher.run(source(), replace=False, wait=False)
    assert not WEIGHTS.exists()
    train_teacher.run(source(), replace=False, wait=False)
    assert WEIGHTS.read_bytes() == before


def test_a_teacher_needs_a_place(here: Path):
    for weights in ("null", "pretrained"):
        with pytest.raises(ConfigError, match=r"teacher\.weights: names no file to write"):
            train_teacher.run(source(f"teacher.weights={weights}"), replace=False, wait=False)


def test_a_folder_that_is_not_ours_is_never_replaced(here: Path):
    Path("mine").mkdir()
    Path("mine/keep.txt").write_text("precious")
    with pytest.raises(CacheMismatch, match="not something that Decant published"):
        train_teacher.run(source("teacher.weights=mine/teacher.safetensors"), replace=True, wait=False)
    assert Path("mine/keep.txt").read_text() == "precious"


def test_three_caches_with_logits_of_holdout_and_test(road: Path):
    caches = {kind: road / f"artifacts/caches/tiny{kind}.zarr" for kind in ("", ".holdout", ".evaluation")}
    counts = {kind: TeacherCache.open(path).count for kind, path in caches.items()}
    assert counts == {"": COUNT, ".holdout": HOLDOUT, ".evaluation": TEST}
    main = TeacherCache.open(caches[""])
    assert len(main.views) == 2
    assert set(main.shapes.features) == {"block2", "block3"}
    for kind in (".holdout", ".evaluation"):
        other = TeacherCache.open(caches[kind])
        assert (len(other.views), dict(other.shapes.features), other.shapes.embedding) == (1, {}, None)
    for path in caches.values():
        verify_files(path)


def test_caches_that_are_there_are_kept_and_others_refused(here: Path, capfd: pytest.CaptureFixture[str]):
    before = content(Path("artifacts/caches"))
    cache_teacher.run(source(), replace=False, wait=False)
    assert capfd.readouterr().err.count("is there already") == 3
    assert content(Path("artifacts/caches")) == before
    with pytest.raises(CacheMismatch, match="another teacher cache is published"):
        cache_teacher.run(source("views.seed=1"), replace=False, wait=False)
    cache_teacher.run(source("views.seed=1"), replace=True, wait=False)
    changed = {name for name, value in content(Path("artifacts/caches")).items() if before[name] != value}
    assert {name.split("/")[0] for name in changed} == {"tiny.zarr"}


def test_a_teacher_without_weights_is_not_asked(here: Path):
    with pytest.raises(ConfigError, match=r"teacher\.weights: a teacher needs weights"):
        cache_teacher.run(source("teacher.weights=null"), replace=False, wait=False)
    with pytest.raises(ModelError, match="the weights cannot be read"):
        cache_teacher.run(source("teacher.weights=nowhere.safetensors"), replace=False, wait=False)


CROPS = "views.operations=[{name: resized-crop, size: 8}, {name: horizontal-flip}]"
ONE_SIZE = "evaluate.operations=[{name: resize, size: [8, 8]}]"
PHOTOS = ("data.path=photos.h5", "data.source={name: image-folder, path: photos}", "data.limit=null")


def test_images_of_differing_sizes_go_all_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(begin(tmp_path))
    photos(Path("photos"), lambda index: (9 + index % 3, 12 - index % 2))
    road = (*PHOTOS, CROPS, ONE_SIZE)
    prepare_data.run(source(*road), replace=False)
    check.run(source(*road), as_json=True)
    train_teacher.run(source(*road, "teacher_training.workers=0"), replace=False, wait=False)
    cache_teacher.run(source(*road), replace=False, wait=False)
    folder = student("small", "kd", *road, "train.workers=0")
    evaluate.run(source(*road))
    assert len(Evaluation.read(Path("artifacts/tiny/evaluation.json")).students) == 1
    assert json.loads((folder / "metrics.json").read_text())["holdout"]["count"] == HOLDOUT


def test_differing_sizes_without_an_operation_that_fixes_them_are_refused_before_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(begin(tmp_path))
    photos(Path("photos"), lambda index: (9 + index % 3, 12))
    prepare_data.run(source(*PHOTOS), replace=False)
    runs: list[Callable[[], None]] = [
        lambda: check.run(source(*PHOTOS), as_json=True),
        lambda: train_teacher.run(source(*PHOTOS), replace=False, wait=False),
        lambda: cache_teacher.run(source(*PHOTOS), replace=False, wait=False),
    ]
    for run in runs:
        with pytest.raises(ConfigError, match=r"views\.operations: the images of split 'train' differ in size"):
            run()
    assert not Path("artifacts").exists()
    with pytest.raises(ConfigError, match=r"evaluate\.operations: the images of split 'test' differ in size"):
        check.run(source(*PHOTOS, CROPS), as_json=True)
