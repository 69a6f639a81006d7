"""Standardised signals: closed forms, and NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch

from pipeline.signals.moments import Moments
from pipeline.signals.standardisation import Standardisation, balanced_rotation, hadamard, standardise

KNOWN = [1, 2, 4, 8, 12, 16, 20, 24, 28, 36, 48, 64, 192, 384]
WIDE = [512, 768, 1024, 1152, 1280, 1408, 2048]


def moments(width: int, count: int = 400) -> tuple[np.ndarray, Moments]:
    """Vectors whose channels depend on each other and differ in size, and their moments."""
    generator = np.random.default_rng(width)
    vectors = generator.normal(size=(count, width)) * np.geomspace(0.01, 30, width)
    vectors = vectors @ np.linalg.qr(generator.normal(size=(width, width)))[0] + generator.normal(size=width)
    return vectors, Moments.of(vectors)


@pytest.mark.parametrize("size", KNOWN)
def test_hadamard_matrices_are_orthogonal_and_all_of_one_size(size: int):
    found = hadamard(size)
    assert found is not None
    np.testing.assert_allclose(found @ found.T, np.eye(size), atol=1e-12)
    np.testing.assert_allclose(np.abs(found), 1 / np.sqrt(size), rtol=1e-12)


def test_powers_of_two_are_scipys():
    found = hadamard(64)
    assert found is not None
    np.testing.assert_allclose(found * 8, scipy.linalg.hadamard(64))


@pytest.mark.parametrize("size", WIDE)
def test_the_widths_of_common_networks_are_known(size: int):
    found = hadamard(size)
    assert found is not None
    rows = found[:: size // 16]
    np.testing.assert_allclose(rows @ found.T @ found, rows, atol=1e-10)
    np.testing.assert_allclose(np.abs(rows), 1 / np.sqrt(size), rtol=1e-12)


@pytest.mark.parametrize("size", [3, 5, 6, 10, 92, 100 - 1])
def test_other_sizes_are_not_known(size: int):
    assert hadamard(size) is None


@pytest.mark.parametrize("variances", [[4.0, 1, 1], [0.0, 0, 9], [2.0, 2, 2], [1e-9, 5, 1e3, 2, 7], [3.0]])
def test_a_balanced_rotation_makes_variances_equal(variances: list[float]):
    found, given = balanced_rotation(np.array(variances)), np.array(variances)
    np.testing.assert_allclose(found @ found.T, np.eye(len(given)), atol=1e-12)
    np.testing.assert_allclose(np.diag(found @ np.diag(given) @ found.T), given.mean(), rtol=1e-12)


@pytest.mark.parametrize("width", [2, 3, 7, 12, 16, 30, 64])
def test_phi_s_gives_every_channel_variance_one_and_keeps_angles(width: int):
    vectors, known = moments(width)
    found = Standardisation.of(known, "phi-s")
    result = (vectors - found.mean) @ found.weight.T
    np.testing.assert_allclose(result.mean(0), 0, atol=1e-10)
    np.testing.assert_allclose(result.var(0), 1, rtol=1e-10)
    # Isotropic: a rotation and one factor, so that an error has the same size in every direction.
    scale = np.trace(known.covariance) / width
    np.testing.assert_allclose(found.weight @ found.weight.T * scale, np.eye(width), atol=1e-10)
    covariance = result.T @ result / len(result)
    expected = np.linalg.eigvalsh(known.covariance) / scale  # the spectrum is that of the vectors, scaled
    np.testing.assert_allclose(np.linalg.eigvalsh(covariance), expected, atol=1e-9)


def test_phi_s_is_the_formula_of_the_paper():
    vectors, known = moments(8)
    variances, axes = np.linalg.eigh(np.cov(vectors, rowvar=False, ddof=0))
    signs = np.sign(axes[np.abs(axes).argmax(0), np.arange(8)])  # the sign of an axis is free: here it is fixed
    expected = scipy.linalg.hadamard(8) / np.sqrt(8) @ (axes * signs).T / np.sqrt(variances.mean())
    np.testing.assert_allclose(Standardisation.of(known, "phi-s").weight, expected, rtol=1e-8, atol=1e-10)


def test_channels_have_mean_zero_and_variance_one():
    vectors, known = moments(6)
    found = Standardisation.of(known, "channels")
    result = (vectors - found.mean) * found.weight
    np.testing.assert_allclose(result, (vectors - vectors.mean(0)) / vectors.std(0), rtol=1e-9)


@pytest.mark.parametrize("how", ["channels", "phi-s"])
def test_what_never_changes_becomes_zero(how: str):
    same = Moments.of(np.full((5, 4), 3.0))
    mean, weight = Standardisation.of(same, how).tensors()  # type: ignore[arg-type]
    assert torch.equal(standardise(torch.full((2, 4), 3.0), mean, weight), torch.zeros(2, 4))


def test_fewer_vectors_than_channels():
    vectors, known = moments(16, count=6)
    found = Standardisation.of(known, "phi-s")
    np.testing.assert_allclose(((vectors - found.mean) @ found.weight.T).var(0), 1, rtol=1e-8)


@pytest.mark.parametrize("how", ["channels", "phi-s"])
def test_maps_are_standardised_at_every_place_and_commute_with_means_of_cells(how: str):
    _, known = moments(12)
    found = Standardisation.of(known, how)  # type: ignore[arg-type]
    mean, weight = found.tensors()
    maps = torch.randn(3, 12, 4, 4, generator=torch.Generator().manual_seed(0)) * 5
    result = standardise(maps, mean, weight)
    one = maps[1, :, 2, 3].double().numpy() - found.mean
    expected = one * found.weight if how == "channels" else found.weight @ one
    np.testing.assert_allclose(result[1, :, 2, 3], expected, rtol=1e-3, atol=1e-3)
    pooled = standardise(torch.nn.functional.avg_pool2d(maps, 2), mean, weight)
    torch.testing.assert_close(torch.nn.functional.avg_pool2d(result, 2), pooled, rtol=1e-4, atol=1e-4)


def test_autocast_does_not_round():
    _, known = moments(12)
    mean, weight = Standardisation.of(known, "phi-s").tensors()
    vectors = torch.randn(3, 12, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        found = standardise(vectors, mean, weight)
    torch.testing.assert_close(found, (vectors - mean) @ weight.T)
