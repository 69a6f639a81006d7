"""One module of a student, from pixels to logits: it computes what the network does, of views of one size."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from photo_experiment import FOLDER
from timm.models import byobnet
from torch import nn

from pipeline.experiment.model_file import ModelFile
from pipeline.models import WithReusedHead, build_network
from pipeline.models.pixels import PixelInput
from pipeline.models.reused import KeptPart, LiftProjector, Projector, ReusedHead
from pipeline.shipping.format import format_named
from pipeline.shipping.formats import timm as timm_format
from pipeline.shipping.module import FixedPixelInput, exportable
from pipeline.shipping.student import ShippedStudent
from pipeline.signals import LinearHead


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("size", "wanted"), [((9, 14), (5, 7)), ((5, 6), (8, 12)), ((8, 8), (8, 8))])
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_prepared_by_products_of_matrices(
    interpolation: Any, size: tuple[int, int], wanted: tuple[int, int], channels: int
):
    pixels = PixelInput("it", wanted, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3), interpolation)
    images = torch.randint(0, 256, (3, channels, *size), dtype=torch.uint8)
    images[0] = torch.where(images[0] < 128, 0, 255)  # bicubic overshoots, and is clamped
    torch.testing.assert_close(FixedPixelInput(pixels, size)(images), pixels(images), atol=2e-5, rtol=1e-5)


def shipped(network: Any, folder: Path = FOLDER) -> ShippedStudent:
    return ShippedStudent(folder, ModelFile.read(folder), network.eval().requires_grad_(False))


def disturbed(module: nn.Module) -> None:
    """Give normalisation values of its own: with those of a new network, fusing would change next to nothing."""
    generator = torch.Generator().manual_seed(1)
    for each in module.modules():
        if isinstance(each, nn.BatchNorm2d):
            for value in (each.running_mean, each.running_var, each.weight, each.bias):
                assert value is not None
                value.data += 0.2 * torch.rand(value.shape, generator=generator)


def shallow(model: str) -> dict[str, Any]:
    """Options with which a stage of a network has one block of each kind, or two."""
    if model.startswith("fastvit"):
        return {"layers": (1, 1, 1, 1)}
    stages = byobnet.model_cfgs[model].blocks
    return {"blocks": [replace(each, d=1) if isinstance(each, byobnet.ByoBlockCfg) else each[:4] for each in stages]}


@pytest.mark.parametrize("model", ["repvgg_a0", "mobileone_s0", "fastvit_t8"])
def test_blocks_of_several_branches_are_fused(flowers: Path, model: str):
    network = build_network(model, 3, input_size=64, options=shallow(model), seed=0)
    disturbed(network)
    student = shipped(network)
    views = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    fused = exportable(student, (64, 64))

    def layers(module: nn.Module) -> int:
        return sum(isinstance(each, nn.Conv2d | nn.BatchNorm2d) for each in module.modules())

    assert layers(fused) < 0.6 * layers(network)
    before = student.logits(views)
    with torch.inference_mode():
        torch.testing.assert_close(fused(views), before, atol=1e-4, rtol=1e-3)
    assert torch.equal(student.logits(views), before)  # the student itself is as it was


@pytest.mark.parametrize("projector", [Projector("block3", 16, 8, 20), LiftProjector("block3", 16, 20, 3)])
def test_a_kept_classifier_at_the_end_is_part_of_it(projector: KeptPart, flowers: Path, tmp_path: Path):
    network = build_network("cifar_resnet8", 3, input_size=8, options={"widths": [16, 16, 16]}, seed=0)
    head = ReusedHead(projector, LinearHead(torch.randn(3, 20), torch.randn(3)))
    student = shipped(WithReusedHead(network, head))
    views = torch.randint(0, 256, (2, 3, 12, 12), dtype=torch.uint8)
    module = exportable(student, (12, 12))
    program = torch.export.export(module, (views,), dynamic_shapes={"images": {0: torch.export.Dim("batch")}})
    for some in (views, views[:1]):
        torch.testing.assert_close(program.module()(some), student.logits(some), atol=1e-5, rtol=1e-5)
    why = format_named("timm").refusal(student)
    assert why is not None
    assert "a projection and another classifier" in why


def test_timm_is_not_said_to_have_what_it_has_not(flowers: Path):
    network = build_network("cifar_resnet8", 3, input_size=8, options={"widths": [16, 16, 16]}, seed=0)
    why = format_named("timm").refusal(shipped(network))
    assert why == "timm does not have cifar_resnet8, which is Decant's own"


@pytest.mark.parametrize(
    ("operations", "expected"),
    [
        ([], {"crop_pct": 1.0, "crop_mode": "squash", "interpolation": "bilinear"}),
        (
            [{"name": "resize", "size": [8, 8], "interpolation": "bicubic"}],
            {"crop_pct": 1.0, "crop_mode": "squash", "interpolation": "bicubic"},
        ),
        (
            [{"name": "resize", "size": 10}, {"name": "center-crop", "size": 8}],
            {"crop_pct": 0.8, "crop_mode": "center", "interpolation": "bilinear"},
        ),
        ([{"name": "resize", "size": 14}, {"name": "center-crop", "size": 12}], None),  # which the network resizes
        ([{"name": "center-crop", "size": 8}], None),
        ([{"name": "rotate90"}], None),
    ],
)
def test_operations_become_timms_crop_where_it_has_one(
    flowers: Path, tmp_path: Path, operations: Sequence[Any], expected: dict[str, Any] | None
):
    raw = json.loads((FOLDER / "model.json").read_text())
    raw["input"]["operations"] = operations
    student = ShippedStudent(tmp_path, ModelFile.model_validate(raw), nn.Identity())  # type: ignore[arg-type]
    assert timm_format._crop(student) == expected


@pytest.mark.parametrize(("crop", "shorter"), [(224, 256), (8, 14), (99, 113), (176, 232), (7, 7)])
def test_timm_makes_the_shorter_side_again_of_the_share(crop: int, shorter: int):
    assert int(crop / timm_format._share(crop, shorter)) == shorter
