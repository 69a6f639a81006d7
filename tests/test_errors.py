"""What messages quote of other errors."""

from __future__ import annotations

import pytest

from pipeline.errors import first_line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one"), "one"),
        (OSError("one\ntwo"), "one"),
        (KeyError(), "KeyError"),
        (TimeoutError(""), "TimeoutError"),
    ],
)
def test_an_error_is_quoted_by_its_first_line_or_its_type(error: Exception, line: str) -> None:
    assert first_line(error) == line
