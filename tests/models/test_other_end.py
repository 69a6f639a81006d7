"""Tokens of ViTs as embeddings and maps, and heads of text embeddings, against timm's own tokens and the formula."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from pipeline.errors import ModelError
from pipeline.models import Network, TeacherConfig, build_network
from pipeline.models.other_end import Repooled, WithTextHead
from pipeline.models.text_head import TextEmbeddings

TINY: dict[str, Any] = {"embed_dim": 24, "depth": 4, "num_heads": 2}
IMAGES = torch.randint(0, 256, (3, 3, 28, 28), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
NAMES = ("ant", "bee", "cat")


def dino(model: str = "vit_small_patch14_reg4_dinov2", classes: int = 0, size: int = 28) -> Network:
    """A tiny network with class and register tokens, in evaluation mode."""
    return build_network(model, classes, input_size=size, options={**TINY, "img_size": size}, seed=0).eval()


def texts(width: int, scale: float = 10.0) -> TextEmbeddings:
    text = torch.randn(3, width, generator=torch.Generator().manual_seed(2))
    return TextEmbeddings(F.normalize(text, dim=1), scale, NAMES)


@pytest.mark.parametrize(("model", "size"), [("vit_small_patch14_reg4_dinov2", 28), ("vit_small_patch16_dinov3", 32)])
def test_class_and_register_tokens_are_no_places_of_a_map(model: str, size: int):
    network, prefix, side = dino(model, size=size), 5, 2
    assert network.model.num_prefix_tokens == prefix
    tokens: list[torch.Tensor] = []
    network.model.blocks[-1].register_forward_hook(lambda module, given, out: tokens.append(out))
    network.keep_taps(["block4", "final"])
    with torch.no_grad():
        features = network(IMAGES).features
        final = network.model.forward_features(network.pixels(IMAGES))
    assert features["block4"].shape == (3, 24, side, side)
    places = tokens[0][:, prefix:].transpose(1, 2).reshape(3, 24, side, side)
    torch.testing.assert_close(features["block4"], places)
    torch.testing.assert_close(features["final"], final[:, prefix:].transpose(1, 2).reshape(3, 24, side, side))


def test_an_embedding_is_the_class_token_the_mean_of_patches_or_both():
    network = dino()
    with torch.no_grad():
        tokens = network.model.forward_features(network.pixels(IMAGES))
        own = network(IMAGES).embedding
        mean, both = (Repooled(dino(), pooling).eval()(IMAGES) for pooling in ("mean", "both"))  # type: ignore[arg-type]
    patches = tokens[:, 5:].mean(1)
    torch.testing.assert_close(own, tokens[:, 0])
    torch.testing.assert_close(mean.embedding, patches)
    torch.testing.assert_close(both.embedding, torch.cat([tokens[:, 0], patches], 1))
    assert mean.logits.shape == (3, 0)
    assert Repooled(dino(), "both").taps["embedding"] == (48,)


def test_pooling_is_in_the_identity_and_only_where_it_is_chosen():
    plain, pooled = dino(), Repooled(dino(), "mean")
    assert pooled.identity() == {**plain.identity(), "pooling": "mean"}
    assert pooled.weights_digest() == plain.weights_digest()
    pooled.keep_taps(["block2"])
    assert list(pooled.eval()(IMAGES).features) == ["block2"]


def test_a_network_with_classes_keeps_its_pooling():
    with pytest.raises(ModelError, match="cannot be pooled in another way"):
        Repooled(dino(classes=4), "mean")


@pytest.mark.parametrize("projected", [True, False])
def test_logits_are_scaled_cosines_of_image_and_text(projected: bool):
    inner = dino(classes=16 if projected else 0)
    text = texts(16 if projected else 24)
    network = WithTextHead(inner, text).eval()
    with torch.no_grad():
        signals, raw = network(IMAGES), inner(IMAGES)
    vector = raw.logits if projected else raw.embedding
    expected = 10 * F.cosine_similarity(vector[:, None], text.text[None], dim=2)
    torch.testing.assert_close(signals.logits, expected)
    assert signals.head is not None
    torch.testing.assert_close(signals.head(signals.embedding), signals.logits)
    assert not signals.head.linear
    assert network.taps["logits"] == (3,)
    assert network.taps["embedding"] == (len(text.text[0]),)
    assert network.identity()["num_classes"] == 3
    assert network.identity()["text_head"] == text.digest() != texts(len(text.text[0]), 11.0).digest()


def test_text_of_another_width_is_refused():
    with pytest.raises(ModelError, match="does not end in the space of the text embeddings"):
        WithTextHead(dino(), texts(16))


def test_files_of_text_embeddings(tmp_path: Path):
    text = 3 * torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    np.save(tmp_path / "text.npy", text.numpy())
    save_file({"text": text, "scale": torch.tensor(7.0)}, tmp_path / "text.safetensors", {"names": json.dumps(NAMES)})
    plain, named = (TextEmbeddings.read(tmp_path / name) for name in ("text.npy", "text.safetensors"))
    torch.testing.assert_close(plain.text, F.normalize(text, dim=1))
    assert (plain.scale, plain.names) == (100.0, ())
    assert (named.scale, named.names) == (7.0, NAMES)
    named.require_classes(NAMES, tmp_path)
    with pytest.raises(ModelError, match="are not of the classes of the data"):
        plain.require_classes(NAMES[:2], tmp_path)
    with pytest.raises(ModelError, match="in another order"):
        named.require_classes(NAMES[::-1], tmp_path)


def test_files_that_hold_no_text_embeddings(tmp_path: Path):
    text = torch.randn(3, 8)
    np.save(tmp_path / "flat.npy", np.zeros(3))
    np.save(tmp_path / "complex.npy", np.ones((3, 8), complex))
    (tmp_path / "broken.npy").write_bytes(b"no array")
    save_file({"other": torch.zeros(3, 8)}, tmp_path / "other.safetensors")
    save_file({"text": torch.zeros(0, 8)}, tmp_path / "empty.safetensors")
    save_file({"text": torch.stack([text[0], text[1], 0 * text[2]])}, tmp_path / "zero.safetensors")
    save_file({"text": text, "scale": torch.ones(2)}, tmp_path / "scales.safetensors")
    save_file({"text": text, "scale": torch.tensor(torch.inf)}, tmp_path / "scale.safetensors")
    for number, names in enumerate(('"abc"', '{"a": 1, "b": 2, "c": 3}', "[1, 2, 3]", "no list")):
        save_file({"text": text}, tmp_path / f"names{number}.safetensors", {"names": names})
    for name, what in {
        "flat.npy": "does not hold text embeddings",
        "complex.npy": "cannot be read",
        "broken.npy": "cannot be read",
        "other.safetensors": r"does not hold(?s:.*)got: other float32 \[3, 8\]",
        "empty.safetensors": "does not hold",
        "zero.safetensors": "no direction(?s:.*)row 2",
        "scales.safetensors": "one number above 0",
        "scale.safetensors": "one number above 0",
        **{f"names{number}.safetensors": "JSON list of strings" for number in range(4)},
        "missing.npy": "no such file of text embeddings",
        "missing.safetensors": "no such file of text embeddings",
    }.items():
        with pytest.raises(ModelError, match=what):
            TextEmbeddings.read(tmp_path / name)


@pytest.mark.parametrize("other", [{"head": "none"}, {"text_head": "text.npy"}])
def test_classes_are_chosen_of_a_classifier(other: dict[str, str]):
    with pytest.raises(ValueError, match="leave"):
        TeacherConfig.model_validate({"model": "resnet18", "classes": [0, 1], **other})
