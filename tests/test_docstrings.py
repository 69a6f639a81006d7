"""The first line of every public docstring begins with a verb: it says what is done, before anything else is read."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from trees import _trees_are_let_go, parsed  # noqa: F401 - the fixture is of all tests here

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


def without_a_verb(text: str, contracts: Collection[str] = ()) -> list[str]:
    """What is public in the text of a module, and has no docstring that begins with a verb.

    A method that a base class describes, whose names are in `contracts`, needs none.
    """
    tree = parsed(text)
    derived = {node.name for node in tree.body if isinstance(node, ast.ClassDef) and node.bases}
    described = {
        name for name, _ in public(tree) if name.partition(".")[0] in derived and name.split(".")[-1] in contracts
    }
    found = ((name, ast.get_docstring(node), isinstance(node, ast.FunctionDef)) for name, node in public(tree))
    return [
        name
        for name, docstring, called in found
        if not begins_with_a_verb(docstring, called) and not (docstring is None and name in described)
    ]


HEADS = (METHODS, ROOT / "pipeline/models/architectures")
"""Rooms whose contract, or whose heads with formulas, explain parameters once for all of their files."""


def docstrings_of_contracts(texts: Iterable[str]) -> dict[str, str]:
    """What protocols and base classes say of a method, by the method's name."""
    classes = {n.name: n for text in texts for n in parsed(text).body if isinstance(n, ast.ClassDef)}
    named = {base.id for node in classes.values() for base in node.bases if isinstance(base, ast.Name)}
    found: dict[str, str] = {}
    for name, node in classes.items():
        if name in named or any("Protocol" in ast.unparse(base) for base in node.bases):
            for member in node.body:
                if isinstance(member, ast.FunctionDef):
                    found[member.name] = f"{found.get(member.name, '')} {ast.get_docstring(member) or ''}"
    return found


def is_command(node: ast.FunctionDef) -> bool:
    """Whether click made it a command or a group of them."""
    return any(re.search(r"\.(command|group)\b", ast.unparse(decorator)) for decorator in node.decorator_list)


def parameters_without_a_word(text: str, contracts: Mapping[str, str]) -> list[str]:
    """`function: parameter` for each parameter of what is public that no docstring names.

    A docstring of the function, of its class, or of a contract with a method of its name does. Options of commands have
    a help of their own.
    """
    found, tree = [], parsed(text)
    owners = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    for name, node in public(tree):
        if not isinstance(node, ast.FunctionDef) or is_command(node):
            continue
        owner = owners.get(name.partition(".")[0])
        said = " ".join((ast.get_docstring(node) or "", ast.get_docstring(owner) or "" if owner else ""))
        said += contracts.get(node.name, "")
        args = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        for arg in args:
            open_to_users = arg.arg not in ("self", "cls") and not arg.arg.startswith("_")
            if open_to_users and not re.search(rf"\b{arg.arg}\b", said):
                found.append(f"{name}: {arg.arg}")
    return found


def parameters_within_prose(text: str) -> list[str]:
    """`function: parameter` for each parameter of what is public that is explained, as `name: text`, but not in a line
    of its own below `Args:`."""
    found = []
    for name, node in public(parsed(text)):
        functions = [node] if isinstance(node, ast.FunctionDef) else []
        if isinstance(node, ast.ClassDef):
            functions = [member for member in node.body if getattr(member, "name", "") == "__init__"]
        args = {
            arg.arg for each in functions for arg in [*each.args.posonlyargs, *each.args.args, *each.args.kwonlyargs]
        }
        fields = node.body if isinstance(node, ast.ClassDef) else []
        args |= {field.target.id for field in fields if isinstance(field, ast.AnnAssign)}
        said = re.sub(r"`[^`]*`", "", ast.get_docstring(node) or "")
        said = re.sub(
            r"^(Args|Attributes):\n(    .*\n?)+", lambda lines: within(lines.group()), said, flags=re.MULTILINE
        )
        entries = re.findall(r"(?:^|(?<=[.)]) )(\w+)(?:, \w+)*: ", " ".join(said.split("\n")))
        entries += re.findall(r"^(?:(?:Args|Attributes): )?(\w+)(?:, \w+)*: ", said, flags=re.MULTILINE)
        found += [f"{name}: {entry}" for entry in dict.fromkeys(entries) if entry in args]
    return found


def within(block: str) -> str:
    """What stands in a block `Args:`, without its names."""
    return re.sub(r"^    \w+(, \w+)*: ", "    - ", block, flags=re.MULTILINE)


def test_each_parameter_has_a_line_of_its_own() -> None:
    files = [*ROOT.glob("pipeline/**/*.py"), *ROOT.glob("stages/*.py")]
    held = [path for path in files if not set(HEADS) & set(path.parents)]
    found = {path.relative_to(ROOT).as_posix(): parameters_within_prose(path.read_text()) for path in held}
    assert {path: names for path, names in found.items() if names} == {}


def test_a_parameter_within_prose_is_found() -> None:
    head = 'def f(count, path):\n    """Read it.'
    assert parameters_within_prose(f'{head} count: of it. path: of the file."""') == ["f: count", "f: path"]
    assert parameters_within_prose(f'{head}\n\n    count: of it.\n    """') == ["f: count"]
    assert parameters_within_prose(f'{head}\n\n    Args:\n        count: of it. path: a file.\n    """') == ["f: path"]
    assert parameters_within_prose(f'{head}\n\n    Args:\n        count: of it.\n        path: of it.\n    """') == []


def test_every_parameter_is_named_in_a_docstring() -> None:
    files = [*ROOT.glob("pipeline/**/*.py"), *ROOT.glob("stages/*.py")]
    texts = {path: path.read_text() for path in files}
    contracts = docstrings_of_contracts(texts.values())
    held = {path: text for path, text in texts.items() if not set(HEADS) & set(path.parents)}
    found = {path: parameters_without_a_word(text, contracts) for path, text in held.items()}
    assert {path.relative_to(ROOT).as_posix(): names for path, names in found.items() if names} == {}


def test_a_parameter_without_a_word_is_found() -> None:
    text = 'class A:\n    """count: of it."""\n    def read(self, count, path, other):\n        """Read path."""\n'
    assert parameters_without_a_word(text, {}) == ["A.read: other"]
    assert parameters_without_a_word(text, {"read": "other: what else."}) == []
    base = 'class B(Protocol):\n    def read(self, other):\n        """other: what else."""\n'
    assert docstrings_of_contracts([base]) == {"read": " other: what else."}


def test_first_lines_begin_with_a_verb() -> None:
    files = [*ROOT.glob("pipeline/**/*.py"), *ROOT.glob("stages/*.py")]
    texts = {path: path.read_text() for path in files if METHODS not in path.parents}
    contracts = docstrings_of_contracts(texts.values())
    found = {path: without_a_verb(text, contracts) for path, text in texts.items()}
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
    derived = '"""Reads."""\nclass A(B):\n    """Holds."""\n    def b(self): ...\n    def c(self): ...\n'
    assert without_a_verb(derived, ["b"]) == ["A.c"]
    assert without_a_verb(derived.replace("(B)", ""), ["b"]) == ["A.b", "A.c"]
    assert without_a_verb('"""Whether it is so."""\ndef a():\n    """`b` is given."""\n') == ["module", "a"]
