"""What every extra signal must do; finds each file of pipeline/signals/extras by itself."""

from __future__ import annotations

import pytest
import torch

from pipeline import plugins
from pipeline.errors import ConfigError
from pipeline.signals import extract, maps_read, taps_read
from pipeline.signals.extra import EXTRAS

NAMES = plugins.names(EXTRAS)
BLOCKS = ((4, 8), (6, 4), (5, 4))
TAPS = ("block1", "block2", "block3", "final", "embedding", "logits")

pytestmark = pytest.mark.parametrize("name", NAMES)


def maps(name: str, batch: int = 3, seed: int = 1, scale: float = 1.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sizes = BLOCKS[: maps_read(name)]
    return [scale * torch.randn(batch, c, s, s, generator=generator, dtype=torch.float64) for c, s in sizes]


def test_every_sample_by_itself(name: str) -> None:
    given = maps(name)
    result = extract(name, *given)
    assert result.ndim >= 2
    for row in range(3):
        torch.testing.assert_close(extract(name, *(x[row : row + 1] for x in given)), result[row : row + 1])


@pytest.mark.parametrize(
    ("given", "returned"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_at_least_float32(name: str, given: torch.dtype, returned: torch.dtype) -> None:
    halves = [x.to(given) for x in maps(name)]
    exact = extract(name, *(x.double() for x in halves))
    for autocast in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            result = extract(name, *halves)
        assert result.dtype == returned
        torch.testing.assert_close(result.double(), exact, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", [0.0, 1e-4, 1e4])
def test_finite_values_and_gradients(name: str, scale: float) -> None:
    given = [x.float().requires_grad_() for x in maps(name, scale=scale)]
    result = extract(name, *given)
    weights = torch.linspace(-1, 1, result.numel()).reshape(result.shape)
    found = torch.autograd.grad((result * weights).sum(), given)
    for tensor in (result, *found):
        assert tensor.isfinite().all()


def test_differentiable(name: str) -> None:
    given = [x.requires_grad_() for x in maps(name, batch=2)]
    assert torch.autograd.gradcheck(lambda *x: extract(name, *x), given, fast_mode=True)


def test_layouts_do_not_matter_and_input_stays(name: str) -> None:
    given = maps(name)
    before = [x.clone() for x in given]
    result = extract(name, *given)
    turned = [x.to(memory_format=torch.channels_last) for x in given]
    torch.testing.assert_close(extract(name, *turned), result)
    assert all(torch.equal(x, y) for x, y in zip(given, before, strict=True))


def test_it_is_read_at_a_tap_and_beyond_it(name: str) -> None:
    count = maps_read(name)
    assert taps_read(f"{name}/block2", TAPS) == ("block2", "block3")[:count]
    last = f"block{4 - count}"
    assert len(taps_read(f"{name}/{last}", TAPS)) == count
    wrong = [f"{name}/blok2", f"{name}/logits", name]
    for signal in [*wrong, f"{name}/block3", f"{name}/final"] if count > 1 else wrong:
        with pytest.raises(ConfigError, match=r"signals\.extras: unknown name") as caught:
            taps_read(signal, TAPS)
        assert f"one of {name}/block1" in str(caught.value)


def test_a_name_that_there_is_not(name: str) -> None:
    with pytest.raises(ConfigError, match=f"did you mean '{name}'?"):
        extract(name + "s", *maps(name))
