from __future__ import annotations

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from pipeline.models import Network, build_network
from pipeline.models.attention import MATH_BACKEND_TOKENS, fastest_attention
from pipeline.models.device import Precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(("tokens", "precision", "fused"), [(16, "bfloat16", False), (16, "float32", True)])
def test_few_tokens_are_multiplied_plainly_in_bfloat16_on_a_cpu(tokens: int, precision: Precision, fused: bool) -> None:
    """Of the operators that ran, those of torch's fused attention: none forward, and none backward."""
    network = vit(tokens)
    images = torch.randint(0, 256, (2, 3, network.input_size, network.input_size), dtype=torch.uint8)
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        with (
            fastest_attention(network, CPU, precision),
            torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"),
        ):
            value = network(images).logits.square().sum()
        value.backward()
    ran = {event.name for event in seen.events()}
    assert "aten::scaled_dot_product_attention" in ran
    assert any("flash" in name for name in ran) == fused


def test_both_ways_say_the_same() -> None:
    network = vit(16).eval()
    images = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        with fastest_attention(network, CPU, "bfloat16"):
            plain = network(images).logits
        fused = network(images).logits
    assert not torch.equal(plain, torch.zeros_like(plain))
    torch.testing.assert_close(plain, fused, rtol=0.05, atol=0.02)


def test_many_tokens_on_a_cpu_are_left_to_torch() -> None:
    many = vit(MATH_BACKEND_TOKENS + 60)
    assert many.places > MATH_BACKEND_TOKENS
    before = backends()
    with fastest_attention(many, CPU, "bfloat16"):
        assert backends() == before
    with fastest_attention(vit(16), CPU, "bfloat16"):
        assert backends() != before
    assert backends() == before


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_gradients_repeat_themselves_on_a_gpu(precision: Precision) -> None:
    """The fused kernels add up in any order, unless torch is to refuse whatever has no other form."""
    before = backends()
    with fastest_attention(vit(MATH_BACKEND_TOKENS + 60), torch.device("cuda"), precision):
        fused = torch.backends.cuda
        assert not fused.flash_sdp_enabled()
        assert not fused.mem_efficient_sdp_enabled()
        assert not fused.cudnn_sdp_enabled()
        assert fused.math_sdp_enabled()
    assert backends() == before


def backends() -> tuple[bool, bool]:
    return torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.math_sdp_enabled()


def vit(tokens: int) -> Network:
    side = round(tokens**0.5)
    options = {"img_size": 4 * side, "patch_size": 4, "embed_dim": 48, "depth": 4, "num_heads": 3, "global_pool": "avg"}
    return build_network("vit_tiny_patch16_224", 10, input_size=4 * side, options=options, seed=0)
