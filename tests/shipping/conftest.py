"""Fixtures for tests of trained students where they are used."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from experiment import made_once, one_thread, quick_rates
from photo_experiment import begin, packed_test, trained

from pipeline.cli import main
from pipeline.experiment.source import ConfigFile
from pipeline.shipping import exporting
from pipeline.shipping.measuring import latency
from stages import evaluate, prepare_data

PAGE = (Path(__file__).parents[2] / "docs/deploy.md").read_text()


def quick_latency(*arguments: Any) -> float:
    """What `latency` measures, of five passes."""
    return latency(*arguments, seconds=0.0)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(exporting, "latency", quick_latency)
    with one_thread():
        yield


@pytest.fixture(scope="session")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an experiment on photographs with a trained `vit`. Not to be changed."""

    def make(folder: Path) -> None:
        folder.mkdir()
        begin(folder)
        with pytest.MonkeyPatch.context() as patch, one_thread():
            patch.chdir(folder)
            patch.setattr("os.fsync", lambda descriptor: None)
            prepare_data.run(ConfigFile(Path("flowers.yaml")), replace=False)
            trained("vit")

    return made_once(tmp_path_factory, "flowers", make)


@pytest.fixture
def flowers(grown: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`grown`, as the working directory. Not to be changed."""
    monkeypatch.chdir(grown)
    return grown


@pytest.fixture(scope="session")
def shipped(grown: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`grown` with its evaluation, the student in every format, and the views of its test split in `views.npy`.

    Not to be changed. The command is that of docs/deploy.md.
    """
    command = re.search(r"pipeline (export --student vit --objectives hard)", PAGE)
    assert command is not None

    def make(folder: Path) -> None:
        shutil.copytree(grown, folder)
        with pytest.MonkeyPatch.context() as patch, one_thread():
            patch.chdir(folder)
            patch.setattr("os.fsync", lambda descriptor: None)
            patch.setattr(exporting, "latency", quick_latency)
            quick_rates(patch)
            evaluate.run(ConfigFile(Path("flowers.yaml")))
            shown = CliRunner().invoke(main, [*command[1].split(), "--config", "flowers.yaml", "--threads", "1"])
            assert shown.exit_code == 0, shown.output
            samples, views = packed_test()
            pixels = views.apply(samples.read(np.arange(samples.count)), np.empty((samples.count, 0), np.int32))
            np.save("views.npy", pixels.numpy())

    return made_once(tmp_path_factory, "shipped", make)
