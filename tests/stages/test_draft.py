from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import ConfigError, DataError, ModelError, Problem
from pipeline.planning.draft import Draft, NotValid, collected
from pipeline.store.config import StoreConfig
from pipeline.views import ViewsConfig


def test_only_the_sections_that_are_valid_can_be_read():
    draft = Draft.of({"store": StoreConfig(path=Path("x.zarr")), "students": {}})
    assert draft.store.path == Path("x.zarr")
    assert draft.students == {}
    for name in set(Draft.model_fields) - {"store", "students"}:  # not even those that have a default
        with pytest.raises(NotValid, match=name):
            getattr(draft, name)
    with pytest.raises(AttributeError, match="no_such_section"):
        _ = draft.no_such_section
    assert Draft.of({"views": ViewsConfig(count=3)}).views.count == 3


def test_what_is_raised_is_collected_and_what_needs_an_invalid_section_ends_quietly():
    problems: list[Problem] = []
    draft, reached = Draft.of({}), []
    with collected(problems):
        reached.append(draft.views)
    with collected(problems, note=" (student vit)"):
        raise ConfigError([Problem("a.b", "is wrong", got="1"), Problem("c", "too")])
    with collected(problems, "data"):
        raise DataError("no file", where="x.h5")
    with collected(problems, "teacher"):
        raise ModelError("no model")
    assert reached == []
    assert problems == [
        Problem("a.b", "is wrong (student vit)", got="1"),
        Problem("c", "too (student vit)"),
        Problem("data", "no file\n  where: x.h5"),
        Problem("teacher", "no model"),
    ]
    with pytest.raises(ZeroDivisionError), collected(problems):
        _ = 1 / 0
