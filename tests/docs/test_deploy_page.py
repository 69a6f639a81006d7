"""The code of docs/deploy.md, as it is written, on photographs: right as often as `evaluate` says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from experiment import one_thread
from PIL import Image

from pipeline.cli import main
from pipeline.experiment.runs import RunName
from pipeline.experiment.source import ConfigFile
from stages import evaluate, prepare_data, train_student

PAGE = (Path(__file__).parents[2] / "docs/deploy.md").read_text()
COLOURS = {"rose": (200, 40, 60), "tulip": (210, 190, 40), "violet": (70, 50, 180)}
CONFIG = """\
data: {path: data.h5, source: {name: image-folder, path: photos, shorter_side: 20}}
teacher: {model: cifar_resnet8, input_size: 8, weights: none.safetensors, mean: [0.4, 0.5, 0.6], std: [0.2, 0.25, 0.3]}
views: {count: 1, operations: [{name: resized-crop, size: 8}]}
evaluate: {operations: [{name: resize, size: 10}, {name: center-crop, size: 8}]}
students:
  vit:
    model: vit_tiny_patch16_224
    input_size: 8
    options: {img_size: 8, patch_size: 4, embed_dim: 24, depth: 1, num_heads: 2, global_pool: avg}
objectives:
  hard: {views: fresh, objectives: [{name: hard-label}]}
train: {epochs: 6, batch_size: 6, precision: float32, device: cpu, optimizer: adamw, learning_rate: 3e-3}
store: {path: cache.zarr}
"""


def photographs(folder: Path) -> None:
    """Write photographs whose colour tells the class of most: upright and turned, of several sizes."""
    turned = Image.Exif()
    turned[0x0112] = 6
    generator = np.random.default_rng(0)
    for split, count in {"train": 8, "test": 8}.items():
        for name, colour in COLOURS.items():
            for number in range(count):
                coarse = np.array(colour) + generator.normal(0, 60, (6, 6, 3))
                size = (int(generator.integers(24, 60)), int(generator.integers(24, 60)))
                image = Image.fromarray(coarse.clip(0, 255).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
                path = folder / f"photos/{split}/{name}/{number}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                image.save(path, exif=turned if number % 2 else Image.Exif())


@pytest.fixture(scope="module")
def flowers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an experiment whose student is evaluated and exported."""
    folder = tmp_path_factory.mktemp("flowers")
    photographs(folder)
    (folder / "flowers.yaml").write_text(CONFIG)
    with pytest.MonkeyPatch.context() as patch, one_thread():
        patch.chdir(folder)
        source = ConfigFile(Path("flowers.yaml"))
        prepare_data.run(source, replace=False)
        train_student.run(source, RunName("vit", "hard", 0), verify="full", replace=False, wait=False)
        evaluate.run(source)
        command = re.search(r"pipeline (export --student vit --objectives hard)", PAGE)
        assert command is not None
        more = ["--config", "flowers.yaml", "--threads", "1", "--format", "timm", "--format", "onnx"]
        shown = CliRunner().invoke(main, [*command.group(1).split(), *more])
        assert shown.exit_code == 0, shown.output
    return folder


def classified(folder: Path, title: str) -> list[str]:
    """What the code of the page says of every test photograph, in a process in which Decant cannot be imported."""
    (code,) = re.findall(rf"```python\n(# {title}\n.*?)```", PAGE, re.DOTALL)
    code = f"import sys\nsys.modules['pipeline'] = None\n{code}\n"
    code += "print([classify(path) for path in sorted(Path('photos/test').glob('*/*.jpg'))])"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    found: list[str] = json.loads(done.stdout.replace("'", '"'))
    return found


@pytest.mark.parametrize("title", ["with timm", "with onnxruntime"])
def test_the_code_of_the_page_is_right_as_often_as_the_evaluation(flowers: Path, title: str):
    (student,) = json.loads((flowers / "artifacts/flowers/evaluation.json").read_text())["students"]
    top1 = student["metrics"]["top1"]
    assert top1 > 0.6  # it has learnt something, so a wrong mean or size would be seen
    truth = [path.parent.name for path in sorted((flowers / "photos/test").glob("*/*.jpg"))]
    assert len(truth) == 24
    right = np.mean([said == name for said, name in zip(classified(flowers, title), truth, strict=True)])
    assert right == pytest.approx(top1)


def test_the_table_says_the_same(flowers: Path):
    folder = flowers / "artifacts/flowers/exports/vit/hard/seed-0"
    table = json.loads((folder / "export.json").read_text())
    (student,) = json.loads((flowers / "artifacts/flowers/evaluation.json").read_text())["students"]
    for row in table["formats"]:
        assert row["top1"] == pytest.approx(student["metrics"]["top1"]), row["format"]
