"""UHKD: maps compared by how strong each of their frequencies is, not place by place.

After Yu, Pan, Zhang, Guan and Jiang, "UHKD: A Unified Framework for Heterogeneous Knowledge Distillation via
Frequency-Domain Representations", arXiv 2510.24116. **Ours after the abstract**: it establishes a Fourier transform of
the teacher's intermediate features, made compact (the feature transformation module), a learned module that brings the
student's to them (feature alignment), and squared errors at several levels, beside KL and hard labels. What follows is
our choice; published numbers of UHKD must not be compared with this file's.

    â(F) = ½ log(1 + |FFT(low(F))|²)    over the orthonormal real transform of the cached grid: [C, g, g/2 + 1]
    L = mean over k of mean ( φ_k(â(F_s^k)) - norm(â(F_t^k)) )²

φ: two 1 x 1 convolutions with batch normalisation and ReLU between them; norm: batch normalisation without anything
learned. The strengths alone, without phases: a transform that keeps lengths leaves the squared error of complex
numbers as it was in space (Parseval), and phases say where things lie, in which architectures differ. Strengths do
not change when a map is shifted around its border. The logarithm keeps the mean of a map from outweighing all else.

The KL term of the paper is `kd` beside it. Exact from a cache in that the grid is the compact representation, and the
student's maps are reduced alike: it holds the g x g lowest frequencies (with `dct`; with `mean` what lies above them is
folded in, too).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.config import Section
from pipeline.objectives.base import Batch, BlockPair, Context, Objective
from pipeline.objectives.layers import Mixture, squared_errors
from pipeline.objectives.maps import CellNorm, Connector, needs_of, on_one_grid, pair_maps
from pipeline.objectives.precision import precise
from pipeline.objectives.sample_objective import SampleObjective
from pipeline.signals import Signals, SignalShapes

READS = ("features",)


class Options(Section):
    """blocks: the teacher's, default all that are cached."""

    blocks: tuple[str, ...] | None = None


def strengths(maps: Tensor) -> Tensor:
    """â: the logarithms of the strengths of frequencies, [B, C, h, w] to [B, C, h, w // 2 + 1], 0 for silence."""
    transformed = torch.fft.rfft2(precise(maps), norm="ortho")
    strength: Tensor = transformed.real.square() + transformed.imag.square()
    return strength.log1p() / 2


class UHKD(SampleObjective):
    """The mean squared error of strengths over pairs of blocks."""

    def __init__(self, pairs: list[BlockPair], low_pass: str) -> None:
        super().__init__()
        self.pairs, self.low_pass = pairs, low_pass
        self.alignments = nn.ModuleList(
            nn.Sequential(
                Connector(pair.student_shape[0], pair.teacher_shape[0]),
                nn.ReLU(),
                Mixture(pair.teacher_shape[0], pair.teacher_shape[0]),
            )
            for pair in pairs
        )
        self.norms = nn.ModuleList(CellNorm(pair.teacher_shape[0], affine=False) for pair in pairs)
        self.needs = needs_of(pairs)

    def of_samples(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """One term, `frequencies`."""
        losses = []
        for pair, alignment, norm in zip(self.pairs, self.alignments, self.norms, strict=True):
            s, t = on_one_grid(student.features[pair.student], teacher.features[pair.teacher], self.low_pass)
            losses.append(squared_errors(alignment(strengths(s)), norm(strengths(t))))
        return {"frequencies": torch.stack(losses).mean(0)}


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Pairs the blocks; refuses maps of other proportions, and of a single place, which have no frequencies."""
    return UHKD(pair_maps(student, teacher, options.blocks, key, cells=2), teacher.filter)
