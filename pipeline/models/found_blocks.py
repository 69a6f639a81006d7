"""Finds the blocks of any module by running it: the deepest map at each size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from pipeline.models.hooks import MapForm, alike, recorded
from pipeline.models.taps import choose_blocks

POOLINGS = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d)


class _Candidate(NamedTuple):
    """A module whose output is a map, in the order in which modules finish."""

    path: str
    reduction: int
    places: int
    kind: type[nn.Module]
    leaf: bool


def find_blocks(model: nn.Module, pixels: Tensor) -> list[str]:
    """Return the paths of at most four blocks of a model, from shallow to deep; none where no module gives a map.

    Args:
        model: in evaluation mode.
        pixels: its input [B, C, H, W]; it is run once.

    As for timm's models: the deepest map at each of the deepest four reductions of the image, of whole blocks before
    layers within a block. Where all maps reduce alike (a ViT), the ends of four parts of equal depth among the blocks
    that follow one another.
    """
    candidates = _before_pooling(_candidates(model, pixels))
    by_reduction: dict[int, list[_Candidate]] = {}
    for each in candidates:
        by_reduction.setdefault(each.reduction, []).append(each)
    if len(by_reduction) > 1:
        # A layer within a block that goes on to reduce is no end of a block: it is counted how many such it is within.
        reductions = {each.path: each.reduction for each in candidates}
        ends = {reduction: _end(found, reductions) for reduction, found in by_reduction.items()}
        order = [each.path for each in candidates]
        paths = sorted(ends.values(), key=order.index)
        return [paths[i] for i in choose_blocks([reductions[path] for path in paths])]
    chain = _chain(candidates)
    return [chain[i] for i in choose_blocks([1] * len(chain))] if chain else []


def _candidates(model: nn.Module, pixels: Tensor) -> list[_Candidate]:
    """Every module that runs once and returns a map, in the order in which they finish."""
    paths = [path for path, _ in model.named_modules() if path]
    finished: list[str] = []
    handles = [
        model.get_submodule(path).register_forward_hook(lambda module, inputs, output, path=path: finished.append(path))
        for path in paths
    ]
    try:
        with recorded(model, paths) as records:
            model(pixels)
    finally:
        for handle in handles:
            handle.remove()
    image = (pixels.shape[2], pixels.shape[3])
    found = []
    for path in finished:
        output = records[path][0][1]
        if len(records[path]) != 1 or not isinstance(output, Tensor) or len(output) != len(pixels):
            continue
        form = MapForm.of(output, image)
        if form is None:
            continue
        height, width = form.map(output).shape[2:]
        if height > image[0] or width > image[1] or not alike(height, width, *image):  # windows of a grid are none
            continue
        reduction = max(1, round(image[0] / height))
        module = model.get_submodule(path)
        leaf = next(module.children(), None) is None
        found.append(_Candidate(path, reduction, height * width, type(module), leaf))
    return found


def _before_pooling(candidates: Sequence[_Candidate]) -> list[_Candidate]:
    """Leave out the last pooling over all places, and what follows it; also what is smaller than a later map.

    The last is so of the weights of channels (squeeze and excitation), whose pooling does not end the model.
    """
    last = max((i for i, each in enumerate(candidates) if issubclass(each.kind, POOLINGS)), default=None)
    if last is not None and all(each.places == 1 for each in candidates[last + 1 :]):
        candidates = candidates[:last]
    least, kept = 1 << 30, []
    for each in reversed(candidates):
        least = min(least, each.reduction)
        if each.reduction <= least and not issubclass(each.kind, POOLINGS):
            kept.append(each)
    return kept[::-1]


def _end(found: Sequence[_Candidate], reductions: dict[str, int]) -> str:
    def within(each: _Candidate) -> int:
        parents = [each.path[:i] for i, letter in enumerate(each.path) if letter == "."]
        return sum(reductions.get(parent, 0) > each.reduction for parent in parents)

    least = min(within(each) for each in found)
    return [each.path for each in found if within(each) == least][-1]


def _chain(candidates: Sequence[_Candidate]) -> list[str]:
    """The longest list of modules of one class in one parent, the outermost of several; layers only without others."""
    candidates = [each for each in candidates if not each.leaf] or candidates
    lists: dict[tuple[str, type[nn.Module]], list[str]] = {}
    for each in candidates:
        lists.setdefault((each.path.rpartition(".")[0], each.kind), []).append(each.path)
    if not lists:
        return []
    longest = max(len(paths) for paths in lists.values())
    if longest == 1:
        return [candidates[-1].path]
    return min((paths for paths in lists.values() if len(paths) == longest), key=lambda paths: paths[0].count("."))
