"""What every extra signal must do; finds each file of pipeline/signals/extras by itself."""

from __future__ import annotations

import pytest
import torch
from contracts.keeping import require_kept

from pipeline import plugins
from pipeline.contracts.extras import ExtraContract
from pipeline.errors import ConfigError
from pipeline.signals import extract, maps_read, taps_read
from pipeline.signals.extra import EXTRAS

TAPS = ("block1", "block2", "block3", "final", "embedding", "logits")
pytestmark = pytest.mark.parametrize("name", plugins.names(EXTRAS))


def test_contract(name: str) -> None:
    """What `pipeline contract` tries."""
    require_kept(ExtraContract(name))


def test_it_is_read_at_a_tap_and_beyond_it(name: str) -> None:
    count = maps_read(name)
    assert taps_read(f"{name}/block2", TAPS) == ("block2", "block3")[:count]
    assert len(taps_read(f"{name}/block{4 - count}", TAPS)) == count
    wrong = [f"{name}/blok2", f"{name}/logits", name]
    for signal in [*wrong, f"{name}/block3", f"{name}/final"] if maps_read(name) > 1 else wrong:
        with pytest.raises(ConfigError, match=r"signals\.extras: unknown name") as caught:
            taps_read(signal, TAPS)
        assert f"one of {name}/block1" in str(caught.value)


def test_a_name_that_there_is_not(name: str) -> None:
    with pytest.raises(ConfigError, match=f"did you mean '{name}'?"):
        extract(name + "s", torch.ones(1, 2, 4, 4))
