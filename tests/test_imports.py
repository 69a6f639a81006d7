"""The import law: a room imports only rooms to its left."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
BASE = ["allocator", "errors", "untrusted", "plugins", "files", "progress", "config", "workers"]
ROOMS = ["data", "views", "signals", "models", "store", "objectives", "evaluation", "training"]
ORDER = [*BASE, *ROOMS, "stages", "commands", "cli"]


def room_of(module: str) -> str | None:
    parts = module.split(".")
    if parts[0] == "stages":
        return "stages"
    return parts[1] if parts[0] == "pipeline" and len(parts) > 1 else None


def files() -> list[Path]:
    return sorted([*ROOT.glob("pipeline/**/*.py"), *ROOT.glob("stages/**/*.py")])


@pytest.mark.parametrize("path", files(), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_a_room_imports_only_rooms_to_its_left(path: Path):
    own = room_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
    if own is None:
        return
    for node in ast.walk(ast.parse(path.read_text())):
        modules = []
        if isinstance(node, ast.ImportFrom) and node.module:
            modules = [
                f"{node.module}.{alias.name}" if node.module == "pipeline" else node.module for alias in node.names
            ]
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        for module in modules:
            other = room_of(module)
            if other is None or other == own or (own == "cli" and other == "stages"):
                continue
            assert ORDER.index(other) < ORDER.index(own), f"{own} imports {module}"


@pytest.mark.parametrize("path", files(), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_files_stay_small(path: Path):
    limit = 120 if path.parent.name == "stages" else 300
    assert len(path.read_text().splitlines()) <= limit


def test_help_never_imports_torch():
    code = (
        "import sys\n"
        "from click.testing import CliRunner\n"
        "from pipeline.cli import main\n"
        "for args in [['--help'], *([name, '--help'] for name in main.commands)]:\n"
        "    assert CliRunner().invoke(main, args).exit_code == 0, args\n"
        "heavy = {'torch', 'timm', 'zarr', 'h5py', 'numpy', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_packing_a_folder_of_images_never_imports_torch(tmp_path: Path):
    for name in ("cat", "dog"):
        (tmp_path / "photos" / "train" / name).mkdir(parents=True)
        for size in (4, 5):  # sizes differ: files are stored, and decoded to know that they can be
            Image.new("RGB", (size, 4), "red").save(tmp_path / "photos" / "train" / name / f"{size}.jpg")
    source = "{name: image-folder, path: " + str(tmp_path / "photos") + "}"
    code = (
        "import sys\n"
        "from click.testing import CliRunner\n"
        "from pipeline.cli import main\n"
        "args = ['prepare-data', '--config', 'configs/digits.yaml', '--set', 'data.source=' + sys.argv[1]]\n"
        "for round in 'packs it', 'finds it there':\n"
        "    result = CliRunner().invoke(main, [*args, '--set', 'data.path=' + sys.argv[2]])\n"
        "    assert result.exit_code == 0, result.output\n"
        "assert 'already there' in result.output\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, source, str(tmp_path / "x.h5")], check=True, cwd=ROOT)
