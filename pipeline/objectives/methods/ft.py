"""FT: the student's last map, translated, is the teacher's, paraphrased.

Kim, Park and Kwak, "Paraphrasing Complex Network: Network Compression via Factor Transfer", NeurIPS 2018, arXiv
1802.04977. A paraphraser, an encoder and a decoder, learns to reconstruct the teacher's last map from a factor with
`rate` times its channels; a translator, an encoder, makes a factor of the student's. q = vec(factor), at length one:

    reconstruction = mean over b, c, i of ( F_t(b, c, i) - decode(encode(F_t))(b, c, i) )²
    transfer       = mean over b and elements of | q_t(b) - q_s(b) |

Each encoder is three 3 x 3 convolutions with leaky ReLUs of slope 0.1 (the translator's with batch normalisation
before them), the decoder three more. The paraphraser comes first: in the first part of training, `paraphrase_first`,
it learns, and nothing is transferred; from then on it is kept as it is. In RepDistiller it learns alone for 30 epochs,
before the 240 of the student, 0.111 of all; here for 0.1 of them, while the student learns from the other objectives.

RepDistiller's weight is 200, beside hard labels, and the paraphraser of a ResNet learns at a learning rate of 0.01, a
fifth of the student's; at larger ones it may diverge. So that it has that fifth with the weight of 200, as SGD sees
it, `reconstruction_weight` is 1/1000. But RepDistiller reduces factors to one number for each cell (the mean square
over channels) before it compares them. Here they are compared in full, as in the paper: a vector of length one with C
times as many elements, C the factor's channels, each about √C times smaller, and so is the mean. A term of the size
of theirs takes a weight of about 200 √C for maps of one size: 1100 for the 32 channels of a ResNet-56's factor, 570
if these have 4 x 4 cells and theirs 8 x 8. (In the short trainings of `docs/results.md` a tenth of that was better.)
Whoever tries other strengths changes `transfer_weight`: the objective's `weight` changes the paraphraser's steps, too.

Approximate offline: the paraphraser reads, and the student is compared with, low-passed maps. Convolutions see cells
for pixels, so factors are those of the low frequencies. Exact if the cached grid is as large as the map
(`signals.features.grid`).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.config import Section
from pipeline.objectives.base import Batch, BlockPair, Context, Objective
from pipeline.objectives.layers import squared_errors
from pipeline.objectives.maps import CellNorm, needs_of, on_one_grid, pair_maps
from pipeline.objectives.precision import precise
from pipeline.objectives.sample_objective import SampleObjective
from pipeline.signals import Signals, SignalShapes
from pipeline.signals.unit import unit

READS = ("features",)


class Options(Section):
    """rate: channels of a factor for each of the teacher's. paraphrase_first: the share of training without transfer.

    reconstruction_weight: of the paraphraser's term. transfer_weight: of the other.
    blocks: the teacher's, default the deepest that is cached.
    """

    rate: float = Field(0.5, gt=0)
    paraphrase_first: float = Field(0.1, gt=0, lt=1)
    reconstruction_weight: float = Field(1 / 1000, gt=0)
    transfer_weight: float = Field(1.0, gt=0)
    blocks: tuple[str, ...] | None = None


def transfer_losses(student: Tensor, teacher: Tensor) -> Tensor:
    """The mean absolute difference of every sample [B], of factors [B, C, h, w], each of length one."""
    s, t = (unit(precise(factor).flatten(1), 1) for factor in (student, teacher))
    return (s - t).abs().mean(1)


def convolutions(*widths: int, norm: bool) -> nn.Sequential:
    """3 x 3 convolutions from width to width, each followed by a leaky ReLU; [B, C, h, w], the size stays."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers.append(nn.Conv2d(before, after, 3, padding=1, bias=not norm))
        layers += [CellNorm(after)] if norm else []
        layers.append(nn.LeakyReLU(0.1))
    return nn.Sequential(*layers)


class Transfer(nn.Module):
    """Paraphraser and translator of one pair of blocks."""

    def __init__(self, channels: int, width: int, rate: float) -> None:
        super().__init__()
        factor = max(1, int(width * rate))
        self.encoder = convolutions(width, width, factor, factor, norm=False)
        self.decoder = convolutions(factor, factor, width, width, norm=False)
        self.translator = convolutions(channels, channels, factor, factor, norm=True)

    def reconstruction(self, teacher: Tensor) -> Tensor:
        """The paraphraser's mean squared error of every sample [B]."""
        return squared_errors(self.decoder(self.encoder(teacher)), teacher)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The losses [B] of the transfer, of maps on one grid."""
        with torch.no_grad():
            factor = self.encoder(teacher)
        return transfer_losses(self.translator(student), factor)


class FT(SampleObjective):
    """The terms of all pairs of blocks, summed."""

    def __init__(self, pairs: list[BlockPair], options: Options, low_pass: str) -> None:
        super().__init__()
        self.pairs, self.options, self.low_pass = pairs, options, low_pass
        self.transfers = nn.ModuleList(
            Transfer(pair.student_shape[0], pair.teacher_shape[0], options.rate) for pair in pairs
        )
        self.needs = needs_of(pairs)

    def of_samples(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """One term, times its weight: first `reconstruction`, then `transfer`."""
        options = self.options
        first = progress < options.paraphrase_first
        losses = []
        for pair, transfer in zip(self.pairs, self.transfers, strict=True):
            assert isinstance(transfer, Transfer)
            s, t = on_one_grid(student.features[pair.student], teacher.features[pair.teacher], self.low_pass)
            losses.append(transfer.reconstruction(t) if first else transfer(s, t))
        total = torch.stack(losses).sum(0)
        if first:
            return {"reconstruction": options.reconstruction_weight * total}
        return {"transfer": total if options.transfer_weight == 1 else options.transfer_weight * total}


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Pairs the blocks; refuses those that are not cached."""
    return FT(pair_maps(student, teacher, options.blocks, key, deepest=True), options, teacher.filter)
