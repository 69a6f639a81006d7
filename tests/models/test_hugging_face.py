"""Image classifiers of transformers: the same outputs as its own, from folders that it writes; nothing is executed."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.errors import ModelError
from pipeline.experiment.networks import build
from pipeline.models import ModuleNetwork, NetworkConfig, build_network, preprocessing_of
from pipeline.models.build import class_names

transformers: Any = pytest.importorskip("transformers")

MEAN, STD = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
SWIN = {"image_size": 32, "patch_size": 2, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}
MOBILE = {
    "image_size": 64,
    "hidden_sizes": [8, 8, 8],
    "neck_hidden_sizes": [4, 4, 4, 8, 8, 8, 16],
    "num_attention_heads": 2,
}
VIT = {"image_size": 16, "patch_size": 4, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
CONFIGS = {
    "swin": ("SwinConfig", SWIN),
    "mobilevit": ("MobileViTConfig", MOBILE),
    "vit": ("ViTConfig", VIT | {"intermediate_size": 8}),
    "dinov2": ("Dinov2WithRegistersConfig", VIT | {"num_register_tokens": 3}),
}


def saved(folder: Path, family: str, classes: int = 5, **images: Any) -> Any:
    """A tiny model in the folder, as transformers writes it. images: of its `preprocessor_config.json`."""
    name, options = CONFIGS[family]
    config = getattr(transformers, name)(**options, num_labels=classes)
    torch.manual_seed(0)
    model = transformers.AutoModelForImageClassification.from_config(config)
    model.save_pretrained(folder)
    said = {"image_mean": MEAN, "image_std": STD, "resample": 3, "do_normalize": True} | images
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    return model.eval()


def test_images_that_are_resized_otherwise_are_refused_unless_it_is_said_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number, how in ((0, "nearest"), (1, "lanczos")):
        saved(Path("model"), "vit", resample=number)
        with pytest.raises(ModelError, match=f"resized in another way than there is here\n.*\n.*\n  got: {how}"):
            build_network("hf/./model", 5, "pretrained")
    assert build_network("hf/./model", 5, "pretrained", interpolation="bilinear").interpolation == "bilinear"
    saved(Path("model"), "vit", resample=0, do_resize=False)
    assert build_network("hf/./model", 5, "pretrained").interpolation == "bilinear"


def pixels(size: int) -> Tensor:
    return torch.randint(0, 256, (2, 3, size, size), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("family", "maps"),
    [
        ("swin", [(8, 16, 16), (16, 8, 8)]),
        ("mobilevit", [(4, 16, 16), (8, 8, 8), (8, 4, 4), (16, 2, 2)]),
        ("vit", [(8, 4, 4), (8, 4, 4)]),
        ("dinov2", [(8, 4, 4), (8, 4, 4)]),
    ],
)
def test_outputs_are_those_of_transformers(
    family: str, maps: list[tuple[int, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    flip = family == "mobilevit"
    plain = saved(Path("model"), family, do_flip_channel_order=flip)
    network = build_network("hf/./model", 5, "pretrained").eval()
    assert isinstance(network, ModuleNetwork)
    assert (network.mean, network.std, network.interpolation) == (MEAN, STD, "bicubic")
    assert [shape for tap, shape in network.taps.items() if tap.startswith("block")] == maps
    images = pixels(CONFIGS[family][1]["image_size"])  # type: ignore[arg-type]
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    x = (images / 255 - mean) / std
    with torch.no_grad():
        said, expected = network(images), plain(x.flip(1) if flip else x).logits
        torch.testing.assert_close(said.logits, expected)
        torch.testing.assert_close(said.head(said.embedding), expected)
        if family == "vit":
            hidden = plain(x, output_hidden_states=True).hidden_states[1]
            torch.testing.assert_close(said.features["block1"].flatten(2), hidden[:, 1:].transpose(1, 2))

    network.save(tmp_path / "student.safetensors")  # and back into transformers
    Path("again").mkdir()
    Path("again/config.json").write_bytes(Path("model/config.json").read_bytes())
    Path("again/model.safetensors").write_bytes(Path("student.safetensors").read_bytes())
    again = transformers.AutoModelForImageClassification.from_pretrained("again")
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, plain.state_dict()[name])


def test_weights_begin_a_network_of_other_classes_and_of_none(tmp_path: Path) -> None:
    plain = saved(tmp_path / "model", "vit")
    name = f"hf/{tmp_path}/model"
    assert class_names(name) == [f"LABEL_{k}" for k in range(5)]
    begun = build_network(name, 3, start="pretrained", seed=1)
    assert begun.kept is not None
    assert begun.kept.new == ("classifier.weight", "classifier.bias")
    headless = build_network(name, 0, "pretrained").eval()
    chosen = build_network(name, 2, "pretrained", classes=["LABEL_4", 0]).eval()
    whole = build_network(name, 5, "pretrained").eval()
    with torch.no_grad():
        said = whole(pixels(16))
        torch.testing.assert_close(headless(pixels(16)).embedding, said.embedding)
        torch.testing.assert_close(chosen(pixels(16)).logits, said.logits[:, [4, 0]])
    assert torch.equal(begun.model.vit.layernorm.weight, plain.vit.layernorm.weight)
    with pytest.raises(ModelError, match="not for the classes of the data"):
        build_network(name, 3, "pretrained")


def test_options_are_keys_of_the_configuration(tmp_path: Path) -> None:
    saved(tmp_path / "model", "vit")
    name = f"hf/{tmp_path}/model"
    network = build_network(name, 4, options={"num_hidden_layers": 3}, seed=0)
    assert len(network.model.vit.layers) == 3
    assert network.weights_digest() == build_network(**network.identity(), seed=0).weights_digest()
    for wrong, what in (
        ({"num_hiden_layers": 3}, "did you mean 'num_hidden_layers'"),
        ({"num_labels": 3}, "no option"),
        ({"num_hidden_layers": "x"}, r"cannot have the option num_hidden_layers='x'"),
    ):
        with pytest.raises(ModelError, match=what):
            build_network(name, 4, options=wrong)
    assert NetworkConfig(model=name).described_by == (tmp_path / "model",)


def test_scaled_pixels_are_normalised_as_transformers_does(tmp_path: Path) -> None:
    saved(tmp_path, "vit", rescale_factor=1 / 127.5, rescale_offset=True, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    found = preprocessing_of(f"hf/{tmp_path}")
    for pixel in (0, 100, 255):
        assert (pixel / 127.5 - 1 - 0.5) / 0.5 == pytest.approx((pixel / 255 - found.mean[0]) / found.std[0], abs=1e-6)
    saved(tmp_path, "vit", do_normalize=False)
    assert preprocessing_of(f"hf/{tmp_path}").mean == (0.0, 0.0, 0.0)


def test_pixels_that_are_not_scaled_are_normalised_as_they_are(tmp_path: Path) -> None:
    saved(tmp_path, "vit", do_rescale=False, image_mean=[120.0, 110.0, 100.0], image_std=[60.0] * 3)
    found = preprocessing_of(f"hf/{tmp_path}")
    normalised = (200 / 255 - found.mean[1]) / found.std[1]
    assert normalised == pytest.approx((200 - 110) / 60, abs=1e-6)


@pytest.mark.parametrize(
    "said",
    [None, "{}", '{"image_mean": 0.5}', '{"image_mean": [0.5], "image_std": [0.0]}', '{"image_mean": [0.5, 0.5, 0.5]}'],
)
def test_weights_of_which_no_file_says_how_images_are_normalised_are_refused(said: str | None, tmp_path: Path) -> None:
    saved(tmp_path, "vit")
    (tmp_path / "preprocessor_config.json").unlink()
    if said is not None:
        (tmp_path / "preprocessor_config.json").write_text(said)
    name = f"hf/{tmp_path}"
    for build_it in (
        partial(build_network, name),
        lambda count, weights: build(NetworkConfig(model=name, weights=weights), count),
    ):
        with pytest.raises(ModelError, match=r"(?s)not known how images were normalised.*do: name both"):
            build_it(5, "pretrained")
    assert build_network(name, 5, "pretrained", mean=MEAN, std=STD).std == STD
    assert build_network(name, 5, seed=0).mean == (0.5, 0.5, 0.5)  # random weights expect nothing


def test_files_that_transformers_writes_are_weights_whatever_their_names(tmp_path: Path) -> None:
    plain, name = saved(tmp_path, "vit"), f"hf/{tmp_path}"
    file = tmp_path / "model.safetensors"
    whole = build_network(name, 5, file)
    assert all(torch.equal(tensor, plain.state_dict()[key]) for key, tensor in whole.model.state_dict().items())
    begun = build_network(name, 3, start=file, seed=0)
    assert torch.equal(begun.model.vit.layers[1].mlp.fc1.weight, plain.vit.layers[1].mlp.fc1.weight)
    with pytest.raises(ModelError, match="not for the classes of the data"):
        build_network(name, 3, file)
    save_file({**load_file(file), "other.weight": torch.zeros(3)}, file)
    with pytest.raises(ModelError, match=r"unexpected 1 \(other\.weight\)"):
        build_network(name, 5, file)


def test_what_is_no_model_is_refused_and_nothing_is_executed(tmp_path: Path) -> None:
    for name in ("hf/", "hf/a/b/c", "hf-hub:a b"):
        with pytest.raises(ModelError, match="names no model on the hub"):
            build_network(name, 4)
    with pytest.raises(ModelError, match="there is no folder"):
        build_network(f"hf/{tmp_path}/none", 4)
    with pytest.raises(ModelError, match="there is no model"):
        build_network(f"hf/{tmp_path}", 4)
    code = {
        "model_type": "mine",
        "auto_map": {"AutoConfig": "code.Mine", "AutoModelForImageClassification": "code.Net"},
    }
    (tmp_path / "config.json").write_text(json.dumps(code))
    (tmp_path / "code.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')\n")
    with pytest.raises(ModelError, match="cannot be read"):
        build_network(f"hf/{tmp_path}", 4)
    assert not (tmp_path / "executed").exists()
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ModelError, match="cannot be built"):
        build_network(f"hf/{tmp_path}", 4)
