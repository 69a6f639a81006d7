"""The lines of README, of the notebook and of docs/python.md are the same, and all code there runs."""

from __future__ import annotations

import doctest
import importlib
import json
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from api_pieces import augment, cached, network, opened, photos

import pipeline
from pipeline import objective

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/python.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
LINES = BLOCKS[0]
CELLS = [
    "".join(cell["source"])
    for cell in json.loads((ROOT / "docs/python.ipynb").read_text())["cells"]
    if cell["cell_type"] == "code"
]


SHORTER = {"range(15)": "range(8)", "range(10)": "range(5)"}
"""Fewer epochs than the notebook has, of the teacher and of the student."""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder in which the notebook ran, cell by cell, and its names."""
    assert all(sum(cell.count(long) for cell in CELLS) == 1 for long in SHORTER)
    folder = tmp_path_factory.mktemp("notebook")
    names: dict[str, Any] = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
            patch.chdir(folder)
            for number, cell in enumerate(CELLS):
                for long, short in SHORTER.items():
                    cell = cell.replace(long, short)
                exec(compile(cell, f"python.ipynb, code cell {number}", "exec"), names)
    finally:
        torch.set_num_threads(threads)
    return folder, names


def test_the_lines_are_the_same_everywhere() -> None:
    assert LINES.rstrip("\n") in CELLS
    assert f"```python\n{LINES}```" in (ROOT / "README.md").read_text()
    assert len(LINES.splitlines()) <= 17
    assert "import torch" in LINES  # whoever copies them has all that they need


def test_the_lines_need_public_names_alone() -> None:
    found = re.findall(r"from (pipeline\S*) import (.*)", LINES)
    assert [module for module, _ in found] == ["pipeline"]
    assert set(found[0][1].split(", ")) <= set(pipeline.__all__)
    assert not re.search(r"\b_|\._", LINES)


@pytest.mark.long
def test_the_notebook_teaches_its_student(ran: tuple[Path, dict[str, Any]]) -> None:
    _, names = ran
    assert names["accuracy"](names["student"]) > 0.4  # chance is 0.1
    assert names["accuracy"](names["teacher"]) > 0.6
    assert "data.pixels" in CELLS[-1] or "CacheMismatch" in CELLS[-1]


@pytest.mark.long
def test_the_code_on_the_page_runs(ran: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, names = ran
    monkeypatch.chdir(folder)
    with h5py.File("data.h5", "w") as file:
        group = file.create_group("train")
        few = names["photos"][:80]
        group["images"] = np.stack([image for image, _ in few])[..., None]
        group["labels"] = np.array([label for _, label in few])
        group["ids"] = [str(number) for number in range(len(few))]
    there, ran_blocks = dict(names), 0
    for block in BLOCKS[1:]:
        if re.search(r"^(import|from) (lightning|accelerate)", block, re.MULTILINE):
            continue  # in test_loops.py, where they are installed
        exec(compile(block, "docs/python.md", "exec"), there)
        ran_blocks += 1
    assert ran_blocks == len(BLOCKS) - 3


@pytest.mark.long
@pytest.mark.parametrize("framework", ["lightning", "accelerate"])
@pytest.mark.filterwarnings("ignore")
def test_the_code_for_other_loops_runs(
    ran: tuple[Path, dict[str, Any]], framework: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if find_spec(framework) is None:
        pytest.skip(f"{framework} is not installed: pip install {framework}")
    folder, names = ran
    monkeypatch.chdir(folder)
    before = [parameter.detach().clone() for parameter in names["student"].parameters()]
    (block,) = (block for block in BLOCKS if re.search(rf"^(import|from) {framework}", block, re.MULTILINE))
    there = dict(names)
    exec(compile(block, "docs/python.md", "exec"), there)
    after = list(there["student"].parameters())
    assert any(not torch.equal(one, other) for one, other in zip(before, after, strict=True))


@pytest.mark.long
def test_every_public_name_has_an_example_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with h5py.File("data.h5", "w") as file:
        group = file.create_group("train")
        group["images"], group["labels"] = np.zeros((60, 8, 8, 3), np.uint8), np.arange(60) % 4
        group["ids"] = [str(number) for number in range(60)]
    data, student = opened(cached(tmp_path)), network()
    loss = objective(["kd"], student, data)
    batch = data[0]
    pieces = {"photos": photos(), "data": data, "student": student, "loss": loss, "batch": batch, "augment": augment()}
    finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner()
    for name in pipeline.__all__:
        thing = getattr(pipeline, name)
        module = importlib.import_module(thing.__module__)
        names = {**vars(module), **pieces, "objective": objective}
        (found,) = finder.find(thing, name, globs=names)
        assert "Example:" in (thing.__doc__ or ""), name
        assert found.examples, name
        for example in found.examples:
            example.options.pop(doctest.SKIP, None)
        runner.run(found)
    assert (runner.failures, runner.tries > 20) == (0, True)
    assert "pipeline.api" in sys.modules
