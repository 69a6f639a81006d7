from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pipeline.config import Section, bind
from pipeline.errors import ConfigError
from pipeline.signals import LinearHead, Signals, SignalsConfig, SignalShapes


def test_shapes_are_those_of_one_sample() -> None:
    head = LinearHead(torch.zeros(10, 8), torch.zeros(10), linear=False)
    signals = Signals(
        logits=torch.zeros(3, 10),
        embedding=torch.zeros(3, 8),
        features={"block1": torch.zeros(3, 4, 6, 5), "block2": torch.zeros(3, 8, 3, 2)},
        head=head,
        extras={"channel-gram/block2": torch.zeros(3, 8, 8)},
    )
    assert signals.shapes() == SignalShapes(
        logits=10,
        embedding=8,
        features={"block1": (4, 6, 5), "block2": (8, 3, 2)},
        linear=False,
        extras={"channel-gram/block2": (8, 8)},
        head_classes=10,
    )
    assert replace(signals, logits=torch.zeros(3, 0)).shapes().classes == 10  # the head's


def test_a_network_without_a_classifier_knows_no_classes() -> None:
    shapes = Signals(torch.zeros(3, 0), torch.zeros(3, 8)).shapes()
    assert shapes == SignalShapes(logits=0, embedding=8)
    assert shapes.classes == 0


def test_shapes_of_logits_alone() -> None:
    assert Signals(torch.zeros(2, 5)).shapes() == SignalShapes(logits=5)


def test_head_is_the_affine_map() -> None:
    head = LinearHead(torch.tensor([[1.0, 2.0], [0.0, -1.0]]), torch.tensor([0.5, 0.0]))
    assert torch.equal(head(torch.tensor([3.0, 4.0])), torch.tensor([11.5, -4.0]))
    assert head(torch.zeros(2, 3, 2, dtype=torch.float64)).dtype == torch.float64
    assert head(torch.zeros(2, 2, dtype=torch.bfloat16)).dtype == torch.float32


def test_detached_signals_are_the_same_and_want_no_gradient() -> None:
    def leaf(*shape: int) -> torch.Tensor:
        return torch.rand(shape, requires_grad=True)

    head = LinearHead(leaf(4, 3), leaf(4), linear=False, linear_final=True)
    said = Signals(
        leaf(2, 4), leaf(2, 3), {"block1": leaf(2, 3, 5, 5)}, head, {"channel-gram/block1": leaf(2, 3, 3)}, head
    )
    constant = said.detached()
    assert constant.shapes() == said.shapes()
    assert constant.head is not None
    assert constant.local is not None
    pairs = [
        (constant.logits, said.logits),
        (constant.embedding, said.embedding),
        (constant.features["block1"], said.features["block1"]),
        (constant.head.weight, head.weight),
        (constant.head.bias, head.bias),
        (constant.extras["channel-gram/block1"], said.extras["channel-gram/block1"]),
        (constant.local(torch.ones(7, 3)), head(torch.ones(7, 3))),
    ]
    for ours, theirs in pairs:
        assert torch.equal(ours, theirs)
        assert not ours.requires_grad
    assert Signals(torch.zeros(2, 5)).detached().shapes() == SignalShapes(logits=5)


class Root(Section):
    signals: SignalsConfig = SignalsConfig()


def test_config_of_the_design() -> None:
    raw = {
        "logits": {"encoding": "float16"},
        "embedding": {"encoding": "float16"},
        "features": {"blocks": ["block2", "block3"], "grid": 4, "filter": "mean", "encoding": "float16"},
        "extras": [],
    }
    config = bind({"signals": raw}, Root, ["signals"]).signals
    assert config.features is not None
    assert config.features.blocks == ("block2", "block3")
    assert SignalsConfig.model_validate({"features": {"blocks": 2}}).features is not None
    assert SignalsConfig.model_validate({"embedding": None}).embedding is None


@pytest.mark.parametrize(
    ("raw", "key", "words"),
    [
        ({"features": {"filter": "maen"}}, "signals.features.filter", "did you mean 'mean'?"),
        ({"features": {"grid": 0}}, "signals.features.grid", "greater than 0"),
        ({"features": {"blocks": []}}, "signals.features.blocks", "at least one"),
        ({"features": {"blocks": ["block1", "block1"]}}, "signals.features.blocks", "once"),
        ({"features": {"block": 2}}, "signals.features.block", "did you mean 'blocks'?"),
        ({"extras": ["chanel-gram/block3"]}, "signals.extras.0.name", "did you mean 'channel-gram'?"),
        ({"extras": ["channel-gram"]}, "signals.extras.0.name", "names a file and a tap"),
        ({"extras": [{"name": "channel-gram/block3", "encodin": "int8"}]}, "signals.extras.0", "'encoding'?"),
        ({"extras": ["channel-gram/block3", {"name": "channel-gram/block3"}]}, "signals.extras", "once"),
        ({"logits": None, "embedding": None}, "signals", "keeps nothing"),
    ],
)
def test_config_problems_name_key_and_way_out(raw: dict[str, object], key: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        bind({"signals": raw}, Root, ["signals"])
    assert key in str(caught.value)
    assert words in str(caught.value)
