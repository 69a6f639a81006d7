"""What every backend does, whichever it is: the contract of `pipeline.store.backend`."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from object_server import Bucket
from store_standins import TinySamples, TinyViews, cache

from pipeline.errors import CacheError, CacheMismatch
from pipeline.publishing.artifacts import FINGERPRINT
from pipeline.publishing.ledger import LEDGER_FILE, ROOT
from pipeline.store.backend import Backend, backend_of
from pipeline.store.format.identity import IDENTITY, CacheIdentity
from pipeline.store.location import StorePath, store_path
from pipeline.store.reader import TeacherCache

PAGE = (Path(__file__).resolve().parents[2] / "docs/extending.md").read_text()
(EXAMPLE,) = re.findall(r"```python\n# pipeline/store/nearby/backend.py\n(.*?)```", PAGE, re.DOTALL)

pytestmark = pytest.mark.usefixtures("impatient")

SMALL: dict[str, Any] = {"samples": TinySamples(5), "views": TinyViews(count=2), "rows_per_block": 4}
"""Two views of two row blocks: five units with that of the static arrays."""


@pytest.fixture(params=["folder", "object storage", "the example of docs/extending.md"])
def target(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StorePath:
    """Where a store may be made; a test that needs no bucket starts none."""
    if request.param == "the example of docs/extending.md":
        example: dict[str, Any] = {"__name__": "pipeline.store.nearby.backend"}
        exec(EXAMPLE, example)
        example["NEAR"] = tmp_path / "near"
        monkeypatch.setattr("pipeline.store.local.backend.LocalBackend", example["NearbyBackend"])
    if request.param != "object storage":
        return store_path(tmp_path / "stores/name.zarr")
    bucket: Bucket = request.getfixturevalue("bucket")
    return store_path(bucket.url("stores/name.zarr"))


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> CacheIdentity:
    """Of the store that `SMALL` makes, wherever it is made."""
    return TeacherCache.open(cache(tmp_path_factory.mktemp("small") / "name.zarr", **SMALL)).manifest.identity


def quiet(text: str) -> None:
    """Messages for people."""


def begin(backend: Backend, identity: CacheIdentity, units: int) -> None:
    """Commit the first units of a store, of zeros, and let go of it."""
    layout = identity.layout
    with backend.workspace(identity.fingerprint, layout, wait=False, notify=quiet) as workspace:
        workspace.refuse_other(replace=False)
        workspace.keep_note(IDENTITY, identity.canonical())
        for unit in list(layout.units)[:units]:
            chunks = {spec.file(unit): np.zeros(spec.chunk, spec.dtype) for spec in layout.arrays.values()}
            workspace.commit(unit.key, workspace.place.write(chunks, ""), "")


def test_where_nothing_is_there_is_nothing(target: StorePath, identity: CacheIdentity) -> None:
    backend = backend_of(target)
    assert not backend.exists()
    assert backend.published() is None
    assert list(backend.unfinished()) == backend.unfinished_caches() == []
    assert backend.finished_bytes(identity.layout) == 0
    assert backend.files.sizes() == {}
    assert not backend.files.has(ROOT)
    with pytest.raises(FileNotFoundError):
        backend.files.read(ROOT, 100)


def test_what_was_begun_is_known_and_not_published(target: StorePath, identity: CacheIdentity) -> None:
    backend, layout = backend_of(target), identity.layout
    begin(backend, identity, 2)
    assert not backend.exists()
    assert backend.published() is None
    assert len(backend.unfinished()) == 1
    (found,) = backend.unfinished_caches()
    assert found.units == {"0/0", "0/1"}
    assert found.identity == identity.canonical().encode()
    assert identity.fingerprint.startswith(found.fingerprint or "nothing")
    assert not found.running or found.holder  # let go of: a folder is still said to be this process's
    assert backend.finished_bytes(layout) == layout.unit_bytes("0/0") + layout.unit_bytes("0/1")


def test_what_is_published_is_found_and_read(target: StorePath, identity: CacheIdentity) -> None:
    assert cache(target, **SMALL) == target  # type: ignore[arg-type,comparison-overlap]
    backend, layout = backend_of(target), identity.layout
    assert backend.exists()
    assert backend.published() == identity.fingerprint
    assert list(backend.unfinished()) == backend.unfinished_caches() == []
    sizes = backend.files.sizes()
    assert {ROOT, LEDGER_FILE, FINGERPRINT} < sizes.keys()
    assert len(sizes) == layout.files
    assert backend.files.read(FINGERPRINT, 100) == f"{identity.fingerprint}\n".encode()
    with pytest.raises(OSError, match="are the most that is read"):
        backend.files.read(FINGERPRINT, 10)


def test_a_reader_gives_checked_chunks_of_the_shape_that_the_layout_says(
    target: StorePath, identity: CacheIdentity
) -> None:
    cache(target, **SMALL)  # type: ignore[arg-type]
    layout = identity.layout
    reader = backend_of(target).chunks(layout, len(layout.arrays))
    digests, labels, units = layout.arrays["view_digest"], layout.static["labels"], list(layout.units)
    for use in (reader, pickle.loads(pickle.dumps(reader)), reader.narrowed(1)):
        assert use.at_once >= 1
        assert use.get(labels, None).tolist() == TinySamples(5).labels.tolist()
        found = [use.get(digests, unit, units[number + 1 : number + use.at_once]) for number, unit in enumerate(units)]
        assert {chunk.shape for chunk in found} == {(1, 4)}
        assert len(np.unique(np.concatenate(found, axis=1)[0])) > 5
        use.expect([(digests, units[0])])
        assert use.get(digests, units[0]).tolist() == found[0].tolist()
    held = reader.held_bytes(layout.arrays.values(), 1, None)
    assert (held > 0) == reader.remote


def test_one_process_at_a_time_makes_a_store(target: StorePath, identity: CacheIdentity) -> None:
    backend = backend_of(target)
    again: Callable[[], Any] = lambda: backend.workspace(  # noqa: E731
        identity.fingerprint, identity.layout, wait=False, notify=quiet
    )
    with again(), pytest.raises(CacheError), again():
        pass
    with again() as workspace:
        assert not workspace.done


def test_another_store_is_not_replaced_unless_that_is_said(target: StorePath, identity: CacheIdentity) -> None:
    cache(target, **SMALL)  # type: ignore[arg-type]
    with pytest.raises(CacheMismatch):
        cache(target, **SMALL, micro_batch=2)  # type: ignore[arg-type]
    assert backend_of(target).published() == identity.fingerprint
    cache(target, **SMALL, micro_batch=2, replace=True)  # type: ignore[arg-type]
    assert backend_of(target).published() not in (None, identity.fingerprint)


def test_a_folder_is_said_where_there_is_one_and_only_elsewhere_requests_cost(
    target: StorePath, identity: CacheIdentity
) -> None:
    backend = backend_of(target)
    assert (backend.folder is None) == (backend.cost(identity.layout) is not None)
    assert backend.folder in (None, target)
    if (cost := backend.cost(identity.layout, views=2)) is not None:
        once = backend.cost(identity.layout)
        assert once is not None
        assert (cost.puts, cost.gets) == (once.puts, 2 * once.gets)
