"""Chunks that are whole in themselves and not what was computed: what the reader refuses, and what `verify` finds."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile import bounded
from intact import verify_files
from store_standins import cache
from test_encoded_caches import written
from test_verify_files import put, rewrite

from pipeline.errors import CacheCorrupt
from pipeline.inspection.files import check_files
from pipeline.store.reader import TeacherCache

ROWS = np.arange(23)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By encoding: topk keeps some of the logits, and all."""
    folder, small, whole = tmp_path_factory.mktemp("stores"), {"name": "topk", "k": 2}, {"name": "topk", "k": 5}
    choices: dict[str, Any] = {"float16": "float16", "int8": "int8", "topk": small, "whole": whole}
    return {name: cache(folder / name, signals=written(choice)) for name, choice in choices.items()}


@pytest.fixture
def copied(stores: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    return lambda name: Path(shutil.copytree(stores[name], tmp_path / name))


@pytest.mark.parametrize("name", ["logits", "view_digest", "view_parameters", "features/block2"])
def test_chunks_of_two_views_that_changed_places_are_refused(copied: Callable[[str], Path], name: str) -> None:
    store = copied("float16")
    first, second = (
        next(path for path in sorted((store / name / "c" / view).rglob("*")) if path.is_file()) for view in "01"
    )
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    with pytest.raises(CacheCorrupt, match=f"not the one that the teacher cache was published with(.|\n)*{name}"):
        read(store)


def test_a_chunk_of_another_cache_is_refused(copied: Callable[[str], Path], tmp_path: Path) -> None:
    """Such as a copy that was broken off leaves behind."""
    store, other = copied("float16"), cache(tmp_path / "other", signals=written("float32"))
    shutil.copy(other / "head/weight/c/0/0", store / "head/weight/c/0/0")
    read(store)  # the same head
    shutil.copy(other / "labels/c/0", store / "labels/c/0")
    rewrite(other, "labels/c/0", put(2, 0))
    shutil.copy(other / "labels/c/0", store / "labels/c/0")
    with pytest.raises(CacheCorrupt, match=r"not the one that the teacher cache was published with(.|\n)*labels"):
        _ = TeacherCache.open(store).labels


def test_without_its_ledger_a_cache_is_not_read(copied: Callable[[str], Path]) -> None:
    store = copied("float16")
    (store / "ledger.jsonl").unlink()
    with pytest.raises(CacheCorrupt, match=r"(?s)ledger\.jsonl.*expected: the ledger"):
        read(store)


def read(store: Path) -> None:
    teacher = TeacherCache.open(store)
    for view in teacher.views:
        teacher.view_parameters(view, ROWS)
        teacher.view_digests(view, ROWS)
        teacher.read(view, ROWS)


@pytest.mark.parametrize(
    ("encoding", "name", "change", "what"),
    [
        ("float16", "logits/c/0/0/0", put((0, 1, 2), np.nan), "1 of 8 rows have values that are not finite"),
        ("int8", "logits/c/0/0/0", put((0, 1, 2), -128), "1 of 8 rows hold what int8 never writes"),
        (
            "int8",
            "features/block2.scale/c/0/0/0",
            put((0, 1, 2), np.inf),
            "1 of 8 rows have values that are not finite",
        ),
        ("int8", "embedding.scale/c/0/0", put((0, 3), np.inf), "1 of 8 rows have values that are not finite"),
        ("int8", "features/block2.scale/c/0/0/0", put((0, 1, 2), -1), "1 of 8 rows hold what int8 never writes"),
        ("topk", "logits/c/0/0/0", put((0, 1), [0, 1]), "1 of 8 rows hold what topk never writes"),
        ("topk", "logits/c/0/0/0", put((0, 1, 0), np.inf), "1 of 8 rows have values that are not finite"),
        ("topk", "logits.rest/c/0/0", put((0, 1), -np.inf), "1 of 8 rows have values that are not finite"),
        ("whole", "logits.rest/c/0/0", put((0, 1), 0), "1 of 8 rows hold what topk never writes"),
        ("topk", "logits.indices/c/0/0/0", put((0, 1), [3, 3]), "1 of 8 rows hold what topk never writes"),
        ("topk", "logits.indices/c/0/0/0", put((0, 1, 0), 5), "1 of 8 rows hold what topk never writes"),
        ("topk", "logits.indices/c/0/0/0", put((0, 1), 2**16 - 1), "1 of 8 rows hold what topk never writes"),
    ],
)
def test_what_no_encoding_writes_is_found(
    copied: Callable[[str], Path], encoding: str, name: str, change: Callable[[Any], None], what: str
) -> None:
    store = copied(encoding)
    verify_files(store)
    rewrite(store, name, change)
    assert check_files(store).damaged == {name: what}
    if "indices" in name:  # a GPU would never answer again
        with pytest.raises(CacheCorrupt, match=r"damaged(.|\n)*indices(.|\n)*expected: what topk writes"):
            read(store)


@pytest.mark.parametrize("size", [0, 3, 1 << 24, 1 << 42])
def test_a_compressed_chunk_of_another_size_is_refused_at_once(tmp_path: Path, size: int) -> None:
    """Of holes: neither mapped nor read."""
    store = cache(tmp_path / "a", compression="zstd")
    os.truncate(store / "logits/c/0/0/0", size)
    with bounded(seconds=5), pytest.raises(CacheCorrupt, match=rf"got: {size} bytes"):
        read(store)
