"""Adds what a teacher is worth to what is known of its cache."""

from __future__ import annotations

import sys

from pipeline.errors import CacheError, ModelError, first_line
from pipeline.inspection.summary import Facts
from pipeline.measuring.teacher_worth import open_for_worth, teacher_worth
from pipeline.progress import Progress


def with_worth(facts: Facts, *, whole: bool = False, progress: Progress | None = None) -> Facts:
    """Return the facts of a finished cache with `worth`, before what tells where it is from.

    Args:
        facts: an entry of what `describe` returns.
        whole, progress: as for `teacher_worth`.

    Of a cache that is damaged, `worth` is None, with a note: the rest is known all the same, and `verify` says what is
    wrong.
    """
    found = None
    try:
        found = teacher_worth(open_for_worth(facts["path"]), whole=whole, progress=progress)
    except (CacheError, ModelError) as error:
        print(f"note: what the teacher is worth is not known: {first_line(error)}", file=sys.stderr)
    end = ("provenance", "fingerprint")
    known = {key: value for key, value in facts.items() if key not in end}
    return {**known, "worth": found and found.facts(), **{key: facts[key] for key in end}}
