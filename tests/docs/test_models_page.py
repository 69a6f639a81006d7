"""What docs/models.md says of the networks for small images is measured."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from pipeline.measuring.cost import parameters
from pipeline.models.taps import choose_blocks

PAGE = (Path(__file__).resolve().parents[2] / "docs/models.md").read_text()
SAID = {
    match[1]: [cell.strip() for cell in match[2].split("|")]
    for match in re.finditer(r"^\| `(cifar_\w+)` \|([^`\n]*)\|$", PAGE, re.MULTILINE)
}


def test_every_network_of_ours_is_there() -> None:
    assert sorted(SAID) == sorted(timm.list_models("cifar_*"))
    assert set(re.findall(r"`(cifar_\w+)`", PAGE)) == set(SAID)


@pytest.mark.parametrize("name", SAID)
def test_what_it_says_is_so(name: str) -> None:
    with torch.device("meta"):  # without drawing weights
        model = timm.create_model(name, num_classes=100).eval()
    model.to_empty(device="cpu").load_state_dict({key: torch.zeros_like(x) for key, x in model.state_dict().items()})
    images = torch.zeros(1, 3, 32, 32)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(images)
    with torch.no_grad():
        maps = model.forward_intermediates(images, intermediates_only=True)
    blocks = choose_blocks([info["reduction"] for info in model.feature_info])
    macs = f"{counter.get_total_flops() / 2e6:.1f} M"
    sides = ", ".join(str(maps[block].shape[-1]) for block in blocks)
    assert SAID[name][1:] == [f"{parameters(model):,}", macs, str(model.num_features), sides]
