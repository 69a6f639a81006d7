"""Builds teachers and students, timm's and any other library's, with taps and heads."""

from pipeline.models.base import Network
from pipeline.models.build import build_network
from pipeline.models.config import NetworkConfig, TeacherConfig, TeacherSection, WeightsSource
from pipeline.models.fit import Kept
from pipeline.models.module_network import ModuleNetwork
from pipeline.models.preprocessing import NEUTRAL, Preprocessing, preprocessing_of
from pipeline.models.reused import WithReusedHead
from pipeline.models.teacher_network import TeacherNetwork
from pipeline.models.trained import expected_by
from pipeline.models.weights import load_weights

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
