from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from torch import Tensor

from pipeline.errors import ModelError
from pipeline.models import Kept, Network, build_network
from pipeline.models.fit import classifier_tensors

RESNET = "cifar_resnet8"


@pytest.fixture(scope="module")
def teacher() -> Network:
    return build_network(RESNET, 10, seed=1)


@pytest.fixture
def file(teacher: Network, tmp_path: Path) -> Path:
    torch.save(teacher.model.state_dict(), tmp_path / "ten.pth")
    return tmp_path / "ten.pth"


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Other names in the same order, which end as they did."""
    return {f"layer_{i}.{name.rpartition('.')[2]}": tensor for i, (name, tensor) in enumerate(state.items())}


def test_a_start_keeps_all_but_a_classifier_of_other_classes(teacher: Network, file: Path) -> None:
    network = build_network(RESNET, 4, start=file, seed=3)
    own, theirs, fresh = network.model.state_dict(), teacher.model.state_dict(), build_network(RESNET, 4, seed=3)
    assert network.kept == Kept(len(own) - 2, len(own), ("fc.weight", "fc.bias"))
    assert str(network.kept) == f"kept {len(own) - 2} of {len(own)} tensors; new: classifier"
    for name, tensor in own.items():
        assert torch.equal(tensor, fresh.model.state_dict()[name] if name.startswith("fc.") else theirs[name])
    assert build_network(RESNET, 4, start=file, seed=3).weights_digest() == network.weights_digest()
    assert build_network(RESNET, 4, start=file, seed=4).weights_digest() != network.weights_digest()


def test_a_classifier_that_fits_is_kept(teacher: Network, file: Path) -> None:
    network = build_network(RESNET, 10, start=file, seed=3)
    assert network.weights_digest() == teacher.weights_digest()
    assert network.kept is not None
    assert not network.kept.new
    assert "new" not in str(network.kept)


@pytest.mark.parametrize("lacks", [("fc.weight", "fc.bias"), ("fc.bias",)])
def test_half_a_classifier_is_none(teacher: Network, tmp_path: Path, lacks: tuple[str, ...]) -> None:
    state = {name: tensor for name, tensor in teacher.model.state_dict().items() if name not in lacks}
    torch.save({"state_dict": state}, tmp_path / "headless.pth")
    network = build_network(RESNET, 10, start=tmp_path / "headless.pth", seed=3)
    fresh = build_network(RESNET, 10, seed=3)
    assert torch.equal(network.model.fc.weight, fresh.model.fc.weight)
    assert network.kept is not None
    assert network.kept.new == ("fc.weight", "fc.bias")


def test_counters_that_a_file_lacks_are_not_counted(teacher: Network, tmp_path: Path) -> None:
    state = {k: v for k, v in teacher.model.state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "old.pth")
    assert build_network(RESNET, 4, start=tmp_path / "old.pth").kept == Kept(
        len(state) - 2, len(state), ("fc.weight", "fc.bias")
    )


@pytest.mark.parametrize("change", ["missing", "unexpected", "mismatched"])
def test_anything_else_that_does_not_fit_is_refused_by_name(teacher: Network, tmp_path: Path, change: str) -> None:
    state = dict(teacher.model.state_dict())
    if change == "missing":
        del state["conv1.weight"]
    else:
        state["more.weight" if change == "unexpected" else "conv1.weight"] = torch.ones(2)
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(ModelError, match="more.weight" if change == "unexpected" else "conv1.weight"):
        build_network(RESNET, 4, start=tmp_path / "other.pth")


def test_a_teacher_has_no_fresh_classifier(file: Path) -> None:
    with pytest.raises(ModelError, match="expected: 4 classes\n  got: 10") as caught:
        build_network(RESNET, 4, file)
    assert "teacher_training: {start: ...}" in str(caught.value)


def test_weights_and_start_exclude_each_other(file: Path) -> None:
    with pytest.raises(ModelError, match="not both"):
        build_network(RESNET, 10, file, start=file)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.module.", "model.", "_orig_mod."])
def test_what_frameworks_put_before_names(teacher: Network, tmp_path: Path, prefix: str) -> None:
    state = {prefix + name: tensor for name, tensor in teacher.model.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "a.ckpt")
    assert build_network(RESNET, 10, tmp_path / "a.ckpt").weights_digest() == teacher.weights_digest()


def test_other_names_are_mapped_by_order_on_request(teacher: Network, tmp_path: Path) -> None:
    path = tmp_path / "others.pth"
    torch.save(renamed(teacher.model.state_dict()), path)
    with pytest.raises(ModelError, match="`match: order`"):
        build_network(RESNET, 10, path)
    whole = build_network(RESNET, 10, path, match="order")
    assert whole.weights_digest() == teacher.weights_digest()
    begun = build_network(RESNET, 4, start=path, match="order", seed=0)
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(begun.eval()(images).embedding, teacher.eval()(images).embedding)
    assert "mapped by order; new: classifier" in str(begun.kept)


def test_order_does_without_counters_and_without_a_classifier(teacher: Network, tmp_path: Path) -> None:
    state = {k: v for k, v in teacher.model.state_dict().items() if "num_batches" not in k and not k.startswith("fc.")}
    torch.save(renamed(state), tmp_path / "backbone.pth")
    network = build_network(RESNET, 10, start=tmp_path / "backbone.pth", match="order")
    assert network.kept == Kept(len(state), len(state) + 2, ("fc.weight", "fc.bias"), by_order=True)
    assert all(torch.equal(network.model.state_dict()[name], tensor) for name, tensor in state.items())


def test_names_that_fit_are_never_mapped_by_order(teacher: Network, tmp_path: Path) -> None:
    """In another order, by which equal shapes would be exchanged."""
    torch.save(dict(reversed(teacher.model.state_dict().items())), tmp_path / "a.pth")
    network = build_network(RESNET, 10, tmp_path / "a.pth", match="order")
    assert network.weights_digest() == teacher.weights_digest()
    assert network.kept is not None
    assert not network.kept.by_order


def exchanged(state: dict[str, Tensor], one: str, other: str) -> dict[str, Tensor]:
    """A mapping with two entries in each other's place."""
    turned = {one: other, other: one}
    return {turned.get(name, name): state[turned.get(name, name)] for name in state}


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        (("bn1.weight", "bn1.bias"), "expected: bn1.weight"),  # of one shape: only what they are called tells
        (("bn1.running_mean", "bn1.running_var"), "differ: a mean and a variance"),
        (("conv1.weight", "bn1.weight"), "expected: conv1.weight"),
    ],
)
def test_another_order_is_refused(teacher: Network, tmp_path: Path, pair: tuple[str, str], words: str) -> None:
    torch.save(renamed(exchanged(teacher.model.state_dict(), *pair)), tmp_path / "a.pth")
    with pytest.raises(ModelError, match=words):
        build_network(RESNET, 10, tmp_path / "a.pth", match="order")


ELSEWHERE = {"weight": "gamma:0", "bias": "beta:0", "running_mean": "moving_mean:0", "running_var": "moving_variance:0"}


def as_elsewhere(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Named as TensorFlow names normalisations; all others end in parts that say nothing."""
    found = {}
    for i, (name, tensor) in enumerate(state.items()):
        module, _, last = name.rpartition(".")
        known = "bn" in module and last in ELSEWHERE
        found[f"unit_{i}/{ELSEWHERE[last]}" if known else f"unit_{i}/part_{i}"] = tensor
    return {name: tensor for name, tensor in found.items() if tensor.ndim}  # without counters


def test_other_words_for_the_same_are_mapped_by_order(teacher: Network, tmp_path: Path) -> None:
    torch.save(as_elsewhere(teacher.model.state_dict()), tmp_path / "a.pth")
    network = build_network(RESNET, 10, tmp_path / "a.pth", match="order")
    assert network.weights_digest() == teacher.weights_digest()


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        (("bn1.weight", "bn1.bias"), "differ: a weight and a bias"),
        (("bn1.bias", "bn1.running_mean"), "differ: a bias and a mean"),
        (("bn1.running_mean", "bn1.running_var"), "differ: a mean and a variance"),
    ],
)
def test_another_order_is_refused_in_other_words_too(
    teacher: Network, tmp_path: Path, pair: tuple[str, str], words: str
) -> None:
    """All four tensors of a normalisation have one shape."""
    torch.save(as_elsewhere(exchanged(teacher.model.state_dict(), *pair)), tmp_path / "a.pth")
    with pytest.raises(ModelError, match=words) as error:
        build_network(RESNET, 10, tmp_path / "a.pth", match="order")
    assert "save the checkpoint with its tensors in the order of the model's" in str(error.value)


def test_fewer_tensors_and_sorted_files_have_no_order(teacher: Network, tmp_path: Path) -> None:
    state = renamed(teacher.model.state_dict())
    torch.save(dict(list(state.items())[:-3]), tmp_path / "few.pth")
    with pytest.raises(ModelError, match="not as many"):
        build_network(RESNET, 10, tmp_path / "few.pth", match="order")
    safetensors.torch.save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(ModelError, match="in the order of their names"):
        build_network(RESNET, 10, tmp_path / "a.safetensors", match="order")


VIT: dict[str, Any] = {"patch_size": 4, "depth": 2, "embed_dim": 24, "num_heads": 3}


def test_timms_own_conversion_is_applied(tmp_path: Path) -> None:
    """timm interpolates position embeddings to the number of patches; all else stays."""
    small = build_network("vit_tiny_patch16_224", 10, options=VIT | {"img_size": 16}, seed=0)
    small.save(tmp_path / "small.safetensors")
    large = build_network(
        "vit_tiny_patch16_224", 4, start=tmp_path / "small.safetensors", options=VIT | {"img_size": 32}, seed=0
    )
    assert large.model.pos_embed.shape[1] == 1 + 8 * 8
    assert torch.equal(large.model.pos_embed[:, 0], small.model.pos_embed[:, 0])
    assert large.kept is not None
    assert large.kept.new == ("head.weight", "head.bias")


@pytest.mark.parametrize(
    ("model", "names"),
    [
        ("resnet18", ("fc.weight", "fc.bias")),
        ("convnext_atto", ("head.fc.weight", "head.fc.bias")),
        ("deit_tiny_distilled_patch16_224", ("head.weight", "head.bias", "head_dist.weight", "head_dist.bias")),
        ("mobilenetv3_small_050", ("classifier.weight", "classifier.bias")),
    ],
)
def test_classifiers_are_found(model: str, names: tuple[str, ...]) -> None:
    assert classifier_tensors(timm.create_model(model, num_classes=3)) == names
    assert classifier_tensors(timm.create_model(model, num_classes=0)) == ()


def published(folder: Path, classes: int) -> timm.models.ResNet:
    """A folder as timm's `local-dir:` reads it."""
    folder.mkdir()
    model = timm.create_model("test_resnet", num_classes=classes)
    safetensors.torch.save_file(model.state_dict(), folder / "model.safetensors")
    cfg = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "input_size": [3, 40, 40], "interpolation": "bicubic"}
    cfg |= {"num_classes": classes, "classifier": "fc", "first_conv": "conv1.0"}
    text = {"architecture": "test_resnet", "num_classes": classes, "pretrained_cfg": cfg}
    (folder / "config.json").write_text(json.dumps(text))
    return model


def test_pretrained_weights_of_a_folder(tmp_path: Path) -> None:
    theirs = published(tmp_path / "published", 7).state_dict()
    name = f"local-dir:{tmp_path / 'published'}"
    whole = build_network(name, 7, "pretrained")
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in whole.model.state_dict().items())
    assert (whole.mean, whole.std, whole.input_size) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 40)
    begun = build_network(name, 3, start="pretrained", seed=5)
    assert begun.kept == Kept(len(theirs) - 2, len(theirs), ("fc.weight", "fc.bias"))
    assert (begun.mean, begun.std, begun.interpolation) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bicubic")
    assert torch.equal(begun.model.layer1[0].conv1.weight, theirs["layer1.0.conv1.weight"])
    assert torch.equal(begun.model.fc.weight, build_network(name, 3, seed=5).model.fc.weight)
    with pytest.raises(ModelError, match="expected: 3 classes\n  got: 7"):
        build_network(name, 3, "pretrained")
