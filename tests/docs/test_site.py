"""The site of the pages: all are in its navigation, the reference has all sections, and it builds without warnings."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from pipeline.experiment.source import SECTIONS
from pipeline.training.config import TrainConfig

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def conf() -> ModuleType:
    spec = importlib.util.spec_from_file_location("conf", DOCS / "conf.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def entries(index: str) -> list[str]:
    """The pages that the tables of contents of `docs/index.md` name."""
    tables = re.findall(r"```\{toctree\}\n(.*?)```", index, re.DOTALL)
    return [line for table in tables for line in table.splitlines() if line and not line.startswith(":")]


def pages() -> list[str]:
    found = [*DOCS.glob("*.md"), *DOCS.glob("reference/*.md")]
    return sorted(path.relative_to(DOCS).with_suffix("").as_posix() for path in found)


def test_every_page_is_in_the_navigation_once():
    assert sorted(entries((DOCS / "index.md").read_text())) == [page for page in pages() if page != "index"]


def test_the_reference_has_every_section():
    page = (DOCS / "reference/configuration.md").read_text()
    assert re.findall(r"^## `(\w+)`$", page, re.MULTILINE) == list(SECTIONS)


def test_every_extra_is_on_the_page_that_says_how_to_install():
    project = tomllib.loads((DOCS.parent / "pyproject.toml").read_text())["project"]
    table = re.findall(r"^\| (`.+?) \| ", (DOCS / "install.md").read_text(), re.MULTILINE)
    assert {name for cell in table for name in re.findall("`([^`]+)`", cell)} == set(project["optional-dependencies"])


def test_docstrings_in_the_language_of_sphinx(conf: ModuleType):
    lines = ["Say `a` and a * b.", "", "    L = |x|", "", "Args:", "    x: of `|y|`, *z.", "    y: B.", "", "More."]
    expected = """\
Say ``a`` and a \\* b.

::

    L = |x|

Args:
    x: of ``|y|``, \\*z.
    y: \\B.

More."""
    assert "\n".join(conf.as_restructured_text(lines)) == expected


def test_a_section_is_shown_by_keys_and_defaults(conf: ModuleType):
    shown = conf.keys_and_defaults(TrainConfig)
    assert "epochs=60, batch_size=128" in shown
    assert "Annotated" not in shown


def test_the_help_of_a_command_has_its_examples_as_code(conf: ModuleType):
    lines = ["Train, with --b or `a --c`.", "", "| Examples:", "|   pipeline a --b", "|   pipeline c", "", "More."]
    code = ["", "::", "", "  pipeline a --b", "  pipeline c", ""]
    assert list(conf.with_blocks_of_code(lines)) == [
        "Train, with ``--b`` or `a --c`.",
        "",
        "Examples:",
        *code,
        "",
        "More.",
    ]


@pytest.mark.long
def test_it_builds_without_a_warning(tmp_path: Path):
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", str(DOCS), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "index.html").exists()
    assert "pipeline train-student" in (tmp_path / "reference/cli.html").read_text()
