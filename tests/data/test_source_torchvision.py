from __future__ import annotations

import struct
import urllib.error
import urllib.request

import numpy as np
import pytest
import torchvision
from data_files import noise, save_image
from PIL import Image

from pipeline.data import PackedDataset, open_source, pack
from pipeline.data.sources.torchvision import Options
from pipeline.errors import DataError
from pipeline.progress import Silent


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise urllib.error.URLError("Temporary failure in name resolution")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def packed(tmp_path, dataset, **options):
    source = open_source(Options(dataset=dataset, root=tmp_path / "root", **options))
    report = pack(source, tmp_path / "x.h5", Silent())
    return report, PackedDataset.open(tmp_path / "x.h5")


def refused(tmp_path, dataset, **options) -> str:
    with pytest.raises(DataError) as error:
        open_source(Options(dataset=dataset, root=tmp_path / "root", **options))
    return str(error.value)


def write_idx(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(head + array.astype(np.uint8).tobytes())


def test_a_class_with_train_true_and_false(tmp_path):
    raw = tmp_path / "root" / "MNIST" / "raw"
    write_idx(raw / "train-images-idx3-ubyte", noise(5, 28, 28))
    write_idx(raw / "train-labels-idx1-ubyte", np.array([3, 1, 4, 1, 5]))
    write_idx(raw / "t10k-images-idx3-ubyte", noise(2, 28, 28, seed=1))
    write_idx(raw / "t10k-labels-idx1-ubyte", np.array([9, 2]))
    report, data = packed(tmp_path, "MNIST")
    assert report.counts == {"train": 5, "test": 2}
    assert data.source == "torchvision MNIST"
    assert data.class_names[3] == "3 - three"
    train, test = data.split("train"), data.split("test")
    np.testing.assert_array_equal(train.stored(np.arange(5))[..., 0], noise(5, 28, 28))
    np.testing.assert_array_equal(test.stored(np.arange(2))[..., 0], noise(2, 28, 28, seed=1))
    assert train.labels.tolist() == [3, 1, 4, 1, 5]
    assert test.ids == ("test/000000", "test/000001")


def test_a_class_with_named_splits_and_image_files(tmp_path):
    base = tmp_path / "root" / "country211"
    files = {
        f"{split}/{country}/1.jpg": save_image(base / split / country / "1.jpg", noise(8, 8 + i, 3), kind="JPEG")
        for i, (split, country) in enumerate((s, c) for s in ("train", "valid", "test") for c in ("AD", "CH"))
    }
    report, data = packed(tmp_path, "Country211")
    assert report.counts == {"train": 2, "test": 2, "val": 2}
    assert data.class_names == ("AD", "CH")
    stored = data.split("val").stored(np.arange(2))
    assert [row.tobytes() for row in stored] == [files["valid/AD/1.jpg"], files["valid/CH/1.jpg"]]
    only, _ = packed(tmp_path, "Country211", splits={"train": "valid"})
    assert only.counts == {"train": 2}
    message = refused(tmp_path, "Country211", splits={"train": "vlaid"})
    assert "Country211 has no split 'vlaid'" in message
    assert "train" in message


def test_a_class_with_one_split_and_no_class_names(tmp_path):
    report, data = packed(tmp_path, "FakeData", options={"size": 9, "image_size": [3, 6, 5], "num_classes": 4})
    assert report.counts == {"train": 9}
    assert report.image_shape == (6, 5, 3)
    assert "taken as train" in data.source
    labels = data.split("train").labels
    assert data.class_names == tuple(str(k) for k in range(labels.max() + 1))
    original = torchvision.datasets.FakeData(9, (3, 6, 5), 4)
    assert [int(original[i][1]) for i in range(9)] == labels.tolist()
    np.testing.assert_array_equal(data.split("train").stored(np.array([7]))[0], np.array(original[7][0]))


class Fake(torchvision.datasets.VisionDataset):
    """Stands in for a class whose files cannot be made here."""

    targets_given: tuple = (0, 1, -1)
    image = Image.fromarray(noise(4, 4, 3))

    def __init__(self, root, split="train", download=False):
        if split not in ("train", "unlabeled"):
            raise ValueError(f"Unknown value '{split}' for argument split. Valid values are train, unlabeled.")
        self.targets = [-1, -1] if split == "unlabeled" else list(self.targets_given)

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        if self.targets[index] == "broken":
            raise OSError("image file is truncated")
        return self.image, self.targets[index]


def test_labels_of_minus_one_are_none_and_missing_splits_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision.datasets, "STL10", Fake)
    monkeypatch.setattr(Fake, "targets_given", (np.int64(0), 2))
    report, data = packed(tmp_path, "STL10")
    assert report.counts == {"train": 2, "unlabeled": 2}
    assert data.split("unlabeled").labels is None
    assert data.class_names == ("0", "1", "2")


def test_an_image_that_torchvision_cannot_read_is_listed(tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision.datasets, "STL10", Fake)
    monkeypatch.setattr(Fake, "targets_given", (0, "broken"))
    monkeypatch.setattr(Fake, "classes", ["a"], raising=False)
    with pytest.raises(DataError, match="train/train/000001: image file is truncated"):
        packed(tmp_path, "STL10")


@pytest.mark.parametrize("target", [(1, 2), {"boxes": []}, "cat", 0.5, True])
def test_data_without_one_class_per_image_are_refused(tmp_path, monkeypatch, target):
    monkeypatch.setattr(torchvision.datasets, "STL10", Fake)
    monkeypatch.setattr(Fake, "targets_given", (target,))
    message = refused(tmp_path, "STL10")
    assert "not a set of one class per image" in message
    assert f"got: {type(target).__name__}" in message


def test_no_network_is_a_clear_error(tmp_path):
    message = refused(tmp_path, "CIFAR100")
    assert "torchvision could not provide CIFAR100" in message
    assert str(tmp_path / "root") in message
    assert "Temporary failure in name resolution" in message
    assert "check the network, or put https://" in message
    assert "/cifar-100-python.tar.gz there by hand" in message
    message = refused(tmp_path, "MNIST")  # several files, and the list of what was tried
    assert "put the files there by hand" in message
    assert "\n\n" not in message


def test_without_download_what_is_missing_is_said(tmp_path):
    message = refused(tmp_path, "CIFAR10", download=False)
    assert "could not provide CIFAR10" in message
    assert "data.source.download: true" in message


def test_an_unknown_name_names_the_nearest(tmp_path):
    for name, nearest in (("CIFAR1000", "CIFAR100"), ("cifar100", "CIFAR100"), ("fashion_mnist", "FashionMNIST")):
        message = refused(tmp_path, name)
        assert f"torchvision has no data set {name!r}" in message
        assert f"did you mean {nearest!r}?" in message
    assert "no data set 'ImageFolder'" in refused(tmp_path, "ImageFolder")


def test_arguments_of_the_class_are_checked(tmp_path):
    message = refused(tmp_path, "FakeData", options={"sise": 3})
    assert "has no argument 'sise'" in message
    assert "did you mean 'size'?" in message
    assert "needs split" in refused(tmp_path, "EMNIST")
    assert "Valid values" in refused(tmp_path, "EMNIST", options={"split": "letterz"})
    assert "splits of CIFAR10 are fixed" in refused(tmp_path, "CIFAR10", splits={"train": "train"})


def test_downloads_lie_in_the_users_cache_by_default(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(DataError, match=str(tmp_path / "cache" / "decant" / "torchvision")):
        open_source(Options(dataset="KMNIST"))
