"""Nothing public is defined twice in the package, and names say what kind of thing they name."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from trees import _trees_are_let_go, parsed  # noqa: F401 - the fixture is of all tests here

ROOT = Path(__file__).resolve().parents[1]
PLUGINS = (
    "pipeline/data/sources/",
    "pipeline/models/kinds/",
    "pipeline/objectives/methods/",
    "pipeline/shipping/formats/",
    "pipeline/signals/extras/",
    "pipeline/signals/filters/",
    "pipeline/store/encodings/",
    "pipeline/views/operations/",
    "stages/",
)
"""Rooms whose files all have the same contract: what it names is there in each of them."""

CONTRACT = {
    "build",
    "default_cfgs",
    "expects",
    "extract",
    "known_classes",
    "lowpass",
    "matches",
    "open_source",
    "reads",
    "run",
}
CONTRACT |= {"Inputs", "Options", "SIGNALS", "load_runner", "open_tracker", "refusal", "write"}
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
        for name in public_names(parsed(text)):
            own = path.startswith(PLUGINS) and name.isupper()  # a method's own constant, such as an epsilon
            if not name.startswith("_") and name not in CONTRACT and not own:
                homes[name].append(path)
    return {name: paths for name, paths in homes.items() if len(paths) > 1}


NO_SENTENCES = ("_CODE", "COMMAND", "_PATTERN", "_TEMPLATE")
"""How constants end that are text of several words, and not for users to read as it is."""


CHECKS = ("assert", "check", "ensure", "validate", "verify")
"""First words of functions that look whether something is so."""


def python_files() -> dict[str, str]:
    """The text of each file of the package and the stages, by its path in the repository."""
    files = [*ROOT.glob("pipeline/**/*.py"), *ROOT.glob("stages/*.py")]
    return {path.relative_to(ROOT).as_posix(): path.read_text() for path in files}


def named_otherwise_than_they_raise(text: str) -> list[str]:
    """Functions whose job is to raise, and that are not called `refuse_...` or `require_...`.

    These return nothing, and raise or say so; and they are called `check_...` or the like, or begin with `Raise`.
    """
    found = []
    for node in ast.walk(parsed(text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        doc, name = ast.get_docstring(node) or "", node.name.lstrip("_")
        returns_nothing = isinstance(node.returns, ast.Constant) and node.returns.value is None
        checks = name.partition("_")[0] in CHECKS or doc.startswith("Raise")
        if not returns_nothing or not checks or name.startswith(("refuse", "require")):
            continue  # most: what they raise need not be looked for
        if "Raise" in doc or any(isinstance(inner, ast.Raise) for inner in ast.walk(node)):
            found.append(node.name)
    return found


def sentences_without_hint(text: str) -> list[str]:
    """Constants of a module that are text of at least four words, and whose name does not end in `_HINT`."""
    found = []
    for node in parsed(text).body:
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        parts = [part.value for part in ast.walk(node.value) if isinstance(part, ast.Constant)]
        is_text = isinstance(node.value, ast.Constant | ast.JoinedStr | ast.BinOp)
        for name in public_names(ast.Module([node], [])):
            sentence = is_text and sum(str(part).count(" ") for part in parts) >= 3
            if sentence and name.isupper() and not name.endswith(("_HINT", *NO_SENTENCES)):
                found.append(name)
    return found


def test_what_raises_is_called_refuse_or_require() -> None:
    found = {path: named_otherwise_than_they_raise(text) for path, text in python_files().items()}
    assert len(found) > 200
    # The command `verify` raises what its arguments have wrong, and prints what it found.
    assert {path: names for path, names in found.items() if names} == {"pipeline/commands/caches.py": ["verify"]}


def test_constants_that_are_sentences_end_in_hint() -> None:
    found = {path: sentences_without_hint(text) for path, text in python_files().items()}
    assert {path: names for path, names in found.items() if names} == {}


def test_names_that_say_something_else_are_found() -> None:
    checks = "def check_given(ids) -> None:\n    raise ValueError\ndef check_all() -> int:\n    raise ValueError\n"
    assert named_otherwise_than_they_raise(checks) == ["check_given"]
    assert named_otherwise_than_they_raise('def look() -> None:\n    """Raise ValueError for it."""') == ["look"]
    assert named_otherwise_than_they_raise("def refuse_ids(ids) -> None:\n    raise ValueError") == []
    constants = "A = 'make it once more'\nB_HINT = A + ' or do not do so'\n_C: str = f'give {A} to it'\nD = 'a b c'\n"
    assert sentences_without_hint(constants) == ["A", "_C"]


def test_no_public_name_is_defined_twice() -> None:
    assert defined_twice(python_files()) == {}


def test_a_name_that_is_defined_twice_is_found() -> None:
    found = defined_twice({"pipeline/a.py": "LIMIT = 1\nclass A: ...", "pipeline/b.py": "LIMIT: int = 2\ndef b(): ..."})
    assert found == {"LIMIT": ["pipeline/a.py", "pipeline/b.py"]}
