"""The code on `docs/cache-format.md` draws the views of a cache and computes its digests, without the library."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xxhash
import zarr
from PIL import Image
from test_encoded_caches import DOCUMENTATION, documented
from test_store_with_rooms import SIGNALS, packed

from pipeline.data import PackedDataset, Samples, pack
from pipeline.data.decoding import RAW, Decoding
from pipeline.data.sources import image_folder
from pipeline.models import build_network
from pipeline.progress import Silent
from pipeline.store.making.caching import make_cache
from pipeline.views import ViewsConfig, build_views

FLIP = {"name": "horizontal-flip"}
PARTS = {"name": "resized-crop", "size": [17, 29], "scale": [0.01, 0.6]}
OPERATIONS: dict[str, list[Any]] = {
    "none": [],
    "twice": [{"name": "pad-crop", "padding": 3, "fill": 9}, FLIP, {"name": "pad-crop", "padding": 1}],
    "larger": [{"name": "resize", "size": [45, 37]}, {"name": "center-crop", "size": [32, 30]}, FLIP],
    "smaller": [{"name": "resize", "size": 23}, {"name": "center-crop", "size": 20}],
    "square": [{"name": "resized-crop", "size": 32}, FLIP],
    "oblong": [PARTS],
    "cubic": [{**PARTS, "interpolation": "bicubic"}, {"name": "resize", "size": [40, 31], "interpolation": "bicubic"}],
    "turned": ["vertical-flip", "rotate90", {"name": "rotate", "fill": 7}],
    "between": [{"name": "rotate", "degrees": 180, "interpolation": "bilinear", "fill": 200}],
    "coloured": ["color-jitter", {"name": "grayscale", "probability": 0.3}, {"name": "solarize", "threshold": 99}],
    "blurred": [{"name": "gaussian-blur", "kernel_size": 7, "probability": 0.9}],
    "erased": [
        {"name": "random-erasing", "value": [1, 2, 3]},
        {"name": "random-erasing", "value": "random", "probability": 1.0},
    ],
    "augmented": ["randaugment", {"name": "randaugment", "num_ops": 3, "magnitude": 30, "fill": 50}],
    "trivial": [*["trivial-augment"] * 3, {"name": "trivial-augment", "interpolation": "bilinear", "fill": 255}],
    "blended": [{"name": "pad-crop", "padding": 2}, FLIP, {"name": "mixup"}, {"name": "center-crop", "size": [20, 30]}],
    "cut": [{"name": "resize", "size": [45, 37]}, {"name": "cutmix"}, FLIP],
    "either": [{"name": "resized-crop", "size": [17, 29]}, "mixup-or-cutmix", "random-erasing"],
}


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, tuple[Path, Samples]]:
    """Images of one size, and of differing sizes: the file, and those that are learnt from."""
    folders = {differing: tmp_path_factory.mktemp("noise") for differing in (False, True)}
    return {differing: (folder / "noise.h5", packed(folder, differing)) for differing, folder in folders.items()}


@pytest.fixture(scope="module")
def network() -> Any:
    return build_network("cifar_resnet8", 10, seed=0, input_size=32, options={"widths": [4, 4, 8]})


@pytest.mark.parametrize(
    ("operations", "differing"),
    [
        *((name, False) for name in OPERATIONS),
        *((name, True) for name in ("larger", "smaller", "square", "cut", "either")),
    ],
)
def test_views_and_digests_are_those_of_the_page(
    tmp_path: Path, noise: dict[bool, tuple[Path, Samples]], network: Any, operations: str, differing: bool
) -> None:
    path_of_data, samples = noise[differing]
    config = ViewsConfig.model_validate({"count": 2, "first": 3, "operations": OPERATIONS[operations]})
    options: Any = {"precision": "float32", "micro_batch": 8, "device": "cpu", "notify": print}
    views = build_views(config, None if differing else (32, 32), among=samples.positions)
    path = make_cache(network, samples, views, SIGNALS, target=tmp_path / "cache.zarr", **options)

    group: Any = zarr.open_group(path, mode="r")
    identity = group.attrs["identity"]
    with h5py.File(path_of_data, "r", locking=False) as file:
        ids, images = (file[f"train/{name}"][samples.positions] for name in ("ids", "images"))
    content = [bytes(image) for image in images] if differing else images
    columns, places = identity["views"]["parameters"], samples.positions.tolist()
    partner = next((i for i, name in enumerate(columns) if name.endswith(".partner")), None)
    assert documented("ids_digest")([name.decode() for name in ids]) == identity["data"]["ids"]
    assert documented("pixels_digest")(content) == identity["data"]["pixels"]
    state = {name: tensor.numpy() for name, tensor in network.model.state_dict().items()}
    assert documented("weights_digest")(state) == identity["teacher"]["weights"]

    parameters, digests = group["view_parameters"][...] if columns else None, group["view_digest"][...]
    render = documented("render")
    render.__globals__["changed"] = documented("changed", DOCUMENTATION.with_name("views.md"))
    for view in range(2):
        for number, image in enumerate(content[:6]):
            drawn = np.empty(0, int) if parameters is None else parameters[view, number]
            shown = [image] if partner is None else [image, content[places.index(drawn[partner])]]
            decoded = [np.array(Image.open(io.BytesIO(each)).convert("RGB")) if differing else each for each in shown]
            rendered = render(decoded[0], identity["views"]["operations"], drawn, *decoded[1:])
            shown = np.ascontiguousarray(rendered.transpose(2, 0, 1))
            C, H, W = shown.shape
            seed = (C << 48) | (H << 24) | W
            assert xxhash.xxh3_64_intdigest(shown.tobytes(), seed) == int(digests[view, number])


@pytest.mark.parametrize("rules", [Decoding(), Decoding(background=(1, 2, 3)), RAW])
def test_the_digest_of_files_with_rules_is_that_of_the_page(tmp_path: Path, rules: Decoding) -> None:
    random, files = np.random.default_rng(0), []
    for size in (4, 5):  # transparent, and to be turned by a quarter
        stream, exif = io.BytesIO(), Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(random.integers(0, 256, (4, size, 4), np.uint8)).save(stream, "PNG", exif=exif)
        files.append(stream.getvalue())
        image = tmp_path / "photos" / "train" / "cat" / f"{size}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        image.write_bytes(files[-1])
    source = image_folder.open_source(image_folder.Options(path=tmp_path / "photos"))
    pack(source, tmp_path / "x.h5", Silent(), decoding=rules)
    with h5py.File(tmp_path / "x.h5", "r", locking=False) as file:
        attribute = file["train"].attrs["decoding"]
    samples = Samples(PackedDataset.open(tmp_path / "x.h5").split("train"))
    assert documented("pixels_digest")(files, attribute) == samples.pixel_digest()
    assert (documented("pixels_digest")(files) == samples.pixel_digest()) == (rules == RAW)
