from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline.signals import Mean, combine

MEANS: tuple[Mean, ...] = ("mean-logits", "mean-probabilities")


def random(members: int, dtype: torch.dtype = torch.float64, scale: float = 5.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(6, 4, generator=generator, dtype=torch.float64) * scale).to(dtype) for _ in range(members)]


def softmax(z: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(z - z.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True))


def test_closed_forms():
    # Probabilities (3/4, 1/4) and (1/4, 3/4) with logits (ln 3, 0) and (0, ln 3).
    one, other = torch.tensor([[math.log(3), 0.0]]), torch.tensor([[0.0, math.log(3)]])
    half = math.log(3) / 2
    torch.testing.assert_close(combine([one, other], "mean-logits"), torch.tensor([[half, half]]))
    torch.testing.assert_close(combine([one, other], "mean-probabilities"), torch.tensor([[0.5, 0.5]]).log())
    # (3/4, 1/4) twice and (1/4, 3/4): (7/12, 5/12).
    probabilities = combine([one, one, other], "mean-probabilities").exp()
    torch.testing.assert_close(probabilities, torch.tensor([[7 / 12, 5 / 12]]))


@pytest.mark.parametrize("members", [2, 3, 5])
def test_means_of_probabilities_and_of_logits_in_float64(members: int):
    given = random(members)
    arrays = [logits.numpy() for logits in given]
    np.testing.assert_allclose(combine(given, "mean-logits"), np.mean(arrays, 0), rtol=1e-12)
    mean = np.mean([softmax(z) for z in arrays], 0)
    np.testing.assert_allclose(combine(given, "mean-probabilities").exp(), mean, rtol=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_what_a_temperature_makes_of_them(temperature: float):
    given = random(3)
    softened = [softmax(logits.numpy() / temperature) for logits in given]
    geometric = np.prod(softened, 0) ** (1 / 3)
    by_logits = softmax(combine(given, "mean-logits").numpy() / temperature)
    np.testing.assert_allclose(by_logits, geometric / geometric.sum(1, keepdims=True), rtol=1e-10)
    mean = np.mean([softmax(logits.numpy()) for logits in given], 0) ** (1 / temperature)
    by_probabilities = softmax(combine(given, "mean-probabilities").numpy() / temperature)
    np.testing.assert_allclose(by_probabilities, mean / mean.sum(1, keepdims=True), rtol=1e-10)
    far = np.abs(by_probabilities - np.mean(softened, 0)).max()
    assert (far < 1e-12) == (temperature == 1.0)  # not the mean of softened probabilities, as documented


@pytest.mark.parametrize("mean", MEANS)
def test_one_network_twice_is_that_network(mean: Mean):
    (logits,) = random(1)
    torch.testing.assert_close(combine([logits, logits], mean).softmax(1), logits.softmax(1), rtol=1e-12, atol=0)


@pytest.mark.parametrize("mean", MEANS)
def test_finite_where_probabilities_underflow_and_in_half_types(mean: Mean):
    sure = torch.tensor([[1e4, 0.0, 0.0]])
    value = combine([sure, sure.flip(1)], mean)
    assert torch.isfinite(value).all()
    assert value.softmax(1)[0].tolist() == pytest.approx([0.5, 0.0, 0.5])
    halves = random(2, torch.float16)
    assert combine(halves, mean).dtype == torch.float32
    torch.testing.assert_close(combine(halves, mean), combine([z.float() for z in halves], mean))
