"""Training: batches of replayed views, optimisation, checkpoints and the one loop for teachers and students."""

from pipeline.training.answers import AnswerSource, FromCaches
from pipeline.training.batches import Drawn, Step, Steps, loader, refuse_too_many_views
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.config import TrainConfig
from pipeline.training.embeddings import Seen
from pipeline.training.history import History
from pipeline.training.linear_probe import Probed, probe
from pipeline.training.loop import TrainingResult, train
from pipeline.training.memory import Memory
from pipeline.training.optimisation import build_optimizer, build_scheduler
from pipeline.training.replay import Verify, check_views

__all__ = [
    "AnswerSource",
    "Checkpoint",
    "Drawn",
    "FromCaches",
    "History",
    "Memory",
    "Probed",
    "Seen",
    "Step",
    "Steps",
    "TrainConfig",
    "TrainingResult",
    "Verify",
    "build_optimizer",
    "build_scheduler",
    "check_views",
    "loader",
    "probe",
    "refuse_too_many_views",
    "train",
]
