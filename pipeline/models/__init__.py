"""Builds teachers and students, timm's and any other library's, with taps and heads."""

from typing import TYPE_CHECKING

from pipeline.late import late_names
from pipeline.models.config import NetworkConfig, TeacherConfig, TeacherSection, WeightsSource
from pipeline.models.preprocessing import NEUTRAL, Preprocessing, preprocessing_of

if TYPE_CHECKING:
    from pipeline.models.base import Network
    from pipeline.models.build import build_network
    from pipeline.models.fit import Kept
    from pipeline.models.module_network import ModuleNetwork
    from pipeline.models.reused import WithReusedHead
    from pipeline.models.teacher_network import TeacherNetwork
    from pipeline.models.trained import expected_by
    from pipeline.models.weights import load_weights
else:
    __getattr__ = late_names(
        __name__,
        base="Network",
        build="build_network",
        fit="Kept",
        module_network="ModuleNetwork",
        reused="WithReusedHead",
        teacher_network="TeacherNetwork",
        trained="expected_by",
        weights="load_weights",
    )

__all__ = [
    "NEUTRAL",
    "Kept",
    "ModuleNetwork",
    "Network",
    "NetworkConfig",
    "Preprocessing",
    "TeacherConfig",
    "TeacherNetwork",
    "TeacherSection",
    "WeightsSource",
    "WithReusedHead",
    "build_network",
    "expected_by",
    "load_weights",
    "preprocessing_of",
]
