"""The first line of every public docstring begins with a verb: it says what is done, before anything else is read."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

METHODS = ROOT / "pipeline/objectives/methods"
"""Files that are not held to the rule: the head of a method is a citation with a formula."""

NO_VERBS = (
    "A All An Any As At By Each Every For From How If In It Its No None Not Nothing Of On One Some Such That The Their "
    "These They This Those To Two What When Where Whether Which Who Whose With Without"
)
"""Words that a first line must not begin with."""

IMPERATIVES_IN_S = frozenset({"Address", "Compress", "Discuss", "Dismiss", "Express", "Pass", "Press", "Process"})
"""Verbs whose imperative ends as a third person does."""

NOUNS_IN_S = (
    "Architectures Blocks Channels Cells Colours Directions Epochs Exits Identities Images Intervals Layers Levels "
    "Models Networks Options Outputs Rows Sections Settings Signals Sines Students Tables Teachers Terms Values Views"
)
"""Nouns whose plural ends as a third person does."""

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def public(tree: ast.Module) -> Iterator[tuple[str, Documented]]:
    """The module, its public classes and functions, and the public methods of these classes."""
    yield "module", tree
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield node.name, node
            for member in node.body if isinstance(node, ast.ClassDef) else []:
                if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef) and not member.name.startswith("_"):
                    yield f"{node.name}.{member.name}", member


def begins_with_a_verb(text: str | None, called: bool) -> bool:
    """Third person for modules and classes (`Reads`), imperative for what is called (`Read`)."""
    word = (text or "").split(maxsplit=1)[0].rstrip(".,:;") if text else ""
    if not word[:1].isupper() or not word.isalpha() or word in NO_VERBS.split() or word in NOUNS_IN_S.split():
        return False
    if not called and re.match(r"\w+(:| of\b| that (?:are|is|have|has|come)\b)", text or ""):
        return False  # `Shares of two images` and `Filters that are` begin with nouns
    third_person = word.endswith("s") and word not in IMPERATIVES_IN_S
    return third_person is not called


def without_a_verb(text: str) -> list[str]:
    """What is public in the text of a module, and has no docstring that begins with a verb."""
    return [
        name
        for name, node in public(ast.parse(text))
        if not begins_with_a_verb(ast.get_docstring(node), isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    ]


def test_first_lines_begin_with_a_verb() -> None:
    files = [*ROOT.glob("pipeline/**/*.py"), *ROOT.glob("stages/*.py")]
    found = {path: without_a_verb(path.read_text()) for path in files if METHODS not in path.parents}
    assert len(found) > 200
    assert {path.relative_to(ROOT).as_posix(): names for path, names in found.items() if names} == {}


def test_what_has_no_verb_is_found() -> None:
    good = (
        '"""Reads."""\nclass A:\n    """Holds."""\n    def b(self):\n        """Return it."""\n    def _c(self): ...\n'
    )
    assert without_a_verb(good) == []
    bad = '"""The reader."""\nclass A:\n    """Hold."""\n    def b(self):\n        """Returns it."""\ndef c(): ...\n'
    assert without_a_verb(bad) == ["module", "A", "A.b", "c"]
    nouns = '"""Models: of timm."""\nclass A:\n    """Shares of images."""\nclass B:\n    """Filters that are odd."""\n'
    assert without_a_verb(nouns) == ["module", "A", "B"]
    assert without_a_verb('"""Whether it is so."""\ndef a():\n    """`b` is given."""\n') == ["module", "a"]
