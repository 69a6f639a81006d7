from __future__ import annotations

import numpy as np
import pytest
from data_files import noise, save_image

from pipeline.data import PackedDataset, open_source, pack
from pipeline.data.sources.image_folder import Options
from pipeline.errors import DataError
from pipeline.progress import Silent


def packed(root, **options):
    source = open_source(Options(path=root))
    return source, pack(source, root.parent / "x.h5", Silent(), **options)


def fill(root, *names, size=(4, 4, 3)):
    for seed, name in enumerate(names):
        save_image(root / name, noise(*size, seed=seed))


def test_splits_of_class_folders(tmp_path):
    root = tmp_path / "pets"
    fill(root, "train/dog/b.png", "train/cat/z.PNG", "train/cat/deep/a.png", "test/cat/c.png", "val/dog/d.png")
    fill(root, "unlabeled/e.png", "unlabeled/more/f.png")
    source, report = packed(root)
    assert report.counts == {"train": 3, "test": 1, "val": 1, "unlabeled": 2}
    assert source.description == "image folder pets"
    data = PackedDataset.open(report.path)
    assert data.class_names == ("cat", "dog")
    train = data.split("train")
    assert train.ids == ("train/cat/deep/a.png", "train/cat/z.PNG", "train/dog/b.png")
    assert train.labels.tolist() == [0, 0, 1]
    expected = np.stack([noise(4, 4, 3, seed=seed) for seed in (2, 1, 0)]).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(train.read(np.arange(3)), expected)
    assert data.split("val").labels.tolist() == [1]
    assert data.split("unlabeled").labels is None
    assert data.split("unlabeled").ids == ("unlabeled/e.png", "unlabeled/more/f.png")


def test_class_folders_alone_are_the_training_split_and_it_says_so(tmp_path):
    root = tmp_path / "pets"
    fill(root, "dog/b.png", "cat/a.png")
    source, report = packed(root)
    assert report.counts == {"train": 2}
    assert report.class_names == ("cat", "dog")
    assert "taken as the classes of split train" in source.description
    assert PackedDataset.open(report.path).source == source.description


def test_other_files_are_left_out(tmp_path):
    root = tmp_path / "pets"
    fill(root, "train/cat/a.png", "train/cat/.hidden.png", "train/.cache/b.png", "originals/cat/c.png")
    (root / "train" / "cat" / "notes.txt").write_text("no image")
    (root / "train" / "readme.md").write_text("no class")
    source, report = packed(root)
    assert PackedDataset.open(report.path).split("train").ids == ("train/cat/a.png",)
    assert source.description == "image folder pets (not a split, left out: originals)"


def test_files_of_differing_sizes_are_stored_as_they_are(tmp_path):
    root = tmp_path / "pets"
    first = save_image(root / "cat" / "a.jpg", noise(5, 6, 3), kind="JPEG")
    second = save_image(root / "cat" / "b.png", noise(7, 6, 3))
    _, report = packed(root)
    assert report.image_shape is None
    stored = PackedDataset.open(report.path).split("train").stored(np.arange(2))
    assert [row.tobytes() for row in stored] == [first, second]


def test_unreadable_files_are_listed_or_skipped(tmp_path):
    root = tmp_path / "pets"
    fill(root, "cat/good.png", "cat/cut.png", size=(32, 32, 3))
    cut = root / "cat" / "cut.png"
    cut.write_bytes(cut.read_bytes()[:1000])
    (root / "cat" / "gone.png").symlink_to(root / "nowhere.png")
    with pytest.raises(DataError) as error:
        packed(root)
    assert "2 of 3 images cannot be read" in str(error.value)
    assert "train/cat/cut.png: " in str(error.value)
    assert "train/cat/gone.png: No such file" in str(error.value)
    _, report = packed(root, unreadable="skip")
    assert report.counts == {"train": 1}
    assert len(report.unreadable) == 2


def refused(root) -> str:
    with pytest.raises(DataError) as error:
        open_source(Options(path=root))
    assert str(root) in str(error.value)
    return str(error.value)


def test_folders_that_cannot_be_used(tmp_path):
    assert "got: nothing there" in refused(tmp_path / "none")
    (tmp_path / "file").write_text("")
    assert "got: a file" in refused(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    assert "split train has no image files" in refused(tmp_path / "empty")
    fill(tmp_path / "flat", "a.png", "b.png")
    assert "split train has no image files" in refused(tmp_path / "flat")


def test_a_class_that_train_lacks_is_named(tmp_path):
    fill(tmp_path / "pets", "train/cat/a.png", "train/dog/b.png", "test/cats/c.png")
    message = refused(tmp_path / "pets")
    assert "split 'test' has classes that train lacks" in message
    assert "got: cats" in message
    assert "did you mean 'cat'?" in message


def test_without_a_training_split_classes_are_those_of_all(tmp_path):
    fill(tmp_path / "pets", "test/dog/c.png", "val/cat/d.png")
    assert list(open_source(Options(path=tmp_path / "pets")).class_names) == ["cat", "dog"]
