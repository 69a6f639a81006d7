from __future__ import annotations

import subprocess
import sys

import pytest

import pipeline.evaluation


def test_every_public_name_is_there() -> None:
    for name in pipeline.evaluation.__all__:
        assert getattr(pipeline.evaluation, name).__module__.startswith("pipeline.evaluation.")
    with pytest.raises(AttributeError, match="no attribute 'measur'"):
        pipeline.evaluation.measur  # type: ignore[attr-defined]  # noqa: B018


def test_measuring_does_not_depend_on_the_report() -> None:
    """Else DVC would rerun every student when the report changes."""
    code = (
        "import sys; from pipeline.evaluation import measure, predict;"
        "print(*[m for m in sys.modules if m.startswith(('pipeline.evaluation.', 'matplotlib', 'jinja2.'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {"pipeline.evaluation.metrics", "pipeline.evaluation.prediction"}
