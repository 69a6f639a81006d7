"""SemCKD: each block of the student learns from all of the teacher's, as far as they mean the same, sample by sample.

Chen, Mei, Zhang, Wang, Wang, Feng and Chen, "Cross-Layer Distillation with Semantic Calibration", AAAI 2021, arXiv
2012.03236, and the authors' code. For sample b, student's block i and teacher's block j, with q_i, k_j small networks
of what the block says of b's likeness to the samples of the batch, unit vectors, and φ_ij a projector (1 x 1, 3 x 3
and 1 x 1 convolutions):

    α_b,i,j = softmax_j( <q_i(G_s^i(b)), k_j(G_t^j(b))> / τ ),   G(b)_c = <F(b), F(c)>
    L = (1 / (B n_s)) Σ_b Σ_i Σ_j α_b,i,j · mean (φ_ij(F_s^i(b)) - F_t^j(b))²

Deviation: the reference feeds the row G(b) itself to a network whose input has the length of the batch, so it skips
the last, smaller batch, and knows samples by their place in it, which is random. Here the row is told by its quantiles
(`quantiles` of them, from the least like to the most, which is mostly b itself; linear between neighbours): the same
for every order of the batch and of one length for all its sizes. What is lost is which sample was how alike, which
no place in a shuffled batch could say either. Products are means over channels and cells, not sums: a row is of the
size of a map's square, whatever the map's size.

Approximate offline: squared errors and products of low-passed maps are others than those of full maps; student's maps
are reduced to the cached grid before both. A teacher with one block leaves nothing to choose and is refused.
Projectors are twice as wide inside as the teacher's block, as in the code, at most `width`: 3 x 3 convolutions for all
pairs of blocks cost with the square of it.

Authors' recipe: weight 400 beside hard labels and KD, each with weight 1; τ = 1.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.config import Section
from pipeline.errors import ConfigError, Problem
from pipeline.objectives.base import Batch, Context, Needs, Objective, pair_blocks
from pipeline.objectives.layers import Convolution, Mixture
from pipeline.objectives.maps import Connector, common_grid, on_one_grid
from pipeline.objectives.precision import precise
from pipeline.objectives.sample_objective import SampleObjective
from pipeline.signals import Signals, SignalShapes
from pipeline.signals.lowpass import lowpass
from pipeline.signals.unit import unit

READS = ("features",)


class Options(Section):
    """blocks: the teacher's, default all that are cached; two at least. temperature: τ > 0, of the attention.

    quantiles: of a sample's likeness to the batch. attention_width: of queries and keys. width: the most channels
    inside projectors.
    """

    blocks: tuple[str, ...] | None = None
    temperature: float = Field(1.0, gt=0)
    quantiles: int = Field(32, gt=1)
    attention_width: int = Field(32, gt=0)
    width: int = Field(128, gt=0)


def likeness(maps: Tensor, quantiles: int) -> Tensor:
    """Quantiles of the products of every sample's map with those of the batch: [B, ...] to [B, quantiles].

    From the smallest product to the largest, evenly spaced, linear between two neighbours; a mean over what a map
    has of numbers. The order of the batch does not matter.
    """
    flat = precise(maps).flatten(1)
    with torch.autocast(maps.device.type, enabled=False):
        products = flat @ flat.T / flat.shape[1]
    ordered = products.sort(dim=1).values
    place = torch.linspace(0, len(flat) - 1, quantiles, dtype=flat.dtype, device=flat.device)
    below = place.floor().long().clamp(max=max(0, len(flat) - 2))
    above = (below + 1).clamp(max=len(flat) - 1)
    return torch.lerp(ordered[:, below], ordered[:, above], (place - below).expand(len(flat), -1))


def block_attention(queries: Tensor, keys: Tensor, temperature: float) -> Tensor:
    """How much each block i of the student learns from the teacher's j: [B, n_s, n_t], of sum one over j.

    queries: [B, n_s, E] and keys: [B, n_t, E], made unit vectors.
    """
    q, k = unit(precise(queries), 2), unit(precise(keys), 2)
    with torch.autocast(q.device.type, enabled=False):
        return (q @ k.transpose(1, 2) / temperature).softmax(2)


def _embedder(inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))


def _projector(inputs: int, outputs: int, most: int) -> nn.Sequential:
    width = min(2 * outputs, most)
    first, second = Connector(inputs, width), Convolution(width, width, 3)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), Mixture(width, outputs, bias=False))


class SemCKD(SampleObjective):
    """Squared errors between all blocks of both networks, weighted by attention."""

    def __init__(
        self, student: SignalShapes, teacher: SignalShapes, own: list[str], blocks: list[str], options: Options
    ) -> None:
        super().__init__()
        self.options, self.low_pass, self.own, self.theirs = options, teacher.filter, own, blocks
        sides = [side for block in blocks for side in teacher.features[block][1:]]
        self.coarsest, self.finest = min(sides), max(sides)
        inputs, width = options.quantiles, options.attention_width
        self.queries = nn.ModuleList(_embedder(inputs, width) for _ in self.own)
        self.keys = nn.ModuleList(_embedder(inputs, width) for _ in blocks)
        self.projectors = nn.ModuleList(
            _projector(student.features[i][0], teacher.features[j][0], options.width) for i in self.own for j in blocks
        )
        self.needs = Needs(
            teacher=frozenset(f"features/{block}" for block in blocks),
            student=frozenset(f"features/{block}" for block in self.own),
        )

    def of_samples(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """One term, `calibration`."""
        own = [lowpass(student.features[block], self.finest, self.low_pass) for block in self.own]
        theirs = [teacher.features[block] for block in self.theirs]
        of_student = [
            query(likeness(lowpass(maps, self.coarsest, self.low_pass), self.options.quantiles))
            for query, maps in zip(self.queries, own, strict=True)
        ]
        of_teacher = [key(likeness(maps, self.options.quantiles)) for key, maps in zip(self.keys, theirs, strict=True)]
        weights = block_attention(torch.stack(of_student, 1), torch.stack(of_teacher, 1), self.options.temperature)
        pairs = [on_one_grid(s, t, self.low_pass) for s in own for t in theirs]
        errors = [
            (precise(projector(s)) - t).square().flatten(1).mean(1)
            for projector, (s, t) in zip(self.projectors, pairs, strict=True)
        ]
        return {"calibration": (weights.flatten(1) * torch.stack(errors, 1)).sum(1) / len(own)}


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Refuses blocks that are not cached, a single one, and maps of other proportions."""
    blocks = [pair.teacher for pair in pair_blocks(teacher, teacher, options.blocks, key)]
    if len(blocks) < 2:
        what = "chooses among the teacher's blocks, and there is only one"
        fix = "cache more of them, or use fitnet to learn from one"
        raise ConfigError([Problem(key, what, got=", ".join(blocks), fix=fix)])
    own = [name for name in student.features if name.startswith("block")]
    odd = [
        f"{i} and {j}"
        for i in own
        for j in blocks
        if common_grid(student.features[i][1:], teacher.features[j][1:]) is None
    ]
    if odd:
        raise ConfigError([Problem(key, "the maps have other proportions", got=", ".join(odd))])
    return SemCKD(student, teacher, own, blocks, options)
