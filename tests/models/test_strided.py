"""Strided 1 x 1 convolutions of few channels: gradients are right, where torch's own die or are wrong on some CPUs."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from pipeline.models.strided import pick_before_strides


@pytest.mark.parametrize("groups", [1, 2])
def test_output_and_gradients_are_those_of_the_definition(groups: int) -> None:
    torch.manual_seed(0)
    made = nn.Conv2d(4, 6, 1, stride=(2, 3), groups=groups)
    pick_before_strides(made)
    for network in (made, copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        network.zero_grad()
        images = torch.rand(64, 4, 9, 8).contiguous(memory_format=torch.channels_last).requires_grad_()
        result = network(images)
        result.square().sum().backward()
        places = images.detach().double()[:, :, ::2, ::3].reshape(64, groups, 4 // groups, 5, 3)
        weight = network.weight.detach().double().reshape(groups, 6 // groups, 4 // groups)
        expected = torch.einsum("bgchw,goc->bgohw", places, weight).reshape(64, 6, 5, 3)
        expected += network.bias.detach().double()[:, None, None]
        torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-6)
        slope = (2 * expected).reshape(64, groups, 6 // groups, 5, 3)
        gradient = torch.einsum("bgohw,bgchw->goc", slope, places).reshape(network.weight.shape)
        torch.testing.assert_close(network.weight.grad.double(), gradient, rtol=1e-4, atol=1e-4)
        back = torch.zeros(64, 4, 9, 8, dtype=torch.float64)
        back[:, :, ::2, ::3] = torch.einsum("bgohw,goc->bgchw", slope, weight).reshape(64, 4, 5, 3)
        torch.testing.assert_close(images.grad.double(), back, rtol=1e-4, atol=1e-5)


def test_only_those_are_touched() -> None:
    others = (nn.Conv2d(16, 4, 1, 2), nn.Conv2d(4, 4, 3, 2, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1, 2, padding=1))
    network = nn.Sequential(nn.Conv2d(4, 4, 1, 2), *others)
    names = list(network.state_dict())
    undo = pick_before_strides(network)
    assert [module.stride for module in network] == [(1, 1), (2, 2), (2, 2), (1, 1), (2, 2)]
    assert [len(module._forward_pre_hooks) for module in network] == [1, 0, 0, 0, 0]
    pick_before_strides(network)
    assert [len(module._forward_pre_hooks) for module in network] == [1, 0, 0, 0, 0]
    assert list(network.state_dict()) == names
    undo()
    assert [module.stride for module in network] == [(2, 2), (2, 2), (2, 2), (1, 1), (2, 2)]
    assert not any(module._forward_pre_hooks for module in network)
