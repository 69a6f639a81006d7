"""Provides Decant for use from Python, without YAML: for any data set, any module and any training loop.

`import pipeline` gives all of these names; docs/python.md explains them with examples.
"""

from pipeline.api.cached_views import CachedViews
from pipeline.api.caching import cache_teacher
from pipeline.api.dataset import DatasetSplit
from pipeline.api.loss import DistillationLoss, objective
from pipeline.api.networks import as_network
from pipeline.api.packed import open_packed
from pipeline.api.view_lists import make_views
from pipeline.models import ModuleNetwork, TeacherNetwork, build_network

__all__ = [
    "CachedViews",
    "DatasetSplit",
    "DistillationLoss",
    "ModuleNetwork",
    "TeacherNetwork",
    "as_network",
    "build_network",
    "cache_teacher",
    "make_views",
    "objective",
    "open_packed",
]
