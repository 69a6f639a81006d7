"""Whether a published cache is still what was written: its files, its views, and what the teacher says today."""

from pipeline.store.verify.files import FilesReport, check_files, verify_files
from pipeline.store.verify.report import Asking, CacheReport, ask_again
from pipeline.store.verify.sample import sampled
from pipeline.store.verify.teacher import Limits, TeacherReport, verify_teacher
from pipeline.store.verify.views import ViewsReport, replay, verify_views

__all__ = [
    "Asking",
    "CacheReport",
    "FilesReport",
    "Limits",
    "TeacherReport",
    "ViewsReport",
    "ask_again",
    "check_files",
    "replay",
    "sampled",
    "verify_files",
    "verify_teacher",
    "verify_views",
]
