"""Every row of the table in docs/folders.md, by its number."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_files import noise, save_image

from pipeline.data import DataConfig, FromFiles, PackedDataset, open_source, pack
from pipeline.data.same_pixels import repeated_images
from pipeline.data.summary import left_out, notes, summarise_splits
from pipeline.errors import DataError
from pipeline.progress import Silent

ROOT = Path(__file__).resolve().parents[2]
TESTED: dict[int, Callable[[Path], None]] = {}


def row(number: int) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    """The test of a row of the table."""

    def remember(test: Callable[[Path], None]) -> Callable[[Path], None]:
        assert number not in TESTED
        TESTED[number] = test
        return test

    return remember


class Read:
    """What became of a folder: ids and class names by split, and what was said."""

    def __init__(self, folder: Path, unreadable: str, options: dict[str, Any]) -> None:
        config = DataConfig.model_validate({"path": folder / "x.h5", "source": options})
        source = open_source(config.source)
        report = pack(source, config.path, Silent(), unreadable, config.source)
        data = PackedDataset.open(config.path)
        self.class_names, self.skipped, self.description = data.class_names, report.unreadable, data.source
        self.labeled: dict[str, dict[str, str | None]] = {}
        for name in data.splits:
            split = data.split(name)
            labels = [-1] * split.count if split.labels is None else split.labels.tolist()
            pairs = zip(split.ids, labels, strict=True)
            self.labeled[name] = {each: data.class_names[k] if k >= 0 else None for each, k in pairs}
        assert isinstance(source, FromFiles)
        self.left_out = left_out(source.reading)
        found = notes(summarise_splits(data), repeated_images(data, report.hashes))
        self.notes = [*source.reading.notes, *found]


def fill(root: Path, *names: str) -> Path:
    """Different images, text files for other suffixes, and folders for names that end in a slash."""
    for name in names:
        path = root / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() in (".png", ".jpg"):
            save_image(path, noise(4, 4, 3, seed=sum(map(ord, name)) * 1000 + len(name)))
        elif not name.endswith("/"):
            path.write_text("no image")
    return root


def read(folder: Path, *names: str, unreadable: str = "refuse", kind: str = "image-folder", **options: Any) -> Read:
    root = fill(folder / "pets", *names)
    return Read(folder, unreadable, {"name": kind, "path": root, **options})


def refused(folder: Path, *names: str, **options: Any) -> str:
    with pytest.raises(DataError) as error:
        read(folder, *names, **options)
    return str(error.value)


def as_in(*names: str) -> dict[str, str]:
    """Every file with the class that is the folder it lies in."""
    return {name: name.split("/")[-2] for name in names}


@row(1)
def _plain(folder: Path) -> None:
    found = read(folder, "train/cat/a.png", "train/dog/b.png", "test/cat/c.png")
    assert found.labeled == {"train": as_in("train/cat/a.png", "train/dog/b.png"), "test": as_in("test/cat/c.png")}
    assert found.class_names == ("cat", "dog")


@row(2)
def _no_splits(folder: Path) -> None:
    found = read(folder, "cat/a.png", "dog/b.png")
    assert found.labeled == {"train": as_in("cat/a.png", "dog/b.png")}
    assert "its folders taken as the classes of split train" in found.description


@row(3)
def _other_names(folder: Path) -> None:
    for number, name in enumerate(("validation", "valid", "val", "dev", "Validation", "VALID")):
        names = ("Training/cat/a.png", "TESTING/cat/b.png", f"{name}/cat/c.png", "Unlabelled/d.png")
        found = read(folder / str(number), *names)
        splits = dict(zip(("train", "test", "val"), names, strict=False))
        expected: dict[str, Any] = {split: as_in(each) for split, each in splits.items()}
        assert found.labeled == {**expected, "unlabeled": {"Unlabelled/d.png": None}}
        assert "Training as train" in found.description


@row(4)
def _twice_the_same_split(folder: Path) -> None:
    message = refused(folder, "train/cat/a.png", "val/cat/b.png", "validation/cat/c.png")
    assert "2 folders mean the split val" in message
    assert "got: val, validation" in message
    assert "splits: {val: val, ...}" in message


@row(5)
def _splits_in_classes(folder: Path) -> None:
    found = read(folder, "cat/train/a.png", "dog/train/b.png", "cat/Test/c.png", "dog/valid/d.png")
    train = {"cat/train/a.png": "cat", "dog/train/b.png": "dog"}
    assert found.labeled == {"train": train, "test": {"cat/Test/c.png": "cat"}, "val": {"dog/valid/d.png": "dog"}}
    assert found.notes == ["no image in val of 1 classes: cat", "no image in test of 1 classes: dog"]


@row(6)
def _splits_in_splits(folder: Path) -> None:
    names = ("train/train/cat/a.png", "train/val/cat/b.png", "test/test/cat/c.png")
    found = read(folder, *names)
    assert found.labeled == {s: as_in(n) for s, n in zip(("train", "val", "test"), names, strict=True)}


@row(7)
def _some_classes_have_splits(folder: Path) -> None:
    message = refused(folder, "cat/train/a.png", "dog/b.png")
    assert "they could be splits or classes" in message
    assert "got: cat/train beside dog/b.png" in message
    assert "splits: {train: FOLDER, test: FOLDER}" in message
    below = refused(folder / "below", "train/cat/test/a.png", "train/dog/b.png")
    assert "got: train/cat/test below class folders" in below


@row(8)
def _classes_beside_splits(folder: Path) -> None:
    names = ("cat/a.png", "dog/b.png", "test/cat/c.png")
    assert "got: test beside cat, dog" in refused(folder, *names)
    found = read(folder, splits={"train": ".", "test": "test"})
    assert found.labeled == {"train": as_in(*names[:2]), "test": as_in(names[2])}


@row(9)
def _others_beside_train(folder: Path) -> None:
    found = read(folder, "train/cat/a.png", "originals/cat/b.png")
    assert found.labeled == {"train": as_in("train/cat/a.png")}
    assert found.notes == ["not a split, left out: originals, with 1 images"]


@row(10)
def _one_folder_deeper(folder: Path) -> None:
    message = refused(folder, "photos/train/cat/a.png", "photos/test/cat/b.png")
    assert "the splits lie one folder deeper" in message
    assert "data.source.path: .../photos" in message


@row(11)
def _told_splits(folder: Path) -> None:
    names = ("Trainset/cat/a.png", "Trainset/val/b.png", "held/out/cat/c.png")
    found = read(folder, *names, splits={"train": "Trainset", "test": "held/out"})
    assert found.labeled == {"train": as_in(*names[:2]), "test": as_in(names[2])}  # a class that is called val
    message = refused(folder, splits={"train": "Trainset", "test": "held/ut"})
    assert "there is no folder for split 'test'" in message
    assert "did you mean 'held/out'?" in message


NESTED = ("train/Fruit/Apple/Gala/a.png", "train/Fruit/Pear/b.png", "train/Dairy/Milk/c.png", "test/Fruit/Pear/d.png")


@row(12)
def _nested_classes(folder: Path) -> None:
    message = refused(folder, *NESTED)
    assert "  - classes: top gives 2 classes (train 2, test 1): Dairy, Fruit\n" in message
    assert "  - classes: leaf gives 3 classes (train 3, test 1): Dairy/Milk, Fruit/Apple/Gala, Fruit/Pear\n" in message
    assert "do: write classes: leaf, or classes: top, in data.source" in message
    top = read(folder, classes="top")
    assert top.class_names == ("Dairy", "Fruit")
    assert top.labeled["test"] == {"test/Fruit/Pear/d.png": "Fruit"}
    leaf = read(folder, classes="leaf")
    assert leaf.class_names == ("Dairy/Milk", "Fruit/Apple/Gala", "Fruit/Pear")
    assert leaf.labeled["test"] == {"test/Fruit/Pear/d.png": "Fruit/Pear"}


@row(13)
def _one_folder_in_each_class(folder: Path) -> None:
    found = read(folder, "train/n01/images/a.png", "train/n02/images/b.png")
    assert found.labeled == {"train": {"train/n01/images/a.png": "n01", "train/n02/images/b.png": "n02"}}


@row(14)
def _images_beside_leaves(folder: Path) -> None:
    message = refused(folder, *NESTED, "train/Fruit/loose.png", classes="leaf")
    assert "images lie beside folders of images" in message
    assert "got: train/Fruit/loose.png" in message


@row(15)
def _empty_class(folder: Path) -> None:
    found = read(folder, "train/cat/a.png", "train/dog/", "train/cow/readme.txt")
    assert found.class_names == ("cat", "cow", "dog")
    assert found.notes == ["classes without an image: cow, dog"]


@row(16)
def _class_missing_in_a_split(folder: Path) -> None:
    found = read(folder, "train/cat/a.png", "train/dog/b.png", "test/cat/c.png")
    assert found.notes == ["no image in test of 1 classes: dog"]


@row(17)
def _class_of_a_later_split_alone(folder: Path) -> None:
    message = refused(folder, "train/cat/a.png", "train/dog/b.png", "test/Cat/c.png")
    assert "split 'test' has classes that train lacks" in message
    assert "got: Cat" in message
    assert "did you mean 'cat'?" in message
    empty = read(folder / "empty", "train/cat/a.png", "test/cat/b.png", "test/cow/")
    assert empty.class_names == ("cat",)


@row(18)
def _left_out_by_suffix(folder: Path) -> None:
    found = read(folder, "train/cat/a.png", "train/cat/b.docx", "train/cat/c.docx", "train/cat/LICENSE", "notes.TXT")
    assert found.left_out == "4 files (.docx 2, no suffix 1, .txt 1)"


@row(19)
def _every_suffix_of_formats_that_are_read(folder: Path) -> None:
    root = fill(folder / "pets", "train/cat/a.JPG")
    save_image(root / "train/cat/b.jfif", noise(4, 4, 3, seed=1), kind="JPEG")
    save_image(root / "train/cat/c.Jpe", noise(4, 4, 3, seed=2), kind="JPEG")
    found = read(folder)
    assert sorted(found.labeled["train"]) == ["train/cat/a.JPG", "train/cat/b.jfif", "train/cat/c.Jpe"]


@row(20)
def _images_in_no_class(folder: Path) -> None:
    found = read(folder, "train/cat/a.png", "train/b.png", "c.png")
    assert found.notes == ["in no class folder, left out: 2 images (c.png, train/b.png)"]
    flat = refused(folder / "flat", "train/cat/a.png", "test/b.png")
    assert "split test has no image files" in flat
    assert "got: 1 images in no class folder: test/b.png" in flat
    assert "csv-labels, split-files, file-names" in flat
    assert read(folder / "free", "a.png", splits={"unlabeled": "."}).labeled == {"unlabeled": {"a.png": None}}


@row(21)
def _hidden_and_made_by_systems(folder: Path) -> None:
    names = ("train/cat/.b.png", ".cache/cat/c.png", "__MACOSX/cat/d.png", "train/@eaDir/e.png")
    found = read(folder, "train/cat/a.png", *names)
    assert found.labeled == {"train": as_in("train/cat/a.png")}
    assert (found.class_names, found.notes, found.left_out) == (("cat",), [], None)


@row(22)
def _names_that_are_not_utf8(folder: Path) -> None:
    root = fill(folder / "pets", "cat/a.png")
    (root / "cat" / os.fsdecode(b"\xff.png")).write_bytes((root / "cat/a.png").read_bytes())
    assert r"train/cat/\xff.png: its name is not UTF-8 text" in refused(folder)
    found = read(folder, unreadable="skip")
    assert found.labeled == {"train": {"cat/a.png": "cat"}}
    assert found.skipped == (r"train/cat/\xff.png: its name is not UTF-8 text",)
    (root / os.fsdecode(b"\xfe")).mkdir()
    assert "names of class folders are not UTF-8 text" in refused(folder)


@row(23)
def _differing_in_capitals(folder: Path) -> None:
    found = read(folder, "train/cat/a.png", "train/Cat/b.png")
    assert found.class_names == ("Cat", "cat")
    assert found.notes == ["classes that differ in capitals alone: Cat, cat"]


@row(24)
def _links(folder: Path) -> None:
    root = fill(folder / "pets", "train/cat/a.png")
    elsewhere = fill(folder / "elsewhere", "b.png")
    (root / "train/dog").symlink_to(elsewhere)
    (root / "train/cat/more").symlink_to(elsewhere)
    (root / "train/cat/c.png").symlink_to(elsewhere / "b.png")
    found = read(folder)
    assert found.labeled == {"train": as_in("train/cat/a.png", "train/cat/c.png", "train/dog/b.png")}
    assert "links to folders, not followed: train/cat/more" in found.notes


@row(25)
def _same_pixels(folder: Path) -> None:
    root = fill(folder / "pets", "train/cat/a.png", "test/cat/b.png", "train/dog/c.png")
    for copy in ("test/cat/twin.png", "train/dog/twin.png"):
        (root / copy).write_bytes((root / "train/cat/a.png").read_bytes())
    all_three = "train/cat/a.png = train/dog/twin.png = test/cat/twin.png"
    assert read(folder).notes == [
        "no image in test of 1 classes: dog",
        f"the same pixels in train and test: 1 images ({all_three})",
        f"the same pixels with different labels: 1 images ({all_three})",
    ]


@row(26)
def _order_of_classes(folder: Path) -> None:
    names = folder / "names.txt"
    names.write_text("dog\ncow\ncat\n")
    found = read(folder, "train/cat/a.png", "train/dog/b.png", class_names=names)
    assert found.class_names == ("dog", "cow", "cat")
    assert found.labeled["train"] == as_in("train/cat/a.png", "train/dog/b.png")
    names.write_text("dog\nct\n")
    message = refused(folder, class_names=names)
    assert "split 'train' has classes that names.txt lacks" in message
    assert "did you mean 'ct'?" in message


IMAGES = ("a.png", "b.png", "more/c.png")


def labels(folder: Path, text: str, **options: Any) -> Callable[..., Any]:
    """A folder of images and a table beside it."""
    fill(folder / "pets", *IMAGES)
    (folder / "labels.csv").write_text(text)
    return lambda how=read, **more: how(folder, kind="csv-labels", labels=folder / "labels.csv", **options, **more)


@row(27)
def _labels_in_a_table(folder: Path) -> None:
    rows = [
        ("path", "label", "split"),
        ("b.png", "dog", "train"),
        ("a.png", "cat", "training"),
        ("more/c.png", "dog", "Test"),
    ]
    for number, sign in enumerate(",;\t|"):
        found = labels(folder / str(number), "\n".join(map(sign.join, rows)))()
        assert found.labeled == {"train": {"b.png": "dog", "a.png": "cat"}, "test": {"more/c.png": "dog"}}
    text = '\ufefffile,"what it is"\r\na.png,"a cat, or so"\r\n.\\b.png,dog\r\n\r\n'
    found = labels(folder / "named", text, path_column="file", label_column="what it is")()
    assert found.labeled == {"train": {"a.png": "a cat, or so", "b.png": "dog"}}
    assert found.notes == ["not in labels in labels.csv, left out: 1 images (more/c.png)"]
    message = labels(folder / "wrong", "file,label\na.png,cat\n")(refused)
    assert "has no column 'path'" in message
    assert "got: file, label" in message


@row(28)
def _rows_that_cannot_be_used(folder: Path) -> None:
    lines = [
        "path,label",
        "a.png,cat",
        "none.png,cat",
        "../x.png,cat",
        "/etc/passwd,cat",
        "a.png,cat",
        "b.png,",
        "more/c.png",
    ]
    use = labels(folder, "\n".join(lines))
    message = use(refused)
    assert "6 of 7 images cannot be read" in message
    for line in (
        "train/none.png: No such file or directory",
        "train/../x.png: its path leads out of the folder, line 4",
        "train//etc/passwd: its path leads out of the folder, line 5",
        "train/a.png: named more than once (first in line 2), line 6",
        "train/b.png: no label, line 7",
        "train/more/c.png: no label, line 8",
    ):
        assert line in message
    assert use(unreadable="skip").labeled == {"train": {"a.png": "cat"}}
    disputed = labels(folder / "disputed", "path,label\na.png,cat\nb.png,dog\na.png,dog\n")(unreadable="skip")
    assert disputed.labeled == {"train": {"b.png": "dog"}}
    assert len(disputed.skipped) == 2
    assert "with different labels: 'cat' and 'dog', line 4" in disputed.skipped[1]


@row(29)
def _labels_that_train_lacks(folder: Path) -> None:
    text = "path,label,split\na.png,cat,train\nb.png,cow,test\nmore/c.png,cat,test\n"
    assert "test/b.png: train lacks its label 'cow', line 3" in labels(folder, text)(refused)
    names = folder / "names.txt"
    names.write_text("cow\ncat\n")
    found = labels(folder, text, class_names=names)()
    assert found.class_names == ("cow", "cat")
    assert found.labeled["test"] == {"b.png": "cow", "more/c.png": "cat"}
    assert "there is no such split" in labels(folder, text.replace("test", "tset"))(refused)


@row(30)
def _labels_that_are_numbers(folder: Path) -> None:
    found = labels(folder, "path,label\na.png,10\nb.png,9\nmore/c.png,2\n")()
    assert found.class_names == ("2", "9", "10")
    assert "labels are numbers from 2 to 10: class 0 is 2" in found.notes[0]
    assert labels(folder / "plain", "path,label\na.png,0\nb.png,1\nmore/c.png,2\n")().notes == []


def lists(folder: Path, images: tuple[str, ...], how: Callable[..., Any] = read, **texts: str) -> Any:
    fill(folder / "pets", *images)
    for split, text in texts.items():
        (folder / f"{split}.txt").write_text(text)
    return how(folder, kind="split-files", lists={split: folder / f"{split}.txt" for split in texts})


@row(31)
def _lists_with_labels(folder: Path) -> None:
    found = lists(folder, IMAGES, train="a.png 7\nb.png 65\n", test="more/c.png,7\n")
    assert found.labeled == {"train": {"a.png": "7", "b.png": "65"}, "test": {"more/c.png": "7"}}
    spaced = lists(folder / "spaced", ("my cat.png", "x.png"), train="my cat.png\ta cat\nx.png\tb\n")
    assert spaced.labeled == {"train": {"my cat.png": "a cat", "x.png": "b"}}
    assert "train/b.png: no label, train.txt line 2" in lists(
        folder / "half", IMAGES, refused, train="a.png 1\nb.png\n"
    )
    assert "the list of split train is empty" in lists(folder / "empty", IMAGES, refused, train="\n")


@row(32)
def _lists_without_labels(folder: Path) -> None:
    images = ("apple_pie/100.jpg", "apple_pie/101.jpg", "ramen/7.jpg", "my soup/1 2.jpg")
    found = lists(folder, images, train="apple_pie/100\nramen/7\n", test="apple_pie/101\n")
    assert found.labeled == {"train": as_in("apple_pie/100.jpg", "ramen/7.jpg"), "test": as_in("apple_pie/101.jpg")}
    whole = lists(folder / "whole", images, train="my soup/1 2.jpg\nramen/7.jpg\n")
    assert whole.labeled == {"train": as_in("my soup/1 2.jpg", "ramen/7.jpg")}


PETS = ("great_pyrenees_12.jpg", "Abyssinian_1.jpg", "sub/Abyssinian_2.jpg")


@row(33)
def _labels_in_names(folder: Path) -> None:
    found = read(folder, *PETS, kind="file-names", pattern="{label}_{id}.jpg")
    assert found.class_names == ("Abyssinian", "great_pyrenees")
    assert found.labeled["train"]["great_pyrenees_12.jpg"] == "great_pyrenees"
    splits = ("train/cat.1.jpg", "valid/dog.2.jpg", "train/dog.3.jpg")
    found = read(folder / "splits", *splits, kind="file-names", pattern="{label}.{id}.jpg")
    assert found.labeled["val"] == {"valid/dog.2.jpg": "dog"}
    regular = read(folder, kind="file-names", pattern=r"(?P<label>[A-Za-z]+)_.*\.jpg")
    assert regular.class_names == ("Abyssinian", "great")
    whole = read(folder / "whole", "s1/cat/x-train.jpg", "s2/dog/y-test.jpg", "s2/dog/y-train.jpg", kind="file-names",
                 pattern="{site}/{label}/{id}-{split}.jpg")  # fmt: skip
    assert whole.labeled["test"] == {"s2/dog/y-test.jpg": "dog"}


@row(34)
def _names_that_do_not_fit(folder: Path) -> None:
    names = (*PETS, "IMG1234.jpg")
    message = refused(folder, *names, kind="file-names", pattern="{label}_{id}.jpg")
    assert "1 of 4 images cannot be read" in message
    assert "train/IMG1234.jpg: no label, its name does not fit the pattern" in message
    assert len(read(folder, kind="file-names", pattern="{label}_{id}.jpg", unreadable="skip").labeled["train"]) == 3
    with pytest.raises(ValueError, match=r"has no \{label\}"):
        read(folder, kind="file-names", pattern="{name}.jpg")
    with pytest.raises(ValueError, match="is no regular expression"):
        read(folder, kind="file-names", pattern="(?P<label>")


@pytest.mark.parametrize("number", sorted(TESTED))
def test_row(number: int, tmp_path: Path):
    TESTED[number](tmp_path)


def test_every_row_of_the_table_is_tested():
    text = (ROOT / "docs/folders.md").read_text()
    assert [int(number) for number in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)] == sorted(TESTED)


def test_layouts_of_version_01_are_read_as_they_were(tmp_path: Path):
    """Ids, labels and their order, against that version's reading: a walk below each class folder, sorted."""
    generator = np.random.default_rng(0)
    for number in range(30):
        root = tmp_path / str(number) / "pets"
        splits = [""] if number % 3 == 0 else ["train/", *generator.choice(["test/", "val/"], generator.integers(0, 3))]
        for split in splits:
            for name in ("cat", "dog", "b c")[: 1 + int(generator.integers(3)) if split == "train/" else None]:
                for _ in range(generator.integers(1, 4)):
                    deep = generator.choice(["", "", "deep/"])
                    image = f"{split}{name}/{deep}{generator.integers(100)}.{generator.choice(['png', 'PNG', 'jpg'])}"
                    fill(root, f"train/{name}/0.png" if split else image, image)
        if number % 3 == 1:
            fill(root, "unlabeled/x/2.png", "unlabeled/1.png", "extra/a.png")
        found = read(tmp_path / str(number))
        assert found.labeled == before(root)
        assert [list(each) for each in found.labeled.values()] == [list(before(root)[split]) for split in found.labeled]


def before(root: Path) -> dict[str, dict[str, str | None]]:
    """How version 0.1 read a folder."""
    folders = sorted(child.name for child in root.iterdir())
    places = {name: root / name for name in ("train", "test", "val") if name in folders} or {"train": root}
    found: dict[str, dict[str, str | None]] = {}
    for split, place in places.items():
        files = [(name, sorted((place / name).rglob("*.*"), key=lambda file: file.as_posix())) for name in sorted(
            child.name for child in place.iterdir())]  # fmt: skip
        found[split] = {file.relative_to(root).as_posix(): name for name, some in files for file in some}
    if "unlabeled" in folders:
        loose = sorted(file.relative_to(root).as_posix() for file in (root / "unlabeled").rglob("*.png"))
        found["unlabeled"] = dict.fromkeys(loose)
    return found
