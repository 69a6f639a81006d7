from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from pipeline.config import Section, bind, resolved
from pipeline.errors import ConfigError
from pipeline.store.config import StoreConfig
from pipeline.store.location import RemotePath, store_path


class Sections(Section):
    store: StoreConfig


def test_what_has_a_scheme_is_an_address_and_all_else_a_path() -> None:
    assert store_path("s3://bucket/a/cache.zarr/") == RemotePath("s3://bucket/a/cache.zarr")
    assert store_path("caches/cache.zarr") == Path("caches/cache.zarr")
    assert store_path(Path("/caches/s3/cache.zarr")) == Path("/caches/s3/cache.zarr")
    address = RemotePath("gs://bucket/cache.zarr")
    assert store_path(address) is address


def test_an_address_has_the_parts_of_a_path() -> None:
    address, path = store_path("s3://bucket/a/tiny.v2.zarr"), Path("/bucket/a/tiny.v2.zarr")
    assert (address.name, address.stem, address.suffix) == (path.name, path.stem, path.suffix)
    assert str(address.with_name("other.zarr")) == "s3://bucket/a/other.zarr"
    assert str(address / "logits/c/0") == address.as_posix() + "/logits/c/0"
    assert pickle.loads(pickle.dumps(address)) == address
    assert len({address, store_path(str(address))}) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("s3://bucket", "needs a bucket and a name in it"),
        ("s3://", "needs a bucket and a name in it"),
        ("s3://bucket/", "needs a bucket and a name in it"),
        ("ftp://bucket/cache.zarr", "addresses begin with s3://"),
        ("file:///some/cache.zarr", "or are plain paths"),
        ("s3:/bucket/cache.zarr", "two slashes: s3://bucket/cache.zarr"),
        ("s3://bucket/../cache.zarr", "'..' is no part of an address"),
        ("s3://bucket//cache.zarr", "'' is no part of an address"),
        ("s3://key:secret@bucket/cache.zarr", "no part of an address"),
        ("s3://bucket/cache.zarr?versionId=1", "no part of an address"),
        ("s3://bucket/a b.zarr", "no part of an address"),
    ],
)
def test_other_addresses_are_refused_with_the_reason(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        bind({"store": {"path": text}}, Sections, ["store"])
    assert "store.path" in str(caught.value)
    assert said in str(caught.value)


def test_a_path_that_is_no_text_is_refused() -> None:
    with pytest.raises(ConfigError, match="is not a path"):
        bind({"store": {"path": 3}}, Sections, ["store"])


@pytest.mark.parametrize("text", ["s3://bucket/cache.zarr", "caches/cache.zarr"])
def test_a_configuration_is_written_as_it_was_read(text: str) -> None:
    config = bind({"store": {"path": text}}, Sections, ["store"])
    assert resolved(config)["store"]["path"] == text
    assert bind(resolved(config), Sections, ["store"]) == config
