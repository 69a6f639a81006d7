"""The benchmark of store rates still runs: it makes stores by hand, which the readers must take for caches."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

store_rates = pytest.importorskip("store_rates")


@pytest.mark.long
def test_it_measures_what_it_says(tmp_path: Path):
    result = CliRunner().invoke(store_rates.main, ["--samples", "4096", "--rounds", "1", "--folder", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "TeacherCache" in result.output
