"""Any map-style data set gives its pixels and labels, and what is no pixel or no label is refused."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from api_pieces import photos
from PIL import Image

from pipeline import DatasetSplit
from pipeline.api import dataset as datasets
from pipeline.api.dataset import samples_of
from pipeline.data import Samples
from pipeline.errors import DataError

Form = Callable[[Any], Any]
FORMS: dict[str, Form] = {
    "array": lambda image: image,
    "tensor": lambda image: torch.from_numpy(image).permute(2, 0, 1),
    "pil": Image.fromarray,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("item", ["pair", "mapping", "alone"])
def test_every_form_of_an_item_gives_the_same_pixels(form: str, item: str) -> None:
    items: list[Any] = []
    for image, label in photos(5):
        given = FORMS[form](image)
        items.append({"pair": (given, label), "mapping": {"image": given, "label": label}, "alone": given}[item])
    samples = samples_of(items)
    read = samples.read(np.array([4, 1]))
    assert isinstance(read, torch.Tensor)
    expected = np.stack([photos(5)[number][0] for number in (4, 1)]).transpose(0, 3, 1, 2)
    assert np.array_equal(read.numpy(), expected)
    assert samples.split.ids == ("0", "1", "2", "3", "4")
    assert (samples.labels is None) if item == "alone" else (list(samples.labels) == [0, 1, 2, 3, 0])


def test_the_digest_is_that_of_packed_pixels() -> None:
    pixels = np.stack([image for image, _ in photos(5)])
    digest = hashlib.sha256(b"pixels uint8 5 8 8 3\n" + pixels.tobytes()).hexdigest()
    assert samples_of(photos(5)).pixel_digest() == f"sha256:{digest}"


def test_images_of_differing_sizes_become_three_channels() -> None:
    grey, colour = np.full((4, 6), 9, np.uint8), np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    samples = samples_of([grey, colour])
    first, second = samples.read(np.array([0, 1]))
    assert first.shape == (3, 4, 6)
    assert bool((first == 9).all())
    assert np.array_equal(second.permute(1, 2, 0).numpy(), colour)
    told = b"images uint8 2\n"
    for image in (np.full((4, 6, 3), 9, np.uint8), colour):
        body = b"%d %d 3\n" % image.shape[:2] + image.tobytes()
        told += len(body).to_bytes(8, "little") + body
    assert samples.pixel_digest() == f"sha256:{hashlib.sha256(told).hexdigest()}"


@pytest.mark.parametrize("label", [torch.tensor(3), np.int64(3), np.array(3), 3])
def test_a_label_may_be_any_whole_number(label: Any) -> None:
    split = DatasetSplit([(photos(1)[0][0], label), (photos(1)[0][0], None)])
    assert split.labels is not None
    assert split.labels.tolist() == [3, -1]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (np.zeros((8, 8, 3), np.float32), "take ToTensor, Normalize"),
        (torch.zeros(3, 8, 8), "take ToTensor, Normalize"),
        (np.zeros((40, 40, 20), np.uint8), r"at most 16 channels\n  got: uint8 \[40, 40, 20\]"),
        (torch.zeros(8, 8, 3, dtype=torch.uint8), r"uint8 \[8, 8, 3\]"),
        (Image.new("RGBA", (8, 8)), "an image is transparent"),
        ("cat.jpg", "an item has no image"),
        ({"img": 1}, "an item has no image"),
        ((), "an item has no image"),
        ((np.zeros((8, 8, 3), np.uint8), "cat"), "a label is no class"),
        ((np.zeros((8, 8, 3), np.uint8), 1.5), "a label is no class"),
        ((np.zeros((8, 8, 3), np.uint8), -2), "a label is no class"),
    ],
)
def test_what_is_no_pixel_or_no_label_is_refused(item: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        samples_of([item])


def test_a_data_set_that_augments_at_random_is_refused() -> None:
    class Noisy:
        def __init__(self) -> None:
            self.random = np.random.default_rng(0)

        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> Any:
            return self.random.integers(0, 256, (8, 8, 3), np.uint8)

    with pytest.raises(DataError, match="another image each time that it is read"):
        samples_of(Noisy())


@pytest.mark.parametrize("dataset", [iter([1]), 3])
def test_what_is_no_map_style_data_set_is_refused(dataset: Any) -> None:
    with pytest.raises(DataError, match="this is no map-style data set"):
        samples_of(dataset)


def test_an_empty_data_set_is_refused() -> None:
    with pytest.raises(DataError, match="the data set is empty"):
        samples_of([])


def test_a_large_data_set_is_read_again_and_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = samples_of(photos(6))
    monkeypatch.setattr(datasets, "RESIDENT_BYTES", 0)
    rows = np.array([5, 0])
    assert torch.equal(samples_of(photos(6)).read(rows), kept.read(rows))
    assert samples_of(photos(6)).pixel_digest() == kept.pixel_digest()


def test_a_process_that_is_not_forked_reads_the_data_set_itself() -> None:
    samples = samples_of(photos(6))
    again: Samples = pickle.loads(pickle.dumps(samples))
    assert len(pickle.dumps(samples)) < 2 * len(pickle.dumps(photos(6)))
    assert torch.equal(again.read(np.arange(6)), samples.read(np.arange(6)))
