"""Caches of views that mix samples: complete after kills, the same from workers, and replayed from what they hold."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import killed_writers
import numpy as np
import pytest
import torch
from cluster_standins import distributed
from distributed import Client
from faults import Faults
from intact import verify_files
from processes import output_of
from store_standins import TinyNetwork, TinySamples, cache, content, mixing_views, teachers
from test_faults import At, interrupt
from test_reader import flip

from pipeline.errors import CacheCorrupt, CacheMismatch, DataError
from pipeline.inspection.sample import MicroBatch
from pipeline.inspection.teacher import verify_teacher
from pipeline.inspection.views import replay, verify_views
from pipeline.store.format.arrays import Unit
from pipeline.store.format.requirements import CacheRequirement
from pipeline.store.format.sections import ViewsIdentity
from pipeline.store.making.teacher_pass import TeacherPass
from pipeline.store.reader import TeacherCache
from pipeline.views import build_views, digest

ROWS = np.arange(23)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that one process made in one go. Not to be changed."""
    return cache(tmp_path_factory.mktemp("mixed") / "a", views=mixing_views())


def opened() -> dict[str, TeacherPass]:
    """What a worker opens."""
    return teachers(views=mixing_views())


def test_workers_write_what_one_process_writes(client: Client, tmp_path: Path, made: Path) -> None:
    path = distributed(client, tmp_path / "a", opened, views=mixing_views())
    assert content(path) == content(made)
    verify_files(path)


def test_a_run_that_was_interrupted_ends_with_the_same_bytes(tmp_path: Path, made: Path) -> None:
    for views in (1, 20, 16):
        with pytest.raises(KeyboardInterrupt):
            cache(tmp_path / "a", views=mixing_views(), progress=At(views, interrupt))
    assert content(cache(tmp_path / "a", views=mixing_views(), wait=False)) == content(made)


def test_a_run_that_was_killed_ends_with_the_same_bytes(tmp_path: Path, faults: Faults) -> None:
    printed = output_of(killed_writers.run, tmp_path, "mixing", 349, log=tmp_path / "log")
    tried, survived = map(int, printed.split()[-2:])
    faults.count("SIGKILL at a call that changes the disk", tried=tried, survived=survived)
    assert tried == survived >= 1


def test_a_flipped_byte_of_the_partners_is_noticed(tmp_path: Path) -> None:
    path = cache(tmp_path / "a", views=mixing_views())
    chunk = path / "view_parameters/c/1/0/0"
    flip(chunk, 9, 3)
    with pytest.raises(CacheCorrupt, match="view_parameters"):
        TeacherCache.open(path).view_parameters(1, ROWS[:8])


def test_the_teacher_saw_the_mixed_pixels_and_says_the_same_again(made: Path) -> None:
    stored, views, samples = TeacherCache.open(made), mixing_views(), TinySamples()
    images = samples.read(ROWS)
    parameters = stored.view_parameters(2, ROWS)
    partners = np.searchsorted(samples.positions, views.partners_in(parameters))
    assert np.array_equal(np.sort(partners), ROWS)
    assert not (partners == ROWS).any()
    pixels = views.apply(images, parameters, images[torch.from_numpy(partners)])
    assert np.array_equal(stored.view_digests(2, ROWS), digest(pixels))
    said = TinyNetwork()(pixels).logits
    torch.testing.assert_close(stored.read(2, ROWS).logits, said.detach(), rtol=1e-2, atol=1e-3)
    micro_batches = [MicroBatch(Unit(view, 1), range(8, 12)) for view in range(3)]
    report = verify_teacher(stored, opened()["tiny"], micro_batches)
    assert report.problems == []
    assert verify_views(stored, samples, views, micro_batches).problems == []


def test_views_replay_from_what_is_stored_though_others_would_be_drawn(made: Path) -> None:
    """The partner and what was drawn for it stand in the row: no seed is asked."""
    stored, samples, views = TeacherCache.open(made), TinySamples(), mixing_views()
    other = build_views(views.config.model_copy(update={"seed": 6}), (8, 8), among=samples.positions)
    replayed = replay(stored, samples, other, 1, ROWS)  # type: ignore[arg-type]
    assert replayed.same.all()
    assert not replayed.drawn.any()


def test_a_partner_that_is_held_out_is_refused(made: Path) -> None:
    stored, samples, views = TeacherCache.open(made), TinySamples(), mixing_views()
    fewer = TinySamples()
    fewer.count, fewer.positions = 20, samples.positions[:20]
    with pytest.raises(DataError, match="not one of the samples that are used"):
        replay(stored, fewer, views, 1, ROWS[:20])  # type: ignore[arg-type]


def test_other_partners_are_another_cache(made: Path) -> None:
    identity = TeacherCache.open(made).manifest.identity
    assert identity.views.partners == mixing_views().partners.digest()
    fewer = TinySamples(20)
    with pytest.raises(CacheMismatch, match=r"views\.partners"):
        TeacherCache.open(made).require(CacheRequirement(views=ViewsIdentity.of(mixing_views(fewer))))
    assert "partners" not in TeacherCache.open(made).manifest.identity.data.plain()


def test_views_that_do_not_mix_have_no_partners_in_their_identity(tmp_path: Path) -> None:
    identity = TeacherCache.open(cache(tmp_path / "a")).manifest.identity
    assert identity.views.partners is None
    assert set(identity.views.plain()) == {"operations", "seed", "first", "count", "parameters"}


def test_a_remake_by_other_micro_batches_has_the_same_pixels(tmp_path: Path, made: Path) -> None:
    make = partial(cache, views=mixing_views())
    other = TeacherCache.open(make(tmp_path / "a", micro_batch=8, rows_per_block=16))
    stored = TeacherCache.open(made)
    for view in range(3):
        assert np.array_equal(other.view_digests(view, ROWS), stored.view_digests(view, ROWS))
        assert np.array_equal(other.view_parameters(view, ROWS), stored.view_parameters(view, ROWS))
