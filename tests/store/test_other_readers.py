"""Other people's readers open our stores and read every array as we do, bit for bit."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from faults import Faults
from intact import verify_files
from numpy.typing import NDArray
from store_standins import TinyNetwork, TinySamples, TinyViews, cache
from test_encoded_caches import ENCODINGS_OF_CACHES, written

from pipeline.store.reader import TeacherCache

Array = NDArray[Any]


@functools.cache
def group_of(path: Path, consolidated: bool) -> Any:
    """A store as zarr opens it, once for all arrays."""
    return zarr.open_group(path, mode="r", use_consolidated=consolidated)


def by_zarr(path: Path, name: str) -> Array:
    return np.asarray(group_of(path, True)[name][...])


def by_zarr_without_consolidated_metadata(path: Path, name: str) -> Array:
    return np.asarray(group_of(path, False)[name][...])


def by_tensorstore(path: Path, name: str) -> Array:
    tensorstore = pytest.importorskip("tensorstore", reason="tensorstore is not installed")
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path / name)}}
    return np.asarray(tensorstore.open(spec, open=True, read=True).result().read().result())


def by_xarray(path: Path, name: str) -> Array:
    """With its defaults, which would take fill values for missing ones in a Zarr store of version 2."""
    pytest.importorskip("xarray", reason="xarray is not installed")
    group, _, array = name.rpartition("/")
    return np.asarray(dataset_of(path, group or None)[array].to_numpy())


@functools.cache
def dataset_of(path: Path, group: str | None) -> Any:
    """A group of a store as xarray opens it, once for all arrays."""
    import xarray

    return xarray.open_zarr(path, group=group)


def by_dask(path: Path, name: str) -> Array:
    array = pytest.importorskip("dask.array", reason="dask is not installed")
    return np.asarray(array.from_zarr(group_of(path, True)[name]).compute(scheduler="synchronous"))


def by_dask_from_a_path(path: Path, name: str) -> Array:
    array = pytest.importorskip("dask.array", reason="dask is not installed")
    return np.asarray(array.from_zarr(str(path), component=name).compute(scheduler="synchronous"))


READERS: list[Callable[[Path, str], Array]] = [
    by_zarr,
    by_zarr_without_consolidated_metadata,
    by_tensorstore,
    by_xarray,
    by_dask,
]


@functools.cache
def ours(path: Path) -> dict[str, Array]:
    """Every array of a store, as the library reads it; once for all other readers."""
    teacher, everything = TeacherCache.open(path), np.arange(23)
    plan = teacher.manifest.layout
    views = [teacher.read_encoded(view, everything).arrays for view in teacher.views]
    found: dict[str, Array] = {}
    for spec in plan.arrays.values():
        if spec.name in views[0]:
            found[spec.name] = np.stack([arrays[spec.name].numpy().view(spec.dtype) for arrays in views])
    found["view_digest"] = np.stack([teacher.view_digests(view, everything) for view in teacher.views])
    found["view_parameters"] = np.stack([teacher.view_parameters(view, everything) for view in teacher.views])
    assert teacher.head is not None
    found["head/weight"], found["head/bias"] = teacher.head.weight.numpy(), teacher.head.bias.numpy()
    found["labels"] = np.asarray(teacher.labels)
    assert found.keys() == plan.arrays.keys() | plan.static.keys()
    return found


@pytest.fixture(scope="module", params=[None, "zstd"])
def stores(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A store in every encoding: two views in two row blocks."""
    folder = tmp_path_factory.mktemp("stores")
    return [
        cache(
            folder / f"{number}.zarr",
            signals=written(encoding),
            compression=request.param,
            views=TinyViews(2),
            rows_per_block=16,
        )
        for number, encoding in enumerate(ENCODINGS_OF_CACHES)
    ]


@pytest.mark.parametrize("read", [*READERS, by_dask_from_a_path], ids=lambda read: read.__name__)
def test_every_array_is_read_as_we_read_it(stores: list[Path], read: Callable[[Path, str], Array]) -> None:
    for path in stores[:1] if read is by_dask_from_a_path else stores:  # what dask has of the path, zarr opens
        for name, expected in ours(path).items():
            got = read(path, name)
            assert got.dtype == expected.dtype, (path, name)
            assert got.shape == expected.shape, (path, name)
            assert got.tobytes() == expected.tobytes(), (path, name)


@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__)
def test_a_changed_byte_is_noticed(
    stores: list[Path], tmp_path: Path, read: Callable[[Path, str], Array], faults: Faults
) -> None:
    copied = shutil.copytree(stores[0], tmp_path / "copied.zarr")
    file = copied / "logits/c/1/1/0"
    data = bytearray(file.read_bytes())
    data[7] ^= 1
    file.write_bytes(data)
    with (
        faults("a changed byte of a chunk, found by other readers"),
        pytest.raises(ValueError, match=r"(?i)checksum|digest mismatch|corruption|truncated"),
    ):
        read(copied, "logits")


def test_axes_have_names_by_which_parts_find_each_other(stores: list[Path]) -> None:
    """A map in int8 is its steps times its scales, by name alone, whatever the order of axes."""
    xarray = pytest.importorskip("xarray", reason="xarray is not installed")
    int8 = stores[ENCODINGS_OF_CACHES.index("int8")]
    with xarray.open_zarr(int8, group="features") as dataset:
        assert dataset["block1"].dims == ("view", "sample", "block1.0", "block1.1", "block1.2")
        assert dataset["block1.scale"].dims == ("view", "sample", "block1.0")
        values = (dataset["block1"].astype("float32") * dataset["block1.scale"]).to_numpy()
    read = TeacherCache.open(int8).read(1, np.arange(23)).features["block1"].numpy()
    assert np.array_equal(values[1], read)
    topk = stores[ENCODINGS_OF_CACHES.index({"name": "topk", "k": 2})]
    with xarray.open_zarr(topk) as dataset:
        assert dataset["logits"].dims == dataset["logits.indices"].dims == ("view", "sample", "logits.0")
        assert dataset["logits.rest"].dims == ("view", "sample")
    with xarray.open_zarr(topk, group="head") as dataset:
        assert (dataset["weight"].dims, dataset["bias"].dims) == (("class", "embedding"), ("class",))


def test_a_store_with_axes_that_are_not_named_is_as_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they were written before axes had names: the identity, and with it the fingerprint, is the same."""
    named = cache(tmp_path / "named.zarr")
    create = zarr.Group.create_array

    def nameless(group: zarr.Group, *arguments: Any, dimension_names: Any, **options: Any) -> Any:
        return create(group, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(zarr.Group, "create_array", nameless)
        before = cache(tmp_path / "before.zarr")
    assert "dimension_names" not in (before / "logits/zarr.json").read_text()
    verify_files(before)
    assert TeacherCache.open(before).manifest.fingerprint == TeacherCache.open(named).manifest.fingerprint
    assert cache(before, network=TinyNetwork(), samples=TinySamples()) == before  # it is there already
