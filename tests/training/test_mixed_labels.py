"""Steps of views that mix samples: the labels and shares are those of the partners that the cache holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from training_pieces import config, network, objectives, samples, whole

from pipeline.errors import CacheMismatch
from pipeline.progress import Silent
from pipeline.signals import SignalsConfig
from pipeline.store.making.caching import make_cache
from pipeline.store.reader import TeacherCache
from pipeline.training import FromCaches, Steps, check_views, loader, train
from pipeline.views import Views, ViewsConfig, build_views

OPERATIONS = [{"name": "pad-crop", "padding": 1}, {"name": "mixup-or-cutmix"}, {"name": "horizontal-flip"}]
CPU = torch.device("cpu")


def views(folder: Path, *operations: dict[str, Any], **changes: Any) -> Views:
    section = ViewsConfig.model_validate({"count": 2, "operations": operations or OPERATIONS, **changes})
    return build_views(section, (8, 8), among=samples(folder).positions)


@pytest.fixture(scope="module")
def mixed(road: Path, tmp_path_factory: pytest.TempPathFactory) -> TeacherCache:
    """A cache of mixed views of the samples of `road`."""
    target = tmp_path_factory.mktemp("mixed") / "cache.zarr"
    options: dict[str, Any] = {"precision": "float32", "micro_batch": 16, "device": "cpu", "rows_per_block": 20}
    signals = SignalsConfig(embedding=None)
    make = make_cache(network(), samples(road), views(road), signals, target=target, **options, notify=lambda _: None)
    return TeacherCache.open(make)


def steps(road: Path, source: FromCaches, folder: Path | None = None, **changes: Any) -> Steps:
    return Steps(samples(road), views(road), source, range(2), config(**changes), 0, rows_per_block=20)


def by_hand(road: Path, cache: TeacherCache, view: int, rows: Any) -> tuple[list[int], list[float]]:
    """The partners' labels, and the shares, from the columns of the cache by their names."""
    data, names = samples(road), cache.manifest.identity.views.parameters
    assert data.labels is not None
    columns = dict(zip(names, cache.view_parameters(view, rows).T.tolist(), strict=True))
    label_at = dict(zip(data.positions.tolist(), data.labels.tolist(), strict=True))
    area = [
        h * w / 64 for h, w in zip(*(columns[f"mixup-or-cutmix.{side}"] for side in ("height", "width")), strict=True)
    ]
    blend = [share / 65536 for share in columns["mixup-or-cutmix.share"]]
    assert all(s == 1 or a == 0 for s, a in zip(blend, area, strict=True))
    shares = [s * (1 - a) for s, a in zip(blend, area, strict=True)]
    return [label_at[position] for position in columns["mixup-or-cutmix.partner"]], shares


@pytest.mark.parametrize("per_step", [1, 2])
def test_labels_and_shares_are_those_of_the_cache(road: Path, mixed: TeacherCache, per_step: int):
    run = steps(road, whole(mixed), views_per_step=per_step)
    for index in (0, run.steps_per_epoch):
        step = run[index]
        assert step.mixed is not None
        for i, view in enumerate(run.views_of(index // run.steps_per_epoch)):
            labels, shares = by_hand(road, mixed, view, step.sample[i::per_step].numpy())
            assert step.mixed.labels[i::per_step].tolist() == labels
            assert step.mixed.share[i::per_step].tolist() == pytest.approx(shares, abs=1e-7)
        assert step.mixed.share.dtype == torch.float32
        parts = step.parts(3, per_step)
        assert torch.equal(torch.cat([part.mixed.labels for part in parts if part.mixed]), step.mixed.labels)
        assert torch.equal(torch.cat([part.mixed.share for part in parts if part.mixed]), step.mixed.share)
        moved = step.to("meta")
        assert moved.mixed is not None
        assert (moved.mixed.labels.device.type, moved.mixed.share.device.type) == ("meta", "meta")


class Afar(FromCaches):
    """A source that only the process that trains may read."""

    remote = True


def test_workers_render_the_same(road: Path, mixed: TeacherCache):
    here = list(loader(steps(road, whole(mixed), epochs=1), 0, CPU))
    # Here, by workers, by workers that get parameters, and where images are not kept in memory.
    changes: list[tuple[type[FromCaches], dict[str, Any]]] = [
        (FromCaches, {"workers": 2}),
        (Afar, {"workers": 2}),
        (FromCaches, {"resident_gigabytes": 0, "workers": 0}),
    ]
    for kind, options in changes:
        run = steps(road, kind.of([(mixed, mixed.views)]), epochs=1, **options)
        for step, expected in zip(loader(run, 0, CPU), here, strict=True):
            assert torch.equal(step.images, expected.images)
            assert step.mixed is not None
            assert expected.mixed is not None
            assert torch.equal(step.mixed.labels, expected.mixed.labels)
            assert torch.equal(step.mixed.share, expected.mixed.share)


def test_views_that_do_not_mix_have_nothing_mixed_in(road: Path):
    plain = views(road, {"name": "horizontal-flip"})
    assert Steps.fresh(samples(road), plain, config(), 0)[0].mixed is None


def test_a_holdout_image_is_never_a_partner(road: Path):
    chosen, data = views(road), samples(road)
    partners = np.concatenate([chosen.partners_in(chosen.parameters(view, data.positions)) for view in range(50)])
    assert set(partners.tolist()) == set(data.positions.tolist())
    assert len(data.positions) < data.split.count


def test_a_changed_pixel_of_a_partner_is_found(road: Path, mixed: TeacherCache, tmp_path: Path):
    """It is in the sample's own view, and in the one that it is mixed into."""
    (tmp_path / "data.h5").write_bytes((road / "data.h5").read_bytes())
    position = int(samples(road).positions[30])
    with h5py.File(tmp_path / "data.h5", "r+") as file:
        file["train/images"][position] ^= 255
    assert check_views(steps(road, whole(mixed)), whole(mixed), "full", Silent()).startswith("all 2 views match")
    run = steps(road, whole(mixed))
    run.samples = samples(road, path=tmp_path / "data.h5")
    run.resident = run.samples.resident(2**30)
    with pytest.raises(CacheMismatch, match="2 of 48 rendered views are not the pixels") as error:
        check_views(run, whole(mixed), "full", Silent())
    chosen = views(road)
    mixed_into = samples(road).positions[chosen.partners.of(0, samples(road).positions) == position]
    ids = samples(road).split.ids
    assert sorted(str(error.value).split("samples ")[1].split("\n")[0].split(", ")) == sorted(
        [ids[position], ids[int(mixed_into[0])]]
    )


def entries(road: Path) -> Iterator[tuple[dict[str, Any], float]]:
    yield {"name": "hard-label"}, 0.0
    yield {"name": "hard-label", "label_smoothing": 0.1}, 0.1


def test_fresh_views_are_learnt_from_with_mixed_labels(road: Path):
    """The loss of the only step is the cross-entropy with the mixed target, as torch computes it from probabilities."""
    for entry, smoothing in entries(road):
        student = network()
        run = Steps.fresh(samples(road), views(road), config(epochs=1, batch_size=48, learning_rate=1e-9), 3)
        step = run[0]
        assert step.mixed is not None
        target = step.mixed.share[:, None] * F.one_hot(step.labels, 4)
        target = target + (1 - step.mixed.share[:, None]) * F.one_hot(step.mixed.labels, 4)
        with torch.no_grad():
            student.train()
            expected = F.cross_entropy(student(step.images).logits, target, label_smoothing=smoothing)
        result = train(network(), objectives(student, entry), run, seed=3, folder=None, progress=Silent())
        assert result.history.rows[0]["hard-label/cross-entropy"] == pytest.approx(expected.item(), rel=1e-5)
