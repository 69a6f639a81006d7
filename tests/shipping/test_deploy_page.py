"""The code of docs/deploy.md, as it is written, on photographs: right as often as `evaluate` says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from apart import run_without_decant
from photo_experiment import COUNT, NAMES, TEST
from processes import output_of

pytestmark = pytest.mark.long

PAGE = (Path(__file__).parents[2] / "docs/deploy.md").read_text()


@pytest.fixture
def deployed(shipped: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the student as the page exports it, as the working directory. Not to be changed."""
    monkeypatch.chdir(shipped)
    return shipped


def classified(title: str, log: Path) -> list[str]:
    """What the code of the page says of every test photograph, in a process in which Decant cannot be imported."""
    (code,) = re.findall(rf"```python\n(# {title}\n.*?)```", PAGE, re.DOTALL)
    code += f"\nprint(json.dumps([classify(path) for path in {TEST}]))"
    found: list[str] = json.loads(output_of(run_without_decant, code, log=log).splitlines()[-1])
    return found


def top1() -> Any:
    """The share of test photographs of which the evaluation says that the student is right."""
    (student,) = json.loads(Path("artifacts/flowers/evaluation.json").read_text())["students"]
    return student["metrics"]["top1"]


@pytest.mark.parametrize("title", ["with timm", "with onnxruntime"])
def test_the_code_of_the_page_is_right_as_often_as_the_evaluation(deployed: Path, title: str, tmp_path: Path):
    assert top1() > 0.6  # it has learnt something, so a wrong mean or size would be seen
    said = classified(title, tmp_path / "log")
    assert len(said) == COUNT * len(NAMES)
    right = np.mean([name == Path(path).parent.name for name, path in zip(said, TEST, strict=True)])
    assert right == pytest.approx(top1())


def test_the_table_says_the_same(deployed: Path):
    table = json.loads(Path("artifacts/flowers/exports/vit/hard/seed-0/export.json").read_text())
    for row in table["formats"]:
        if row["format"] != "onnx-int8":
            assert row["top1"] == pytest.approx(top1()), row["format"]
