"""Makes a network, as Decant uses it, of a `torch.nn.Module`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from pipeline.api.arguments import one_or_more
from pipeline.errors import ModelError
from pipeline.models import ModuleNetwork, Network
from pipeline.models.network import TimmNetwork
from pipeline.models.preprocessing import Interpolation, as_input_size

NORMALISATION_HINT = (
    "say what the module was trained with: mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225) is ImageNet's; "
    "mean=0, std=1 leaves pixels in [0, 1], for a module that normalises them itself"
)


def as_network(
    module: nn.Module,
    blocks: str | Sequence[str] | None = None,
    *,
    input_size: int | Sequence[int] | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    interpolation: Interpolation | None = None,
    head: str | None = "auto",
    name: str | None = None,
) -> Network:
    """Make a teacher or a student of a module: it takes uint8 images, and returns logits, embedding and maps.

    The module is shared, not copied: train, save and use it as before. A cache identifies it by its class and its
    weights.

    Args:
        module: takes float32 images [B, C, *input_size] and returns logits [B, K].
        blocks: paths of the modules whose outputs are kept as maps, from shallow to deep, as in
            `module.get_submodule`: `layer3`, `features.8`, `encoder.layers.5`. They are `block1`, `block2`, ... from
            then on, and methods that compare maps pair the last blocks of two networks, those before them, and so on.
            Outputs are maps [B, C, H, W] or [B, H, W, C], or tokens [B, L, C] of a square. None: of a timm model
            the ends of its stages, as the commands choose them; of others none. `auto`: found by running the module.
            One path needs no list.
        input_size: in pixels, one number or height and width; images of another size are resized. None: of a timm
            model, what it was made for.
        mean, std: of the channels, in units of the full range [0, 1]; a number stands for three alike, and a module
            for grey images has one value, `mean=(0.1,)`. None: of a timm model, what its weights expect.
        interpolation: `bilinear` or `bicubic`, antialiased, for images of another size. None: of a timm model, what
            its weights expect; else `bilinear`.
        head: the path of the last linear layer. `auto` finds it; None does without: there is no embedding then.
        name: what the network is called in a cache's identity; None is the name of its class. Two networks of one
            class with the same weights need two names if they compute something else.

    Raises:
        ModelError: a path that does not exist, a block that gives no map, a size or a normalisation that is not known.

    Example:
        >>> import torchvision
        >>> from pipeline import as_network
        >>> model = torchvision.models.resnet18(num_classes=10)
        >>> student = as_network(model, ["layer3", "layer4"], input_size=32, mean=0.5, std=0.25)
        >>> student.taps
        {'block1': (256, 2, 2), 'block2': (512, 1, 1), 'embedding': (512,), 'logits': (10,)}
    """
    if not isinstance(module, nn.Module):
        fix = "as_network(torchvision.models.resnet18(), ...); build_network takes the name of a model of timm"
        raise ModelError("this is not a torch.nn.Module", got=type(module).__name__, fix=fix)
    cfg: Mapping[str, Any] = _timm_facts(module)
    if input_size is None and cfg:
        input_size = cfg["input_size"][-2:]
    own_mean = _values(cfg.get("mean") if mean is None else mean)
    own_std = _values(cfg.get("std") if std is None else std)
    if input_size is None or own_mean is None or own_std is None:
        missing = [n for n, v in {"input_size": input_size, "mean": own_mean, "std": own_std}.items() if v is None]
        fix = NORMALISATION_HINT if missing != ["input_size"] else "say the side of its images in pixels: input_size=32"
        raise ModelError(
            f"it is not known how images become input of {type(module).__name__}",
            expected=", ".join(missing),
            got="a module that is not timm's, and no value",
            fix=fix,
        )
    if len(own_mean) != len(own_std) or not own_mean or min(own_std) <= 0:
        expected = "as many values of each, one for every channel, those of std above 0"
        raise ModelError("mean and std do not fit", expected=expected, got=f"mean={own_mean}, std={own_std}")
    if mean is not None and not all(0 <= value <= 1 for value in own_mean):
        fix = "divide them by 255, and std too, if they are of pixels from 0 to 255"
        raise ModelError("means lie in [0, 1], the range of pixels here", got=f"mean={own_mean}", fix=fix)
    if interpolation is None:
        interpolation = "bicubic" if cfg.get("interpolation") == "bicubic" else "bilinear"
    if cfg and blocks is None and head == "auto" and hasattr(module, "forward_intermediates") and len(own_mean) == 3:
        called = name or str(cfg.get("architecture") or type(module).__name__)
        classes = int(getattr(module, "num_classes", 0))
        return TimmNetwork(
            module,
            called,
            {},
            classes,
            as_input_size(input_size),
            own_mean,
            own_std,
            interpolation=interpolation,
        )
    return ModuleNetwork(
        module,
        None if blocks == "auto" else one_or_more(blocks),
        input_size=as_input_size(input_size),
        mean=own_mean,
        std=own_std,
        interpolation=interpolation,
        head=head,
        name=name,
    )


def _timm_facts(module: nn.Module) -> Mapping[str, Any]:
    """Return timm's `pretrained_cfg` of a model that timm built; an empty mapping for any other."""
    cfg = getattr(module, "pretrained_cfg", None)
    return cfg if isinstance(cfg, Mapping) and "input_size" in cfg else {}


def _values(given: float | Sequence[float] | None) -> tuple[float, ...] | None:
    if given is None:
        return None
    return (float(given),) * 3 if isinstance(given, int | float) else tuple(float(value) for value in given)
