"""Plug-ins that lie outside of Decant: by `module:factory`, and by the short names of installed packages."""

from __future__ import annotations

import pickle
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from own import ENCODING

from pipeline import factories, make_views, plugins
from pipeline.config import bind
from pipeline.errors import CacheMismatch, ConfigError
from pipeline.signals import SignalsConfig, SignalsSection, extract, maps_read
from pipeline.signals.lowpass import lowpass
from pipeline.store.encodings import load_encoding, resolved_encoding
from pipeline.store.format.sections import ViewsIdentity
from pipeline.store.format.signal_sections import SignalsIdentity
from pipeline.views import Views, build_views

OPERATIONS = "pipeline.views.operations"


def views(*operations: Any) -> Views:
    return build_views(make_views(list(operations), seed=3), (4, 6))


def refusal(choice: Any) -> str:
    with pytest.raises(ConfigError) as error:
        views(choice)
    (problem,) = error.value.problems
    return str(problem)


def test_an_operation_of_ones_own_is_one_of_the_chain(own: Path) -> None:
    images = torch.randint(0, 256, (5, 3, 4, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    chosen = views("horizontal-flip", "own_invert:Invert")
    parameters = chosen.parameters(0, np.arange(5))
    flipped = views("horizontal-flip").apply(images, parameters)
    assert torch.equal(chosen.apply(images, parameters), 255 - flipped)
    assert chosen.identity()["operations"][1] == {"name": "own_invert:Invert", "amount": 1}
    assert torch.equal(views({"name": "own_invert:Invert", "amount": 0}).apply(images, parameters[:, :0]), images)
    again = pickle.loads(pickle.dumps(chosen))
    assert torch.equal(again.apply(images, parameters), 255 - flipped)


@pytest.mark.parametrize(
    ("choice", "parts"),
    [
        ("own_invrt:Invert", ["operations.0: ", "there is no module 'own_invrt'", "did you mean 'own_invert'?"]),
        ("own_invert:Invrt", ["own_invert has no 'Invrt'", "did you mean 'Invert'?"]),
        ({"name": "own_invert:Invrt"}, ["operations.0.name: ", "own_invert has no 'Invrt'"]),
        ("own_invert:HIGHEST", ["is no function or class, but of type int", "options: a subclass of OperationOptions"]),
        ("own_invert:bare", ["'options' is not annotated", "pipeline.views.operation.OperationOptions"]),
        ("own_invert:numbered", ["'options' is annotated with int"]),
        ("os:system", ["is not annotated"]),
        ("pipeline.objectives.methods.kd:build", ["missing a required argument: 'student'"]),
        ("pipeline.views.operations.pad_crop:build", ["Options narrows `name`", "leave `name` out of Options"]),
        ({"name": "own_invert:Invert", "amuont": 2}, ["operations.0.amuont: unknown key", "did you mean 'amount'?"]),
        ({"name": "own_invert:Invert", "amount": "x"}, ["operations.0.amount: ", "valid integer"]),
        ("own_invert:broken", ["cannot be made: IndexError: list index out of range (own_invert.py, line "]),
        (
            "own_invert:other",
            ["makes an object of type int, which is no Operation or MixingOperation", "without exact, parameter_names"],
        ),
    ],
)
def test_what_is_no_operation_is_refused_with_the_reason(own: Path, choice: Any, parts: list[str]) -> None:
    text = refusal(choice)
    assert not [part for part in parts if part not in text], text


def test_kinds_that_are_files_of_decant_alone_know_no_modules() -> None:
    with pytest.raises(ConfigError, match="unknown name 'own_invert:Invert'"):
        plugins.choose_at("model", "pipeline.models.kinds", "own_invert:Invert")


SIGNALS = f"""{ENCODING}

import torch

SIGNALS = ("logits", "embedding")


def both(maps: Tensor, deeper: Tensor) -> Tensor:
    return torch.stack([maps.mean((1, 2, 3)), deeper.mean((1, 2, 3))], 1)


def bare(x, grid_h, grid_w):
    return x


def none() -> Tensor:
    return torch.ones(1)
"""


@pytest.fixture
def signals(own: Path) -> Path:
    (own / "own_signals.py").write_text(SIGNALS)
    return own


def test_filters_and_extra_signals_of_ones_own_are_functions(signals: Path) -> None:
    maps, deeper = torch.arange(64.0).reshape(2, 2, 4, 4), torch.ones(2, 3, 2, 2)
    assert torch.equal(lowpass(maps, 2, "own_signals:corner"), maps[:, :, :2, :2])
    assert maps_read("own_signals:both") == 2
    assert extract("own_signals:both/block1", maps, deeper).tolist() == [[15.5, 1], [47.5, 1]]
    kept = {"features": {"filter": "own_signals:corner"}, "extras": ["own_signals:both/block1"]}
    assert SignalsConfig.model_validate(kept).extras[0].name == "own_signals:both/block1"


def test_an_encoding_of_ones_own_has_options_and_says_what_it_writes(signals: Path) -> None:
    values = np.float32([[1, 2, 3]])
    encoding = load_encoding({"name": "own_signals:Shifted", "shift": 4}, "logits", (3,))
    assert encoding.encode(values)[""].tolist() == [[5, 6, 7]]
    assert resolved_encoding("own_signals:Shifted", "logits") == {"name": "own_signals:Shifted", "shift": 1}
    with pytest.raises(ConfigError, match="'own_signals:Shifted' writes logits and embedding only"):
        resolved_encoding("own_signals:Shifted", "features")
    with pytest.raises(ConfigError, match=r"signals\.logits\.encoding\.shfit: unknown key"):
        resolved_encoding({"name": "own_signals:Shifted", "shfit": 1}, "logits")


@pytest.mark.parametrize(
    ("section", "part"),
    [
        ({"features": {"filter": "own_signals:bare"}}, "its parameter 'x' is not annotated, and not with torch.Tensor"),
        ({"features": {"filter": "own_signals:both"}}, "cannot be called with what this kind is made of"),
        ({"features": {"filter": "own_signals:cornr"}}, "did you mean 'corner'?"),
        ({"extras": ["own_signals:corner/block1"]}, "its parameter 'grid_h' is annotated with int, and not with"),
        ({"extras": ["own_signals:none/block1"]}, "is no function of such arguments"),
        ({"extras": ["own_signals:both"]}, "names a file and a tap"),
        ({"extras": ["_own:both/block1"]}, "caches keep this name"),
        ({"logits": {"encoding": "own_signal:Shifted"}}, "did you mean 'own_signals'?"),
    ],
)
def test_what_is_no_part_of_signals_is_refused_with_the_reason(signals: Path, section: Any, part: str) -> None:
    with pytest.raises(ConfigError) as error:
        bind({"signals": section}, SignalsSection, ["signals"])
    assert part in str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        {"filter": "own_evil:x"},
        {"logits": {"shape": [3], "encoding": "own_evil:x"}},
        {"logits": {"shape": [3], "encoding": {"name": "own_evil:x"}}},
        {"extras": {"own_evil:x/block1": {"shape": [3], "encoding": "float16"}}},
    ],
)
def test_signals_of_a_cache_run_no_code_by_a_name_alone(own: Path, change: dict[str, Any]) -> None:
    (own / "own_evil.py").write_text("open('executed', 'w').close()\n")
    kept = {
        "logits": None,
        "embedding": None,
        "features": {},
        "grid": None,
        "filter": "mean",
        "extras": {},
        "head": None,
    }
    identity = SignalsIdentity.model_validate({**kept, **change})
    with pytest.raises(CacheMismatch, match="which its name alone does not run") as error:
        identity.require_imported("zarr.json")
    assert "import own_evil before" in str(error.value)
    assert not (own / "executed").exists()


@pytest.fixture
def brought(own: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, EntryPoint]:
    """What installed packages bring, by its names."""
    found = {"invert": EntryPoint("invert", "own_invert:Invert", "decant.operations")}
    given = {"decant.operations": found}
    for module in (factories, plugins):
        monkeypatch.setattr(module, "installed", lambda group: given.get(group, {}))
    return found


def test_an_installed_package_gives_a_short_name(brought: dict[str, EntryPoint]) -> None:
    assert "invert" in plugins.names(OPERATIONS)
    assert views("invert").identity()["operations"] == [{"name": "invert", "amount": 1}]
    assert "did you mean 'invert'?" in refusal("inverd")
    assert plugins.own_files(OPERATIONS, "invert") == (Path("own_invert.py"), Path("own_levels.py"))


def test_no_package_takes_a_name_of_decants(brought: dict[str, EntryPoint]) -> None:
    brought["pad-crop"] = EntryPoint("pad-crop", "own_invert:Invert", "decant.operations")
    text = refusal("pad-crop")
    assert "'pad-crop' is a plug-in of Decant, and an installed package brings another of this name" in text
    assert "name that one 'own_invert:Invert'" in text
    assert views("horizontal-flip")


def test_what_is_installed_is_read_from_the_metadata_of_packages(own: Path) -> None:
    folder = own / "own_package-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: own-package\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[decant.operations]\ninvert = own_invert:Invert\n")
    code = "from pipeline import factories\nprint(factories.installed('decant.operations')['invert'].value)\n"
    paths = f"{own}:{Path(factories.__file__).parents[1]}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": paths})
    assert done.stdout == "own_invert:Invert\n", done.stderr


def test_a_cache_runs_no_code_by_its_name_alone(own: Path) -> None:
    (own / "own_evil.py").write_text("open('executed', 'w').close()\n")
    values = {"seed": 0, "first": 0, "count": 1, "parameters": []}
    for name in ("own_evil:x", "own_invert:Invert"):
        identity = ViewsIdentity.model_validate({**values, "operations": [{"name": name}]})
        with pytest.raises(CacheMismatch, match="which its name alone does not run"):
            identity.config()
    assert not (own / "executed").exists()
    views("own_invert:Invert")
    assert identity.config().operations[0].name == "own_invert:Invert"
    system = ViewsIdentity.model_validate({**values, "operations": [{"name": "os:system"}]})
    with pytest.raises(CacheMismatch, match="is not annotated"):
        system.config()
