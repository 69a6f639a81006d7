"""`import pipeline` is quick: it loads nothing of its own but the names, and no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pipeline
import pipeline.api

ROOT = Path(__file__).resolve().parents[2]


def test_importing_the_package_loads_neither_torch_nor_anything_else() -> None:
    code = (
        "import sys\n"
        "before = set(sys.modules)\n"
        "import pipeline\n"
        "dir(pipeline)\n"
        "more = {name.split('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)\n"
        "assert more == {'pipeline'}, more\n"
        "assert [name for name in sys.modules if name.startswith('pipeline.')] == []\n"
        "sys.modules['torch'] = None\n"  # where it is used, and not before, it is missed
        "try:\n"
        "    pipeline.make_views\n"
        "    raise AssertionError('torch was not asked for')\n"
        "except ImportError as error:\n"
        "    assert 'torch' in str(error), error\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_every_name_is_there_and_listed() -> None:
    assert pipeline.__all__ == pipeline.api.__all__
    for name in pipeline.__all__:
        assert getattr(pipeline, name) is getattr(pipeline.api, name)
        assert name in dir(pipeline)
    with pytest.raises(AttributeError, match="no attribute 'cache_teachers'"):
        _ = pipeline.cache_teachers


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse((ROOT / "pipeline/__init__.py").read_text())
    imported = [
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "pipeline.api"
        for alias in node.names
    ]
    assert imported == pipeline.__all__
