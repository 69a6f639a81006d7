"""Caches in every encoding, made end to end, read by the library and by zarr with `docs/cache-format.md` alone."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from intact import verify_files
from store_standins import FLOAT32, TinyNetwork, TinySamples, TinyViews, cache

from pipeline import plugins
from pipeline.errors import CacheError, CacheMismatch, ConfigError
from pipeline.inspection.sample import sampled_batches
from pipeline.inspection.summary import describe, summary_text
from pipeline.inspection.teacher import verify_teacher
from pipeline.signals import EmbeddingConfig, FeaturesConfig, LogitsConfig, Signals, SignalsConfig
from pipeline.signals.lowpass import lowpass
from pipeline.store.encodings import ENCODINGS, encodings_for
from pipeline.store.format.requirements import CacheRequirement, RequiredSignals
from pipeline.store.format.signal_sections import SignalsIdentity
from pipeline.store.making.teacher_pass import TeacherPass, signal_of
from pipeline.store.reader import TeacherCache

NAMES = plugins.names(ENCODINGS)
DOCUMENTATION = Path(__file__).parents[2] / "docs/cache-format.md"


def written(encoding: Any) -> SignalsConfig:
    """Every signal in one encoding, or in float16 where that cannot write it."""
    name = encoding if isinstance(encoding, str) else encoding["name"]

    def of(kind: str) -> Any:
        return encoding if name in encodings_for(kind) else "float16"

    return SignalsConfig(
        logits=LogitsConfig(encoding=of("logits")),
        embedding=EmbeddingConfig(encoding=of("embedding")),
        features=FeaturesConfig(grid=2, encoding=of("features")),
    )


ENCODINGS_OF_CACHES: list[Any] = [*NAMES, {"name": "topk", "k": 2}]


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> TeacherCache:
    """The same teacher's answers in float32."""
    return TeacherCache.open(cache(tmp_path_factory.mktemp("exact") / "cache.zarr", signals=FLOAT32))


@pytest.fixture(scope="module", params=ENCODINGS_OF_CACHES, ids=str)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cache(tmp_path_factory.mktemp("store") / "cache.zarr", signals=written(request.param))


def test_what_is_read_is_within_the_bound_of_what_the_teacher_said(store: Path, exact: TeacherCache) -> None:
    verify_files(store)
    teacher, rows = TeacherCache.open(store), np.random.default_rng(0).permutation(23)
    for view in teacher.views:
        got, said = teacher.read(view, rows), exact.read(view, rows)
        assert got.shapes() == said.shapes()
        for spec in teacher.manifest.layout.signals:
            values = signal_of(said, spec.name).numpy()
            error = np.abs(signal_of(got, spec.name).double().numpy() - values)
            assert np.all(error <= spec.codec.error_bound(values)), spec.name


def documented(name: str, page: Path = DOCUMENTATION) -> Any:
    """A function of the documentation's own code: nothing of the library."""
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    (code,) = (block for block in blocks if f"def {name}(" in block)
    scope: dict[str, Any] = {}
    exec(code, scope)
    return scope[name]


def test_zarr_and_the_documentation_are_enough(store: Path) -> None:
    group: Any = zarr.open_group(store, mode="r")
    identity = group.attrs["identity"]["signals"]
    entries = {"logits": identity["logits"], "embedding": identity["embedding"]}
    entries |= {f"features/{tap}": entry for tap, entry in identity["features"].items()}
    teacher, decode = TeacherCache.open(store), documented("decode")
    for view in range(3):
        signals = teacher.read(view, np.arange(23))
        for name, entry in entries.items():
            ours, theirs = signal_of(signals, name).numpy(), decode(group, view, name, entry)
            assert theirs.dtype == np.float32
            assert ours.tobytes() == theirs.tobytes()


def test_rows_beyond_the_samples_hold_the_fill_value(store: Path) -> None:
    plan = TeacherCache.open(store).manifest.layout
    for name, spec in plan.arrays.items():
        raw = (store / name / "c/0/2" / "/".join("0" * (len(spec.shape) - 2))).read_bytes()[:-4]
        (beyond,) = np.frombuffer(raw, spec.dtype).reshape(spec.chunk[1:])[7:]
        fill = np.isnan(beyond) if spec.dtype.kind == "f" else beyond == spec.fill
        assert np.all(fill), name


def test_bytes_per_view_are_those_of_the_arrays(store: Path) -> None:
    group: Any = zarr.open_group(store, mode="r")
    plan = TeacherCache.open(store).manifest.layout
    for spec in plan.signals:
        arrays = [group[array] for array in spec.arrays.values()]
        taken = sum(array.nbytes for array in arrays) / (3 * 23)
        assert spec.alternatives[next(iter(names(spec.encoding)))] == spec.bytes_per_view == taken
        assert set(spec.alternatives) == set(encodings_for(spec.name.partition("/")[0]))


def test_inspect_says_how_signals_are_written(store: Path) -> None:
    plan = TeacherCache.open(store).manifest.layout
    text = summary_text(describe(store)[0])
    for spec in plan.signals:
        (line,) = (line for line in text.splitlines() if f" {spec.name} " in f" {line} ")
        options = {"name": spec.encoding} if isinstance(spec.encoding, str) else spec.encoding
        assert all(str(value) in line.split() for value in options.values()), line


def names(encoding: Any) -> list[str]:
    return [encoding] if isinstance(encoding, str) else [encoding["name"]]


def test_batches_cross_to_other_processes_as_they_are(store: Path) -> None:
    encoded = TeacherCache.open(store).read_encoded(1, np.arange(5))
    there = pickle.loads(pickle.dumps(encoded)).to("cpu")
    assert there.specs == encoded.specs
    assert torch.equal(there.decode().logits, encoded.decode().logits)


def test_a_teacher_that_is_asked_again_says_the_same(store: Path) -> None:
    """Byte-identical caches, whatever the encoding."""
    again = cache(store.parent / "again.zarr", signals=as_config(store))
    for file in store.rglob("c/**/*"):
        if file.is_file():
            assert file.read_bytes() == (again / file.relative_to(store)).read_bytes()


def as_config(store: Path) -> SignalsConfig:
    """The configuration that a cache's identity speaks of: all options said."""
    identity = TeacherCache.open(store).manifest.identity.signals.plain()
    return SignalsConfig.model_validate(
        {
            "logits": {"encoding": identity["logits"]["encoding"]},
            "embedding": {"encoding": identity["embedding"]["encoding"]},
            "features": {"grid": 2, "encoding": identity["features"]["block1"]["encoding"]},
        }
    )


def test_verifying_finds_what_the_teacher_says_today(store: Path) -> None:
    arguments: Any = {"device": torch.device("cpu"), "precision": "float32", "micro_batch": 4}
    teacher = TeacherPass(TinyNetwork(), TinySamples(), TinyViews(), as_config(store), **arguments)  # type: ignore[arg-type]
    opened = TeacherCache.open(store)
    deviations = verify_teacher(opened, teacher, sampled_batches(opened.manifest.layout, 4, 12, 0)).deviations
    assert len(deviations) == 4
    assert all(deviation.largest == 0 for deviation in deviations)


def test_caches_without_options_keep_the_identity_that_they_had(tmp_path: Path) -> None:
    signals = Signals(torch.zeros(1, 5), torch.zeros(1, 6), {"block1": torch.zeros(1, 4, 2, 2)})
    said = SignalsIdentity.of(signals, SignalsConfig(features=FeaturesConfig(encoding="float32"))).plain()
    assert said["logits"] == {"shape": [5], "encoding": "float16"}
    assert said["embedding"] == {"shape": [6], "encoding": "float16"}
    assert said["features"] == {"block1": {"shape": [4, 2, 2], "encoding": "float32"}}
    said = SignalsIdentity.of(signals, SignalsConfig(logits=LogitsConfig(encoding={"name": "topk"}))).plain()
    assert said["logits"] == {"shape": [5], "encoding": {"name": "topk", "k": 32}}


def test_another_encoding_or_option_is_another_cache(tmp_path: Path) -> None:
    path = cache(tmp_path / "a", signals=written({"name": "topk", "k": 2}))
    teacher = TeacherCache.open(path)
    teacher.require(CacheRequirement(signals=RequiredSignals({"logits": {"name": "topk", "k": 2}})))
    with pytest.raises(CacheMismatch, match=r"signals\.logits\.encoding\.k: expected 3, got 2"):
        teacher.require(CacheRequirement(signals=RequiredSignals({"logits": {"name": "topk", "k": 3}})))
    with pytest.raises(CacheMismatch, match=r'signals\.logits\.encoding: expected "float16", got \{"k":2'):
        teacher.require(CacheRequirement(signals=RequiredSignals({"logits": "float16"})))


def test_every_encoding_that_cannot_be_is_named_at_once() -> None:
    config = SignalsConfig(
        logits=LogitsConfig(encoding={"name": "topk", "k": 0, "kk": 1}),
        embedding=EmbeddingConfig(encoding="topk"),
        features=FeaturesConfig(encoding="in8"),
    )
    with pytest.raises(ConfigError) as caught:
        SignalsIdentity.of(Signals(torch.zeros(1, 5)), config)
    keys = {problem.key for problem in caught.value.problems}
    logits = {"signals.logits.encoding.k", "signals.logits.encoding.kk"}
    assert keys == logits | {"signals.embedding.encoding", "signals.features.encoding"}
    assert "did you mean 'int8'?" in str(caught.value)


@pytest.mark.parametrize("encoding", NAMES)
def test_what_is_not_finite_or_does_not_fit_stops_the_teacher(tmp_path: Path, encoding: str) -> None:
    network = TinyNetwork()
    network.head.bias.data[2] = float("inf")
    with pytest.raises(CacheError, match=r"logits is not finite(.|\n)*view 0 of samples image-0, image-2"):
        cache(tmp_path / "a", network=network, signals=written(encoding))
    network.head.bias.data[2] = 1e6
    if encoding in ("float32", "int8"):
        logits = TeacherCache.open(cache(tmp_path / "b", network=network, signals=written(encoding)))
        assert np.all(logits.read(0, np.arange(23)).logits[:, 2].numpy() == pytest.approx(1e6, rel=1e-3))
        return
    with pytest.raises(CacheError, match=rf"logits exceeds 65504, the most that {encoding} holds") as caught:
        cache(tmp_path / "b", network=network, signals=written(encoding))
    assert "image-0" in str(caught.value)
    assert "signals.logits.encoding: float32" in str(caught.value)


@pytest.mark.parametrize("low_pass", plugins.names("pipeline.signals.filters"))
def test_maps_are_kept_through_the_filter_that_the_manifest_names(tmp_path: Path, low_pass: str) -> None:
    features = FeaturesConfig(grid=2, filter=low_pass, encoding="float32")
    teacher = TeacherCache.open(cache(tmp_path / "a", signals=SignalsConfig(features=features)))
    assert teacher.shapes.filter == low_pass
    rows, views, network = np.arange(4), TinyViews(), TinyNetwork()
    images = views.apply(TinySamples().read(rows), views.parameters(0, 2 * rows))
    with torch.no_grad():
        said = network(images)
    for tap, stored in teacher.read(0, rows).features.items():
        torch.testing.assert_close(stored, lowpass(said.features[tap], 2, low_pass))
