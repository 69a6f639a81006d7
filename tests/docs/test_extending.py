"""Every example of docs/extending.md, written into its folder, passes the contract suite of its kind.

The folders are extended, not written to, in a process of its own.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from processes import output_of
from test_docstrings import METHODS, ROOT, docstrings_of_contracts, without_a_verb

from pipeline import make_views
from pipeline.contracts.named import trials
from pipeline.signals import extract
from pipeline.signals.lowpass import lowpass
from pipeline.views import build_views

PAGE = (ROOT / "docs/extending.md").read_text()
WRITTEN = dict(re.findall(r"```python\n# (\S+)\n(.*?)```", PAGE, re.DOTALL))
"""The text of each example, by its path in the repository."""

OWN = WRITTEN.pop("grain.py")
"""The text of the example that lies outside of it."""

OWN_MAPS = WRITTEN.pop("maps.py")
"""The same of a filter and of an extra signal."""

EXAMPLES = {path: text for path, text in WRITTEN.items() if path != "pipeline/store/nearby/backend.py"}
"""All but a backend: tests/store/test_backends.py runs its suite on it."""

KINDS = {
    "pipeline/data/sources": "test_sources",
    "pipeline/views/operations": "test_views",
    "pipeline/objectives/methods": "test_objectives",
    "pipeline/store/encodings": "test_encodings",
    "pipeline/signals/filters": "test_filters",
    "pipeline/signals/extras": "test_extras",
    "pipeline/models/architectures": "test_architectures",
}
"""The suite of each kind, by its folder."""


def run_contracts(folder: Path, names: list[str]) -> None:
    """Run what the suites have for these plug-ins, with `folder` added to the search path of each package in it."""
    for place in sorted({path.parent for path in folder.glob("pipeline/**/*.py")}):
        package = importlib.import_module(".".join(place.relative_to(folder).parts))
        package.__path__.append(str(place))
    suites = [str(ROOT / f"tests/contracts/{suite}.py") for suite in KINDS.values()]
    # What the process imported before is not what this is about.
    quiet = ("-W", "ignore::pytest.PytestAssertRewriteWarning")
    how = ("-q", *quiet, "-p", "no:xdist", "-p", "no:cacheprovider", "--rootdir", str(ROOT))
    sys.exit(pytest.main([*how, "-k", " or ".join(names), "--junitxml", str(folder / "found.xml"), *suites]))


def test_there_is_one_example_of_each_kind() -> None:
    assert sorted(Path(path).parent.as_posix() for path in EXAMPLES) == sorted(KINDS)
    for folder, suite in KINDS.items():
        assert f"`{folder}/`" in PAGE
        assert f"`{suite}.py`" in PAGE


def test_docstrings_of_the_examples_follow_the_rule_of_those_of_the_package() -> None:
    held = {path: text for path, text in EXAMPLES.items() if (ROOT / path).parent != METHODS}
    assert len(held) == len(KINDS) - 1
    contracts = docstrings_of_contracts(path.read_text() for path in ROOT.glob("pipeline/**/*.py"))
    found = {path: without_a_verb(text, contracts) for path, text in held.items()}
    assert {path: names for path, names in found.items() if names} == {}


def test_examples_have_at_most_twenty_lines() -> None:
    texts = {**WRITTEN, "maps.py": OWN_MAPS}
    lines = {path: sum(bool(line.strip()) for line in text.splitlines()) for path, text in texts.items()}
    assert {path: count for path, count in lines.items() if count > 20} == {}


def test_the_example_of_ones_own_does_what_it_says(own: Path) -> None:
    (own / "own_grain.py").write_text(OWN)
    assert without_a_verb(OWN) == []
    images = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).repeat(200, 1, 1, 1)
    chosen = build_views(make_views({"name": "own_grain:Grain", "most": 12}), (16, 16))
    parameters = chosen.parameters(0, np.arange(200))
    assert set(parameters[:, 0]) == set(range(-12, 13))
    expected = np.clip(images.numpy().astype(int) + parameters[:, 0, None, None, None], 0, 255)
    assert np.array_equal(chosen.apply(images, parameters).numpy(), expected)


def test_the_examples_of_ones_own_filter_and_extra_signal_keep_their_contracts(own: Path) -> None:
    (own / "own_maps.py").write_text(OWN_MAPS)
    assert without_a_verb(OWN_MAPS) == []
    tried = [*trials("own_maps:overlapping", []), *trials("own_maps:spread", [])]
    assert [each.title for each in tried] == ["filter own_maps:overlapping", "extra signal own_maps:spread"]
    assert [found for each in tried for found in each.outcomes() if not found.held] == []
    maps = torch.tensor([[[[1.0, 3.0], [5.0, 7.0]]]])
    assert extract("own_maps:spread", maps).tolist() == [[5.0]]
    assert lowpass(maps, 1, "own_maps:overlapping").item() == 4


def test_no_example_has_the_name_of_a_plugin_that_there_is() -> None:
    assert not [path for path in EXAMPLES if (ROOT / path).exists()]


def test_files_that_the_page_names_exist() -> None:
    named = re.findall(r"`((?:pipeline|tests)/[a-z_/]+(?:\.py)?)`", PAGE)
    assert len(named) > 10
    assert not [path for path in named if not (ROOT / path).exists()]


def test_every_example_passes_the_contract_of_its_kind(tmp_path: Path) -> None:
    for path, text in EXAMPLES.items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    names = {Path(path).stem.replace("_", "-"): KINDS[Path(path).parent.as_posix()] for path in EXAMPLES}
    output_of(run_contracts, tmp_path, list(names), log=tmp_path / "log")
    ran: Counter[str] = Counter()
    for case in ElementTree.parse(tmp_path / "found.xml").iter("testcase"):
        for name, suite in names.items():
            ran[name] += name in case.attrib["name"] and suite in case.attrib["classname"] and len(case) == 0
    assert min(ran.values()) >= 1, ran  # a contract is one test, which tries all of its checks
