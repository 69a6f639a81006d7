"""Declares which sections are read together: what decides samples, caches, and what students learn from."""

from __future__ import annotations

from pipeline.data import DataSection
from pipeline.experiment.sections import CachesSection, EvaluateSection
from pipeline.models import TeacherSection
from pipeline.signals import SignalsSection
from pipeline.store.config import StoreSection
from pipeline.views import ViewsSection


class SampleSections(DataSection, ViewsSection):
    """Declares what decides the samples that are learnt from, and their views."""


class TaughtSections(DataSection, TeacherSection, StoreSection, EvaluateSection):
    """Declares what decides the caches beside the main one: of the holdout and of the split that is reported."""


class CacheSections(TaughtSections, SampleSections, SignalsSection):
    """Declares what decides every cache of an experiment."""


class ReferenceSections(TaughtSections, CachesSection):
    """Declares what decides the teachers that students are compared with."""


class LearningSections(CacheSections, ReferenceSections):
    """Declares what decides the teachers that students learn from, and are compared with."""
