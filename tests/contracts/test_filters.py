"""What every low-pass filter must do; finds each file of pipeline/signals/filters by itself."""

from __future__ import annotations

import pytest
from contracts.keeping import require_kept

from pipeline import plugins
from pipeline.contracts.filters import FilterContract


@pytest.mark.parametrize("name", plugins.names("pipeline.signals.filters"))
def test_contract(name: str) -> None:
    """What `pipeline contract` tries."""
    require_kept(FilterContract(name))
