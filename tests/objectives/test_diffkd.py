from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from objectives.layers import (
    CONTEXT,
    STUDENT,
    TEACHER,
    TOKENS,
    array,
    batch,
    built,
    cell_means,
    convolved,
    maps,
    projected,
    total,
)

from pipeline.errors import ConfigError
from pipeline.objectives import Batch
from pipeline.objectives.diffusion import RowNoise, denoised, noisy, signal_left
from pipeline.objectives.methods.diffkd import Diffusion
from pipeline.signals import Signals, SignalShapes

LEFT = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))


def test_how_much_is_left_by_hand():
    assert signal_left(torch.tensor(0)).item() == pytest.approx(0.9999)
    second = 0.0001 + (0.02 - 0.0001) / 999
    assert signal_left(torch.tensor(1)).item() == pytest.approx(0.9999 * (1 - second))
    np.testing.assert_allclose(signal_left(torch.arange(1000)).numpy(), LEFT, rtol=1e-12)


def test_one_step_by_hand():
    # Half of the noise is seen; at time 0 what is left is 0.9999, and afterwards all is signal.
    found = denoised(torch.tensor([2.0]), lambda x, time: x / 2, 1)
    assert found.item() == pytest.approx((2 - np.sqrt(0.0001)) / np.sqrt(0.9999))


@pytest.mark.parametrize("steps", [1, 5, 7])
def test_who_knows_the_noise_takes_it_off(steps: int):
    # The identity of DDIM: with the true noise every step stays on the same line, and the last one ends at its start.
    clean, noise = torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    times = torch.full((3,), (steps - 1) * (1000 // (2 * steps)))
    torch.testing.assert_close(denoised(noisy(clean, noise, times), lambda x, time: noise, steps), clean)


def test_who_sees_no_noise_only_scales():
    found = denoised(torch.ones(1, dtype=torch.float64), lambda x, time: torch.zeros_like(x), 5)
    assert found.item() == pytest.approx(LEFT[400] ** -0.5, rel=1e-10)


def draws(size: int, step: int = 0, seed: int = 0, sample: list[int] | None = None) -> torch.Tensor:
    return RowNoise(batch(size, step, sample), seed).normal(torch.zeros(size, 3))


def test_noise_is_keyed_by_seed_and_step_and_follows_the_sample():
    torch.testing.assert_close(draws(4), draws(4), rtol=0, atol=0)
    assert not torch.equal(draws(4), draws(4, step=1))
    assert not torch.equal(draws(4), draws(4, seed=1))
    assert not torch.equal(draws(4, seed=-1), draws(4, seed=-2))
    assert not torch.equal(draws(4, seed=2**63), draws(4, seed=2**63 + 1))
    mixed = draws(4, sample=[9, 2, 7, 4])
    assert torch.equal(mixed[[1, 3, 2, 0]], draws(4, sample=[2, 4, 7, 9]))
    views = Batch(torch.zeros(4).long(), torch.tensor([5, 3, 5, 3]), torch.tensor([1, 0, 0, 1]))
    assert RowNoise(views, 0).rank.tolist() == [3, 0, 2, 1]
    state = torch.random.get_rng_state()
    draws(4)
    assert torch.equal(torch.random.get_rng_state(), state)


def bottleneck(x: np.ndarray, module: torch.nn.Module) -> np.ndarray:
    first, _, second, _, third = module.block
    hidden = np.maximum(projected(x, first), 0)
    return x + projected(np.maximum(projected(hidden, second), 0), third)


def biased(x: np.ndarray, layer: torch.nn.Module) -> np.ndarray:
    return convolved(x, array(layer.weight)) + array(layer.bias)[:, None, None]


def seen(x: np.ndarray, times: list[int], model: Diffusion) -> np.ndarray:
    y = x + np.stack([array(model.time.weight)[t] for t in times])[..., None, None]
    if len(model.predictor) == 3:
        first, second, last = model.predictor
        return projected(bottleneck(bottleneck(y, first), second), last)
    a, _, b, c, _, d = model.predictor
    y = projected(np.maximum(projected(y, a), 0), b)
    return biased(np.maximum(projected(y, c), 0), d)


def cleaned(x: np.ndarray, noise: np.ndarray, model: Diffusion) -> np.ndarray:
    entered = biased(x, model.enter)
    if len(model.level) == 1:
        told = bottleneck(entered, model.level[0])
    else:
        told = projected(np.maximum(projected(entered, model.level[0]), 0), model.level[2])
    share = told.mean((2, 3)) @ array(model.share.weight).T + array(model.share.bias)
    share = (1 / (1 + np.exp(-share)))[..., None, None]
    y = share * entered + (1 - share) * noise
    for t, before in ((400, LEFT[300]), (300, LEFT[200]), (200, LEFT[100]), (100, LEFT[0]), (0, 1.0)):
        e = seen(y, [t] * len(y), model)
        start = (y - np.sqrt(1 - LEFT[t]) * e) / np.sqrt(LEFT[t])
        y = np.sqrt(before) * start + np.sqrt(1 - before) * e
    return projected(y, model.leave)


def test_equals_the_equations_in_float64():
    size, seed, step = 4, 11, 3
    objective = built("diffkd", context=replace(CONTEXT, seed=seed))
    student, teacher = maps(STUDENT, size, 1), maps(TEACHER, size, 2)
    got = objective(student, teacher, batch(size, step), 0.0)

    generator = np.random.Generator(np.random.Philox(key=[seed, step]))

    def noise_loss(clean: np.ndarray, model: Diffusion) -> float:
        times = generator.integers(1000, size=size)
        noise = generator.standard_normal(clean.shape, dtype=np.float32).astype(float)
        left = LEFT[times][:, None, None, None]
        mixed = np.sqrt(left) * clean + np.sqrt(1 - left) * noise
        return ((seen(mixed, list(times), model) - noise) ** 2).mean()

    s, t = cell_means(array(student.features["block2"]), 4), array(teacher.features["block2"])
    latent = projected(t, objective.encoder)
    noise = generator.standard_normal(latent.shape, dtype=np.float32).astype(float)
    expected = {"feature": ((cleaned(s, noise, objective.maps) - latent) ** 2).mean()}
    expected["noise"] = noise_loss(latent, objective.maps)
    expected["reconstruction"] = ((biased(latent, objective.decoder) - t) ** 2).mean()
    z, known = (array(x.logits)[..., None, None] for x in (student, teacher))
    noise = generator.standard_normal(z.shape, dtype=np.float32).astype(float)
    found = cleaned(z, noise, objective.logits)[..., 0, 0]
    p, q = (np.exp(x) / np.exp(x).sum(1, keepdims=True) for x in (known[..., 0, 0], found))
    expected["logits"] = (p * np.log(p / q)).sum(1).mean()
    expected["logit-noise"] = noise_loss(known, objective.logits)
    assert {name: value.item() for name, value in got.items()} == pytest.approx(expected, rel=1e-9)


def test_gradient():
    objective, teacher = built("diffkd"), maps(TEACHER, 3, 2)

    def value(logits: torch.Tensor, deepest: torch.Tensor) -> torch.Tensor:
        return total(objective(Signals(logits, features={"block2": deepest}), teacher, batch(3), 0.0))

    student = maps(STUDENT, 3, 1)
    leaves = (student.logits, student.features["block2"])
    assert torch.autograd.gradcheck(value, [leaf.requires_grad_() for leaf in leaves], fast_mode=True)


def test_the_diffusion_model_learns_of_the_teacher_from_noise_alone():
    # The compressed map is what the student is compared with: neither term may bend it.
    objective = built("diffkd", {"logits": False})
    terms = objective(maps(STUDENT, 4, 1), maps(TEACHER, 4, 2), batch(4), 0.0)
    (terms["feature"] + terms["noise"]).backward()
    assert all(p.grad is None for p in (*objective.encoder.parameters(), *objective.decoder.parameters()))


def test_students_of_tokens():
    assert total(built("diffkd", student=TOKENS)(maps(TOKENS, 4, 1), maps(TEACHER, 4, 2), batch(4), 0.0)).isfinite()


def test_options_and_refusals():
    assert built("diffkd").encoder.linear.out_features == 4
    assert built("diffkd", {"width": 3}).encoder.linear.out_features == 3
    assert built("diffkd", {"logit_width": 7}).logits.predictor[0].linear.out_features == 7
    other = SignalShapes(7, 8, TEACHER.features, linear=True)
    with pytest.raises(ConfigError, match="same classes"):
        built("diffkd", teacher=other)
    assert built("diffkd", {"logits": False}, teacher=other).needs.teacher == {"features/block2"}
    with pytest.raises(ConfigError, match="needs cached features"):
        built("diffkd", teacher=SignalShapes(5, 8))
    with pytest.raises(ConfigError, match="less than or equal to 500"):
        built("diffkd", {"steps": 501})
