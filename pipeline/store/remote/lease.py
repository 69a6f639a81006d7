"""Gives one process at a time the right to make a store on object storage.

Object storage has no locks that are released when a process dies. So the holder renews an object, the claim, and a
claim that was not renewed for some time may be taken over. Its age is read from the server's clock alone. If many
processes try to take it, conditional puts let one succeed.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import uuid4

from pipeline.errors import CacheError, printable
from pipeline.store.location import RemotePath
from pipeline.store.remote.object_storage import ABSENT, Conflict, ObjectStat, ObjectStorage, Unconditional
from pipeline.untrusted import parse_json

if TYPE_CHECKING:
    from obstore import UpdateVersion

BEAT_SECONDS = 15.0
"""How often the holder renews its claim."""

STALE_SECONDS = 90.0
"""After this time without renewal another process may take the claim."""

POLL_SECONDS = 5.0
"""How often a waiting process looks."""

CLAIM = "claim.json"
"""The name of the claim, an object in the scratch prefix of a store on object storage."""

CLAIM_MAX_BYTES = 1 << 16


def scratch_prefix(target: RemotePath) -> RemotePath:
    """Return the prefix beside the store at `target` for claim, receipts and notes until it is published."""
    return target.with_name(f".{target.name}.partial")


@dataclass(frozen=True)
class Claim:
    """Holds the content of a claim.

    Args:
        fingerprint: of the cache whose unfinished objects lie at the address; None if none lie there.
        token: of the holder; None if no process holds the claim.
        beat: counts renewals.
        who: describes the holder to users.
    """

    fingerprint: str | None = None
    token: str | None = None
    beat: int = 0
    who: str = ""

    def encode(self) -> bytes:
        """Return the content of the object."""
        return json.dumps(asdict(self)).encode()


class Lease:
    """Holds the claim at an address from `take` to `release`, and renews it in a thread.

    Args:
        path: the scratch prefix.
        wait: whether to wait for another holder; if not, CacheError is raised.
        notify: takes messages for the user.
    """

    def __init__(self, path: RemotePath, *, wait: bool, notify: Callable[[str], None]) -> None:
        # Few retries: a renewal that fails is followed by the next one.
        self._storage = ObjectStorage(path, {"max_retries": 2})
        self._wait, self._notify = wait, notify
        self._lock, self._end = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease")
        self._version, self._renewed = ABSENT, 0.0
        self.claim = Claim(token=uuid4().hex, who=_who())

    def take(self, finished: Callable[[], bool]) -> bool:
        """Take the claim; return False if another process finished the cache meanwhile.

        Args:
            finished: tells whether the cache is published.

        Raises CacheError if another process holds the claim and `wait` is false.
        """
        told = False
        while True:
            found = read_claim(self._storage)
            claim, stat = found or (Claim(), None)
            if stat is None or claim.token is None or self._stale(stat):
                with suppress(Conflict):
                    self._write(replace(self.claim, fingerprint=claim.fingerprint), stat.version if stat else ABSENT)
                    self._thread.start()
                    return True
                continue
            if finished():
                return False
            if not self._wait:
                fix = f"wait for it, or stop it; {STALE_SECONDS:.0f} seconds after it was killed others go on"
                raise CacheError(
                    "another process is making this cache", where=self._storage.path, got=claim.who, fix=fix
                )
            if not told:
                self._notify(f"waiting for another process that works at {self._storage.path}: {printable(claim.who)}")
                self._notify(f"if it was killed, for {STALE_SECONDS:.0f} seconds at most")
                told = True
            time.sleep(POLL_SECONDS)

    def mark(self, fingerprint: str | None) -> None:
        """Write into the claim of which cache the objects are.

        Raises CacheError if another process has taken the claim.

        Args:
            fingerprint: of that cache; None if no objects of a cache lie there.
        """
        with self._lock:
            self._put(replace(self.claim, fingerprint=fingerprint))

    def require_claim(self) -> None:
        """Raise CacheError if another process has taken the claim, which may happen while a machine sleeps."""
        if boot_seconds() - self._renewed > STALE_SECONDS / 2:
            with self._lock:
                self._put(self.claim)

    def release(self) -> None:
        """Release the claim. It stays, without a holder, if unfinished objects of a cache lie there."""
        self._end.set()
        self._thread.join()
        with suppress(CacheError, Conflict):
            if self.claim.fingerprint is None:
                self.mark(None)  # raises if it is another process's claim
                self._storage.delete([CLAIM])
            else:
                self._write(replace(self.claim, token=None), self._version)

    def _stale(self, stat: ObjectStat) -> bool:
        """Tell whether a claim is old by the server's clock, which is read from an object that is put for that."""
        clock = f"clock-{self.claim.token}"
        self._storage.put(clock, b"")
        try:
            now = self._storage.stat(clock).modified
        except FileNotFoundError:
            return False  # the holder deletes such objects, so it is alive
        self._storage.delete([clock])
        return (now - stat.modified).total_seconds() > STALE_SECONDS

    def _renew(self) -> None:
        while not self._end.wait(BEAT_SECONDS):
            with suppress(CacheError), self._lock:
                self._put(self.claim)

    def _put(self, claim: Claim) -> None:
        """Renew the claim; the lock must be held. Raises CacheError if another process has taken it."""
        try:
            self._write(replace(claim, beat=claim.beat + 1), self._version)
        except Conflict:
            self._renewed = float("-inf")
            found = read_claim(self._storage)
            raise CacheError(
                "another process has taken this cache over, because this one was not heard of for too long",
                where=self._storage.path,
                got=found[0].who if found else "the claim is gone",
                fix="run the same command again: what is finished is kept",
            ) from None

    def _write(self, claim: Claim, expected: UpdateVersion) -> None:
        """Put the claim in place of one with the version `expected`. Raises Conflict and CacheError."""
        start = boot_seconds()
        try:
            version = self._storage.replace(CLAIM, claim.encode(), expected)
        except Unconditional:
            if expected == ABSENT:
                self._notify(f"note: {self._storage.path} has no conditional puts: let one process at a time begin")
            version = self._storage.replace(CLAIM, claim.encode(), None)
        except Conflict:
            # The claim may still be this process's, if a response of the server was lost: to this put, which the client
            # then repeated, or to an earlier one, whose version is therefore not known.
            found = read_claim(self._storage)
            if found is None or (found[0] != claim and found[0].token != self.claim.token):
                raise
            version = found[1].version
            if found[0] != claim:
                version = self._storage.replace(CLAIM, claim.encode(), version)
        self.claim, self._version, self._renewed = claim, version, start


def read_claim(storage: ObjectStorage) -> tuple[Claim, ObjectStat] | None:
    """Read the claim in a scratch prefix, with what is known of its object; None if there is none.

    Args:
        storage: the scratch prefix.

    For a claim that Decant did not write, one without a holder is returned.
    """
    try:
        content, stat = storage.fetch(CLAIM, CLAIM_MAX_BYTES)
    except FileNotFoundError:
        return None
    try:
        value = parse_json(content.tobytes())
        claim = Claim(*(value[name] for name in ("fingerprint", "token", "beat", "who")))
    except (ValueError, KeyError, TypeError):
        return Claim(), stat
    return (claim if _sound(claim) else Claim()), stat


def _sound(claim: Claim) -> bool:
    """Tell whether a claim that was read has the types that Decant writes."""
    fingerprint, token = claim.fingerprint, claim.token
    return (
        (fingerprint is None or (isinstance(fingerprint, str) and bool(re.fullmatch("[0-9a-f]{64}", fingerprint))))
        and (token is None or isinstance(token, str))
        and type(claim.beat) is int
        and isinstance(claim.who, str)
    )


def boot_seconds() -> float:
    """Return seconds of a clock that goes on while the machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _who() -> str:
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return f"process {os.getpid()} on {socket.gethostname()}, since {since}: {' '.join(sys.argv)}"
