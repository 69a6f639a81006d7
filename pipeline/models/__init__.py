"""Models: teachers and students, which are timm models and the literature's CIFAR ResNets, with taps and heads."""

from pipeline.models.build import build_network
from pipeline.models.config import NetworkConfig, TeacherConfig
from pipeline.models.network import Network
from pipeline.models.reused import Reused
from pipeline.models.weights import load_weights

__all__ = ["Network", "NetworkConfig", "Reused", "TeacherConfig", "build_network", "load_weights"]
