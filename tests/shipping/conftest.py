"""Fixtures for tests of trained students where they are used."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from experiment import made_once, one_thread
from photo_experiment import begin, trained

from pipeline.experiment.source import ConfigFile
from stages import prepare_data


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
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
