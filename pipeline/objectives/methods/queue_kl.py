"""queue-KL: a sample resembles a queue of the teacher's embeddings in the student as it does in the teacher.

The distillation of LightlyTrain, method v1 of its release, and the global term of v3, after the authors' code; the
form is that of SEED (Fang et al., ICLR 2021, arXiv 2101.04731). P is a learned linear map of the student's embedding to
the teacher's width, Q the rows of a queue: the teacher's embeddings of the batch and of M other samples; all of length
one:

    p_t(b) = softmax_q(<f_t(b), q> / τ),   p_s(b) = softmax_q(<P f_s(b), q> / τ),   L = (1/B) Σ_b KL(p_t(b) ‖ p_s(b))

Recipe of the code: τ = 0.07 and a queue of at most 8,192, of which the batch is a part; weight 1, no hard labels. It
reads no label and works on unlabeled images. Exact from a cache.

Deviation: the queue is read from the cache. The code's holds the embeddings of the last batches, and rows of zeros
until it is full, which take part. Here it is a draw of M different samples, their embeddings in the lowest view of the
batch, and another draw every `refresh` steps: in so many steps the code's queue is another one too. So it is full at
the first step, a run that is resumed has the queue that it had, and a checkpoint holds none of it. A sample of the
batch that is drawn as well counts once.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.config import Section
from pipeline.objectives.ahead import Ahead
from pipeline.objectives.bank import draw_samples
from pipeline.objectives.base import Batch, Context, Objective
from pipeline.objectives.batch import to_device
from pipeline.objectives.embedding import EMBEDDINGS, embeddings
from pipeline.objectives.precision import precise
from pipeline.objectives.requirements import embedding_widths
from pipeline.objectives.sample_objective import SampleObjective
from pipeline.signals import Signals, SignalShapes
from pipeline.signals.unit import unit

READS = ("embedding",)

LEFT_OUT = -1e9
"""In place of a score: its probability is 0, and its logarithm is finite."""


class Options(Section):
    """Configures the objective.

    queue: M, of samples beside the batch; all of them where there are fewer. temperature: τ > 0. refresh: the steps
    after which other samples are drawn; to read M embeddings takes some time.
    """

    queue: int = Field(8192, gt=0)
    temperature: float = Field(0.07, gt=0)
    refresh: int = Field(64, gt=0)


def queue_divergence(student: Tensor, teacher: Tensor, queue: Tensor, temperature: float, left_out: Tensor) -> Tensor:
    """Compute L of every sample, in nats: [B].

    student, teacher: [B, D], the former projected. queue: [M, D], of length one, beside the teacher's own rows.
    left_out: [M] bool, of the queue's rows.
    """
    of_student, of_teacher = unit(precise(student), dim=1), unit(precise(teacher), dim=1)
    queue = queue.to(of_teacher.dtype)
    logs = []
    with torch.autocast(queue.device.type, enabled=False):
        for x in (of_student, of_teacher):
            others = (x @ queue.T / temperature).masked_fill(left_out, LEFT_OUT)
            logs.append(torch.cat((x @ of_teacher.T / temperature, others), dim=1).log_softmax(1))
    s, t = logs
    return (t.exp() * (t - s)).sum(1)


class QueueKL(SampleObjective):
    """A linear map, the queue of these steps, and the divergence."""

    queue: Tensor
    drawn: Tensor

    needs = EMBEDDINGS

    def __init__(self, widths: tuple[int, int], context: Context, options: Options) -> None:
        super().__init__()
        self.context, self.options = context, options
        self.projector = nn.Linear(*widths)
        self.register_buffer("queue", torch.empty(0, widths[1]), persistent=False)
        self.register_buffer("drawn", torch.empty(0, dtype=torch.long), persistent=False)
        self._ahead, self._held = Ahead(self._read), (-1, -1)  # the number of the draw, and the view

    def prepare(self, batch: Batch, progress: float) -> None:
        """Read the queue, if these steps have another one than those before."""
        device, wanted = batch.sample.device, (batch.step // self.options.refresh, int(batch.on_cpu().view.min()))
        if wanted != self._held:
            drawn, queue = self._ahead.take(*wanted, ahead=device.type != "cpu")
            self.drawn, self.queue, self._held = to_device(drawn, device), to_device(queue, device), wanted

    def _read(self, draw: int, view: int) -> tuple[Tensor, Tensor]:
        """The samples of a draw and the teacher's embeddings of them: on the CPU."""
        drawn = draw_samples(self.context.num_samples, self.options.queue, self.context.seed, draw)
        assert self.context.bank is not None
        return drawn, unit(self.context.bank("embedding", drawn, view), dim=1)

    def of_samples(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """One term, `kl`."""
        s, t = embeddings(student, teacher)
        with torch.autocast(s.device.type, enabled=False):
            projected = self.projector(s)
        left_out = (self.drawn[:, None] == batch.sample).any(1)
        return {"kl": queue_divergence(projected, t, self.queue, self.options.temperature, left_out)}


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Refuses networks without embeddings."""
    return QueueKL(embedding_widths(student, teacher, key), context, options)
