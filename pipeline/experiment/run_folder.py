"""The folder that a training run leaves: its files, and the code that made them."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from pipeline.data import HELD_OUT
from pipeline.models.reused import HEAD_FILE
from pipeline.publishing import Scratch
from pipeline.untrusted import parse_json, read_file

METRICS = "metrics.json"
STUDENT = "student.safetensors"
RUN_FILES = frozenset(("config.yaml", "history.csv", METRICS, HELD_OUT))
"""What a run writes beside its fingerprint and its weights."""

PRINTING = ("pipeline.cli", "pipeline.commands", "pipeline.progress", "pipeline.allocator")
"""Code that decides what is printed and how fast, never what is written."""

METRICS_MAX_BYTES = 64 << 20


def run_files(weights: str = STUDENT) -> frozenset[str]:
    """Return the names of a run's files. A student may have a head of its own beside its weights."""
    return RUN_FILES | {weights} | ({HEAD_FILE} if weights == STUDENT else frozenset())


def imported_code() -> str:
    """Return `sha256:...` over the source of all modules of Decant that are imported by now.

    Asked at one place of a command, it is that of the code which decides what the command makes.
    """
    digest = hashlib.sha256()
    for name in sorted(sys.modules):
        file = getattr(sys.modules[name], "__file__", None)
        ours = name.split(".")[0] in ("pipeline", "stages") and not name.startswith(PRINTING)
        if ours and file is not None:
            digest.update(name.encode() + b"\0" + Path(file).read_bytes() + b"\0")
    return f"sha256:{digest.hexdigest()}"


class RunFolder(Scratch):
    """Holds the scratch folder of a training run. code: that of the modules which were imported when it was made.

    replace: whether another run, or one of other code, may be replaced. weights: the name of the file of weights.
    """

    def __init__(self, target: Path, fingerprint: str, weights: str = STUDENT, *, replace: bool, wait: bool) -> None:
        super().__init__(target, fingerprint, files=run_files(weights), wait=wait)
        self.weights, self.code, self._replace = weights, imported_code(), replace

    def kept(self) -> bool:
        """Whether the run need not be made: it is there, and, if it may be replaced, it was made by the same code.

        DVC runs a stage again, with `--replace`, when code changed, and the fingerprint knows nothing of code.
        Raises CacheMismatch if something is there that must not be replaced.
        """
        if self.done and (not self._replace or self._made_by() == self.code):
            print(f"{self.target}: already there")
            return True
        self.refuse_other(self._replace)
        return False

    def _made_by(self) -> object:
        try:
            return parse_json(read_file(self.target / METRICS, METRICS_MAX_BYTES, follow=True)).get("code")
        except (OSError, ValueError, AttributeError):
            return None
