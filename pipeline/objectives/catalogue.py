"""Describes methods before they are used, from their files.

What a method needs follows from how it is built, which takes torch, and some seconds. So the files of Decant's own say
it in a constant `READS` as well, which is read without running them, and a test builds each and compares. Of a file
without it, and of methods that installed packages bring, the code is run.
"""

from __future__ import annotations

import ast
import importlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic_core import PydanticUndefined

from pipeline import plugins
from pipeline.objectives.config import METHODS

_CLASSES = 4
_MAPS = {"block1": (8, 4, 4), "block2": (8, 4, 4)}
_VIEWS = 8


@dataclass(frozen=True)
class Method:
    """Describes one method.

    Args:
        summary: the first line of its documentation, all of which is `text`.
        needs: what it reads of the teacher with its default options, as kinds of signals: `logits`, `embedding`,
            `head`, `features`, `extras`; and `labels`, `2 views of each sample`, `neighbours of each sample`.
        options: their defaults by name.
    """

    name: str
    summary: str
    text: str
    needs: tuple[str, ...]
    options: dict[str, Any]


def list_methods() -> list[Method]:
    """Describe every method, by name."""
    return [method(name) for name in plugins.names(METHODS)]


def method(name: str) -> Method:
    """Describe the method `name`. Raises ConfigError, with the nearest known name, if there is none."""
    return _read(name) or built_method(name)


def built_method(name: str) -> Method:
    """Describe the method `name` by running its code, with torch. Raises ConfigError as `method` does."""
    module = plugins.load(METHODS, name, "method")
    return _described(name, module.__doc__, _needs(name), _options(module))


def _described(name: str, documentation: str | None, needs: tuple[str, ...], options: dict[str, Any]) -> Method:
    text = (documentation or "").strip()
    return Method(name, text.partition("\n")[0], text, needs, options)


def _read(name: str) -> Method | None:
    """Describe a method by the text of its file; None where that does not say all."""
    folder = Path(importlib.import_module(METHODS).__path__[0])
    file = folder / f"{name.replace('-', '_')}.py"
    if not file.is_file():
        return None
    code = ast.parse(file.read_bytes())
    try:
        needs, options = _written_needs(code), _written_options(code)
    except ValueError:
        return None
    return _described(name, ast.get_docstring(code), needs, options) if needs is not None else None


def _written_needs(code: ast.Module) -> tuple[str, ...] | None:
    """Return what a file says that it reads; None if it does not say. Raises ValueError for what only running it tells.

    Args:
        code: of the file, parsed.
    """
    for node in code.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if [ast.unparse(each) for each in targets] == ["READS"]:
                return tuple(map(str, ast.literal_eval(node.value)))
    return None


def _written_options(code: ast.Module) -> dict[str, Any]:
    """Return the options that a file declares, with their defaults. Raises ValueError for what only running it tells.

    Args:
        code: of the file, parsed.
    """
    found: dict[str, Any] = {}
    for options in (node for node in code.body if isinstance(node, ast.ClassDef) and node.name == "Options"):
        if [ast.unparse(base) for base in options.bases] != ["Section"]:
            raise ValueError("the options of another class are among them")
        for node in options.body:
            if isinstance(node, ast.AnnAssign) and "ClassVar" not in ast.unparse(node.annotation):
                found[ast.unparse(node.target)] = _default(node.value)
    return found


def _default(value: ast.expr | None) -> Any:
    """Return the value of a default such as `4.0` or `Field(4.0, gt=0)`; None where there is none."""
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "Field":
        value = value.args[0] if value.args else None
    if value is None:
        return None
    if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Div):  # such as 1 / 1000
        return _default(value.left) / _default(value.right)
    return ast.literal_eval(value)


def _needs(name: str) -> tuple[str, ...]:
    """Of the objective, built for two networks that have everything."""
    import torch

    from pipeline.objectives.base import Context, build_objective
    from pipeline.signals import SignalShapes

    shapes = SignalShapes(_CLASSES, 8, _MAPS, linear=True)
    labels = torch.arange(2 * _CLASSES) % _CLASSES
    with torch.random.fork_rng(devices=[]):
        context = Context(len(labels), _CLASSES, labels, views_per_step=_VIEWS)
        needs = build_objective(name, {}, shapes, shapes, context).needs
    kinds = {signal.partition("/")[0] for signal in needs.teacher}
    views = (f"{needs.views} views of each sample",) if needs.views > 1 else ()
    near = ("neighbours of each sample",) if needs.neighbours else ()
    return (*sorted(kinds), *(("labels",) if needs.labels else ()), *views, *near)


def _options(module: ModuleType) -> dict[str, Any]:
    fields = module.Options.model_fields
    return {name: None if field.default is PydanticUndefined else field.default for name, field in fields.items()}
