"""One name for one thing: no public function, class or constant is defined twice in the package."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLUGINS = (
    "pipeline/data/sources/",
    "pipeline/models/kinds/",
    "pipeline/objectives/methods/",
    "pipeline/signals/extras/",
    "pipeline/signals/filters/",
    "pipeline/store/encodings/",
    "pipeline/views/operations/",
    "stages/",
)
"""Rooms whose files all have the same contract: what it names is there in each of them."""

CONTRACT = {"build", "default_cfgs", "expects", "extract", "lowpass", "matches", "open_source", "reads", "run"}
CONTRACT |= {"Inputs", "Options", "SIGNALS"}
"""What plug-ins, stages and commands define, and the functions of the same name that call them."""


def public_names(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


def defined_twice(sources: dict[str, str]) -> dict[str, list[str]]:
    """The names that several files define, with the files. sources: by path."""
    homes: dict[str, list[str]] = defaultdict(list)
    for path, text in sources.items():
        for name in public_names(ast.parse(text)):
            own = path.startswith(PLUGINS) and name.isupper()  # a method's own constant, such as an epsilon
            if not name.startswith("_") and name not in CONTRACT and not own:
                homes[name].append(path)
    return {name: paths for name, paths in homes.items() if len(paths) > 1}


def test_no_public_name_is_defined_twice() -> None:
    files = [*ROOT.glob("pipeline/**/*.py"), *ROOT.glob("stages/*.py")]
    assert defined_twice({path.relative_to(ROOT).as_posix(): path.read_text() for path in files}) == {}


def test_a_name_that_is_defined_twice_is_found() -> None:
    found = defined_twice({"pipeline/a.py": "LIMIT = 1\nclass A: ...", "pipeline/b.py": "LIMIT: int = 2\ndef b(): ..."})
    assert found == {"LIMIT": ["pipeline/a.py", "pipeline/b.py"]}
