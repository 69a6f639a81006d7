"""DiffKD: the student is a noisy teacher, so a diffusion model of the teacher cleans it before both are compared.

Huang, Zhang, Zheng, You, Wang, Qian and Xu, "Knowledge Diffusion for Distillation", NeurIPS 2023, arXiv 2305.15712,
and the authors' code. With an autoencoder E, D of the teacher's last map F_t, a noise predictor ε_θ, noise ε, a linear
r and a projection p (1 x 1 convolution, batch normalisation), γ in (0, 1) of each sample told by a small network:

    x = γ r(F_s) + (1 - γ) ε,   x̂ = five DDIM steps from x by ε_θ                  noise made up to the model's level
    feature          mean (p(x̂) - E(F_t))²
    noise            mean (ε_θ(√ᾱ_t E(F_t) + √(1 - ᾱ_t) ε', t) - ε')²,   t uniform in 0 ... 999
    reconstruction   mean (D(E(F_t)) - F_t)²

E(F_t) is a constant in the first two. Likewise for logits, without autoencoder: `logits`, the KL divergence of the
cleaned student's from the teacher's at temperature 1, and `logit-noise`. All five have weight 1, beside hard labels.

ε_θ has two bottlenecks with a learned embedding of t, and 1 x 1 layers for logits, as in the code. The noise is keyed
by seed, step and a row's rank among the samples of the batch, not by a global generator. Deviations: E has half of the
teacher's channels always (`width`), where the code leaves it out for narrow teachers; layers for logits are four times
as wide as there are classes, at most `logit_width`. r has no norm, as in the code.

Approximate offline: the diffusion is over the cached grid, a smaller map than the teacher's own, and the student's is
reduced to it. Heavy: ε_θ runs six times, five of them after each other; on small grids that is cheap. With 1,000
classes the logits' part is most of it: `logits: false`, or a smaller `logit_width`, where the student is small.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.config import Section
from pipeline.objectives.base import Batch, BlockPair, Context, Objective
from pipeline.objectives.diffusion import TIMES, RowNoise, denoised, noisy_by, signal_left
from pipeline.objectives.divergence import kl_divergence
from pipeline.objectives.layers import Convolution, Mixture, squared_errors
from pipeline.objectives.maps import Connector, common_grid, needs_of, on_one_grid, pair_maps
from pipeline.objectives.precision import precise
from pipeline.objectives.requirements import require_same_classes
from pipeline.objectives.sample_objective import SampleObjective
from pipeline.signals import Signals, SignalShapes

READS = ("features", "logits")


class Options(Section):
    """steps: of denoising. width: channels of the compressed map, default half of the teacher's.

    logits: whether logits are compared, too. logit_width: the widest layer for them.
    """

    steps: int = Field(5, gt=0, le=TIMES // 2)
    width: int | None = Field(None, gt=0)
    logits: bool = True
    logit_width: int = Field(512, gt=0)


class Bottleneck(nn.Module):
    """A 1 x 1, a 3 x 3 and a 1 x 1 convolution through fewer channels, beside the identity."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        inner = max(1, channels // reduction)
        first, second, third = Connector(channels, inner), Convolution(inner, inner, 3), Connector(inner, channels)
        self.block = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)

    def forward(self, maps: Tensor) -> Tensor:
        """[B, C, h, w] to the same."""
        result: Tensor = precise(maps) + self.block(maps)
        return result


def _for_maps(channels: int) -> tuple[nn.Sequential, nn.Sequential]:
    """The noise predictor and what tells γ."""
    predictor = nn.Sequential(Bottleneck(channels, 4), Bottleneck(channels, 4), Connector(channels, channels))
    return predictor, nn.Sequential(Bottleneck(channels, 8))


def _for_vectors(channels: int, most: int) -> tuple[nn.Sequential, nn.Sequential]:
    """The same for maps of one cell."""
    width, half = min(4 * channels, most), min(2 * channels, most)
    predictor = nn.Sequential(
        *(Connector(channels, width), nn.ReLU(), Connector(width, channels)),
        *(Connector(channels, width), nn.ReLU(), Mixture(width, channels)),
    )
    return predictor, nn.Sequential(Connector(channels, half), nn.ReLU(), Connector(half, channels))


class Diffusion(nn.Module):
    """A diffusion model of the teacher's maps [B, C, h, w], and the way of a student's [B, C_s, h, w] through it."""

    start: Tensor
    noise: Tensor
    left: Tensor
    times: Tensor

    def __init__(self, inputs: int, channels: int, parts: tuple[nn.Sequential, nn.Sequential], steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.enter, self.leave = Mixture(inputs, channels), Connector(channels, channels)
        self.predictor, self.level = parts
        self.time = nn.Embedding(TIMES, channels)
        self.share = nn.Linear(channels, 1)
        for name in ("start", "noise", "left", "times"):
            self.register_buffer(name, torch.empty(0), persistent=False)

    def draw(self, random: RowNoise, shape: tuple[int, ...]) -> None:
        """Draw what a step wants: noise for the student's maps, of a shape, times and noise for the teacher's."""
        like = torch.empty(shape, device=random.rank.device)
        self.start = random.normal(like)
        self.times = random.times()
        self.noise, self.left = random.normal(like), signal_left(self.times)

    def predict(self, x: Tensor, time: Tensor) -> Tensor:
        """The noise that ε_θ sees in x [B, C, h, w] at times whose embeddings are [B, C] or [1, C]."""
        return precise(self.predictor(x + time[..., None, None]))

    def clean(self, student: Tensor) -> Tensor:
        """p(x̂) of the student's maps."""
        entered = precise(self.enter(student))
        share = precise(self.share(self.level(entered).mean((2, 3)))).sigmoid()[..., None, None]
        x = share * entered + (1 - share) * self.start.to(entered.dtype)
        every = self.time.weight  # of which a slice needs no index on the device
        x = denoised(x, lambda y, time: self.predict(y, every[time : time + 1]), self.steps)
        cleaned: Tensor = self.leave(x)
        return cleaned

    def noise_losses(self, teacher: Tensor) -> Tensor:
        """Return the mean squared error of the noise seen in the teacher's maps, [B]."""
        noise = self.noise.to(teacher.dtype)
        return squared_errors(self.predict(noisy_by(teacher, noise, self.left), self.time(self.times)), noise)


class DiffKD(SampleObjective):
    """Distances after denoising, and the losses by which the diffusion models learn."""

    def __init__(self, pair: BlockPair, low_pass: str, classes: int, seed: int, options: Options) -> None:
        super().__init__()
        self.pair, self.low_pass, self.seed = pair, low_pass, seed
        own, theirs = pair.student_shape[0], pair.teacher_shape[0]
        width = options.width or max(1, theirs // 2)
        grid = common_grid(pair.student_shape[1:], pair.teacher_shape[1:])
        assert grid is not None  # others are no pair
        self.width, self.grid, self.classes = width, grid, classes
        self.encoder, self.decoder = Connector(theirs, width), Mixture(width, theirs)
        self.maps = Diffusion(own, width, _for_maps(width), options.steps)
        self.logits: Diffusion | None = None
        if options.logits:
            self.logits = Diffusion(classes, classes, _for_vectors(classes, options.logit_width), options.steps)
        self.needs = needs_of([pair], *(("logits",) if options.logits else ()))

    def prepare(self, batch: Batch, progress: float) -> None:
        """Draw the noise of the step."""
        random, rows = RowNoise(batch, self.seed), len(batch.sample)
        self.maps.draw(random, (rows, self.width, *self.grid))
        if self.logits is not None:
            self.logits.draw(random, (rows, self.classes, 1, 1))

    def of_samples(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Terms `feature`, `noise`, `reconstruction` and, unless left out, `logits` and `logit-noise`."""
        s, t = on_one_grid(student.features[self.pair.student], teacher.features[self.pair.teacher], self.low_pass)
        encoded = self.encoder(t)
        latent = encoded.detach()
        terms = {
            "feature": squared_errors(self.maps.clean(s), latent),
            "noise": self.maps.noise_losses(latent),
            "reconstruction": squared_errors(self.decoder(encoded), t),
        }
        if self.logits is not None:
            z, known = student.logits[..., None, None], precise(teacher.logits)
            cleaned = self.logits.clean(z)[..., 0, 0]
            terms["logits"] = kl_divergence(cleaned, known)
            terms["logit-noise"] = self.logits.noise_losses(known[..., None, None])
        return terms


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Takes the deepest blocks; refuses maps of other proportions, and different classes if logits are compared."""
    if options.logits:
        require_same_classes(student, teacher, key)
    pair = pair_maps(student, teacher, None, key, deepest=True)[-1]
    return DiffKD(pair, teacher.filter, teacher.classes, context.seed, options)
