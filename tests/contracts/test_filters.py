"""What every low-pass filter must do; finds each file of pipeline/signals/filters by itself."""

from __future__ import annotations

import pytest

from pipeline import plugins
from pipeline.contracts.checks import checks_of
from pipeline.contracts.filters import FilterContract


@pytest.mark.parametrize("check", checks_of(FilterContract))
@pytest.mark.parametrize("name", plugins.names("pipeline.signals.filters"))
def test_contract(name: str, check: str) -> None:
    """What `pipeline contract` tries."""
    getattr(FilterContract(name), check)()
