"""What every operation must keep, found by its file: a new one is tested here without a line of its own.

The checks are those of `pipeline contract`. Operations that mix two images are tested in `test_mixing.py`.
"""

from __future__ import annotations

import inspect
from typing import Any, get_type_hints

import pytest
from contracts.keeping import require_kept

from pipeline import plugins
from pipeline.contracts.operations import OperationContract, variants
from pipeline.views import MixingOperation, OperationOptions

PACKAGE = "pipeline.views.operations"
SIZE = (32, 40)


def options_of(name: str) -> type[OperationOptions]:
    options: type[OperationOptions] = plugins.load(PACKAGE, name, "name").Options
    return options


def mixes(name: str) -> bool:
    """Whether the operation mixes two images."""
    module = plugins.load(PACKAGE, name, "name")
    return isinstance(module.build(module.Options.model_validate(next(variants(name)))), MixingOperation)


def cases(mixing: bool = False) -> list[Any]:
    """Every operation with the first example of each required option, then with each further example.

    mixing: those that mix two images; else all others.
    """
    found = []
    for variant in (each for name in plugins.names(PACKAGE) if mixes(name) == mixing for each in variants(name)):
        text = ",".join(f"{key}={value}" for key, value in variant.items() if key != "name")
        found.append(pytest.param(variant, id=f"{variant['name']}({text})"))
    return found


@pytest.fixture(params=cases())
def operation(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = request.param
    return found


def test_name_is_the_file(operation: dict[str, Any]) -> None:
    options = options_of(operation["name"])
    assert options.model_validate(operation).name == operation["name"]
    assert options.model_fields["name"].default == operation["name"]


def test_contract(operation: dict[str, Any]) -> None:
    require_kept(OperationContract(operation), ["a_gpu_makes_the_same_pixels"])


def test_the_docstring_of_its_class_says_what_every_column_is(operation: dict[str, Any]) -> None:
    """It is what docs/cache-format.md says: `python docs/list_operations.py`."""
    built = plugins.load(PACKAGE, operation["name"], "name").build(options_of(operation["name"])(**operation))
    said = inspect.getdoc(type(built)) or ""
    assert not said.startswith(f"{type(built).__name__}("), "a dataclass without a docstring"
    assert [name for name in built.parameter_names if f"`{name}`" not in said] == []
    assert get_type_hints(plugins.load(PACKAGE, operation["name"], "name").build)["return"] is type(built)
