"""The teacher cache: what the teacher said of every view, in a Zarr store, with a manifest that says what it is.

`docs/cache-format.md` describes the store byte by byte.
"""

from pipeline.store.artifacts import finished
from pipeline.store.begun import units_begun
from pipeline.store.caching import Runner, cache_teacher, in_process
from pipeline.store.config import StoreConfig
from pipeline.store.encoded import EncodedSignals
from pipeline.store.expected import expected_plan
from pipeline.store.fingerprint import differences, fingerprint
from pipeline.store.identity import (
    asked_signals,
    cache_identity,
    data_identity,
    encodings_identity,
    signals_identity,
    teacher_identity,
    views_config,
    views_identity,
)
from pipeline.store.layout import StorePlan, plan
from pipeline.store.local import LocalWorkspace
from pipeline.store.location import RemotePath, StorePath, store_path
from pipeline.store.manifest import Manifest
from pipeline.store.reader import TeacherCache
from pipeline.store.remote import RemoteWorkspace
from pipeline.store.requests import RemoteCost, remote_cost
from pipeline.store.scratch import Scratch, say
from pipeline.store.store_files import files_at
from pipeline.store.summary import describe, summary_text
from pipeline.store.teacher_pass import TeacherPass, chosen_blocks
from pipeline.store.verify import (
    Asking,
    CacheReport,
    Limits,
    ask_again,
    check_files,
    replay,
    verify_files,
    verify_teacher,
)
from pipeline.store.writer import CacheWriter

__all__ = [
    "Asking",
    "CacheReport",
    "CacheWriter",
    "EncodedSignals",
    "Limits",
    "LocalWorkspace",
    "Manifest",
    "RemoteCost",
    "RemotePath",
    "RemoteWorkspace",
    "Runner",
    "Scratch",
    "StoreConfig",
    "StorePath",
    "StorePlan",
    "TeacherCache",
    "TeacherPass",
    "ask_again",
    "asked_signals",
    "cache_identity",
    "cache_teacher",
    "check_files",
    "chosen_blocks",
    "data_identity",
    "describe",
    "differences",
    "encodings_identity",
    "expected_plan",
    "files_at",
    "fingerprint",
    "finished",
    "in_process",
    "plan",
    "remote_cost",
    "replay",
    "say",
    "signals_identity",
    "store_path",
    "summary_text",
    "teacher_identity",
    "units_begun",
    "verify_files",
    "verify_teacher",
    "views_config",
    "views_identity",
]
