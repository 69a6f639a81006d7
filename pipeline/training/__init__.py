"""Trains networks: batches of replayed views, optimisation, checkpoints and one loop for teachers and students."""

from typing import TYPE_CHECKING

from pipeline.late import late_names
from pipeline.training.config import TrainConfig

if TYPE_CHECKING:
    from pipeline.training.batches import Steps, refuse_too_many_views
    from pipeline.training.checkpoint import Checkpoint
    from pipeline.training.embeddings import ProbeViews
    from pipeline.training.fresh_views import FreshViews
    from pipeline.training.history import History
    from pipeline.training.linear_probe import ProbeResult, probe
    from pipeline.training.loading import loader
    from pipeline.training.loop import train
    from pipeline.training.memory import Memory
    from pipeline.training.optimisation import build_optimizer, build_scheduler
    from pipeline.training.replay import Verify, check_views
    from pipeline.training.result import TrainingResult
    from pipeline.training.step import Step
    from pipeline.training.teacher_outputs import FromCaches, ViewSource
else:
    __getattr__ = late_names(
        __name__,
        batches="Steps refuse_too_many_views",
        checkpoint="Checkpoint",
        embeddings="ProbeViews",
        fresh_views="FreshViews",
        history="History",
        linear_probe="ProbeResult probe",
        loading="loader",
        loop="train",
        memory="Memory",
        optimisation="build_optimizer build_scheduler",
        replay="Verify check_views",
        result="TrainingResult",
        step="Step",
        teacher_outputs="FromCaches ViewSource",
    )

__all__ = [
    "Checkpoint",
    "FreshViews",
    "FromCaches",
    "History",
    "Memory",
    "ProbeResult",
    "ProbeViews",
    "Step",
    "Steps",
    "TrainConfig",
    "TrainingResult",
    "Verify",
    "ViewSource",
    "build_optimizer",
    "build_scheduler",
    "check_views",
    "loader",
    "probe",
    "refuse_too_many_views",
    "train",
]
