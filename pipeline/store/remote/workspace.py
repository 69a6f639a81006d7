"""Makes a store on object storage: objects are put under their final names, and the manifest last.

Beside the store, under `.<name>.partial/`, lie the claim of the process that makes it, a receipt for every finished
unit, and the notes. They are deleted when the store is published: then it is the same as one that was made in a folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from pipeline.errors import REPLACE_HINT, CacheError, CacheMismatch
from pipeline.publishing.artifacts import FINGERPRINT
from pipeline.publishing.ledger import LEDGER_FILE, LONGEST_LINE, ROOT, decode_line, encode_line, whole
from pipeline.store.format.chunks import CRC_BYTES, Compression, chunk_content
from pipeline.store.format.layout import StoreLayout
from pipeline.store.location import RemotePath
from pipeline.store.remote.backend import RemoteBackend
from pipeline.store.remote.lease import Lease, boot_seconds, read_claim, scratch_prefix
from pipeline.store.remote.object_storage import ObjectStorage, at_once
from pipeline.store.remote.ownership import replaceable
from pipeline.store.remote.unfinished import is_ours, read_note, receipt
from pipeline.store.workspace import Chunks

CLAIM_LOOK_SECONDS = 5.0
"""The claim is read again after this time, before the next object of a unit is put."""


@dataclass(frozen=True)
class RemotePlace:
    """Puts the objects of units under their final names, from any number of processes.

    Attempts share names, since a put replaces an object as a whole. On one kind of device they have the same bytes.
    `publish` checks that the bytes are those that were committed.

    Args:
        target: the address.
        scratch: the scratch prefix.
        token: of the claim.
        compression: of the chunks.
    """

    target: ObjectStorage
    scratch: ObjectStorage
    token: str | None
    compression: Compression

    def write(self, chunks: Chunks, attempt: str) -> dict[str, int]:
        """Put the objects of a unit, and return their checksums.

        Args:
            chunks: their content.
            attempt: has no effect here.

        Raises CacheError if another process has taken the claim.
        """
        checksums, looked = {}, float("-inf")
        for name, elements in chunks.items():
            data, checksums[name] = chunk_content(elements, self.compression)
            if boot_seconds() - looked > CLAIM_LOOK_SECONDS:
                looked = boot_seconds()
                self._require_claim()
            self.target.put(name, data, checksums[name].to_bytes(CRC_BYTES, "little"))
        return checksums

    def _require_claim(self) -> None:
        """Raise CacheError if the claim has changed: a worker that was given up may come back when it has."""
        claim = read_claim(self.scratch)
        if claim is None or claim[0].token != self.token:
            raise CacheError("the cache is finished, or another process makes it", where=self.target.path)


class RemoteWorkspace:
    """Makes a store of objects with a scratch prefix beside it, and publishes it by putting the manifest.

    `Workspace` documents the methods, `LocalWorkspace` the parameters.
    """

    def __init__(
        self, target: RemotePath, fingerprint: str, layout: StoreLayout, *, wait: bool, notify: Callable[[str], None]
    ) -> None:
        self.layout = layout
        self._fingerprint, self._notify = fingerprint, notify
        self._target, self._scratch = ObjectStorage(target), ObjectStorage(scratch_prefix(target))
        self._lease = Lease(self._scratch.path, wait=wait, notify=notify)
        self._held = False
        self.done = False
        self.units: dict[str, dict[str, int]] = {}

    @property
    def place(self) -> RemotePlace:
        """Return the address for workers."""
        return RemotePlace(self._target, self._scratch, self._lease.claim.token, self.layout.compression)

    def __enter__(self) -> Self:
        """Take the claim, and read the receipts."""
        self._held = self._lease.take(self._finished)
        try:
            self.done = self._finished()
            if self.done and self._held:  # the process that made it was killed after publishing
                self._clear_scratch()
            elif self._lease.claim.fingerprint == self._fingerprint:
                self.units = self._receipts()
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the claim."""
        self._release()

    def refuse_other(self, replace: bool) -> None:
        """Raise CacheMismatch if something is at the target that must not be replaced; else delete it, manifest first.

        Args:
            replace: whether another cache of Decant may be replaced.

        If objects lie beside it that are not its own, nothing is deleted.
        """
        there = RemoteBackend(self._target.path).published()
        before = there or self._lease.claim.fingerprint
        if before is None and (names := sorted(self._target.sizes())):
            raise CacheMismatch(
                "what lies at the target is not something that Decant published",
                where=self._target.path,
                got=f"{len(names)} objects, such as {names[0]!r:.200}",
                fix="move it away, or name another path",
            )
        if before not in (None, self._fingerprint):
            if not replace:
                raise CacheMismatch(
                    f"another cache {'is published' if there else 'was begun'} at the target",
                    where=self._target.path,
                    expected=f"fingerprint {self._fingerprint[:16]}",
                    got=f"fingerprint {str(before)[:16]}",
                    fix=f"{REPLACE_HINT} to delete it now and make this one, or name another path",
                )
            names = replaceable(self._target, self._scratch)
            self._notify(f"deleting another cache at {self._target.path}, to make this one in its place")
            self._lease.mark(before)  # for a process that finds it partly deleted
            for some in ([ROOT], [name for name in names if name not in (ROOT, LEDGER_FILE)], [LEDGER_FILE]):
                self._target.delete(some)
            self._clear_scratch()
        self._lease.mark(self._fingerprint)

    def missing(self) -> dict[str, str]:
        """Return units whose objects have wrong names, sizes or stored checksums, with what is wrong.

        The content is not read: `pipeline verify` does that.
        """
        wrong, there = {}, self._target.sizes()
        listed = {name for files in self.units.values() for name in files}
        ends = self._target.ends({name: there[name] for name in listed if name in there}, CRC_BYTES)
        for unit, files in self.layout.chunk_files():
            recorded = self.units.get(unit)
            if recorded is None:
                wrong[unit] = f"unit {unit} has no receipt"
                continue
            for name, size in files.items():
                if name not in there:
                    wrong[unit] = f"{name} is absent"
                elif size not in (None, there[name]):
                    wrong[unit] = f"{name} has {there[name]} bytes instead of {size}"
                elif recorded.get(name) != int.from_bytes(ends.get(name, b""), "little"):
                    wrong[unit] = f"{name} has not the checksum in the receipt"
        return wrong

    def commit(self, unit: str, files: Mapping[str, int], attempt: str) -> None:
        """Put the receipt of a unit. The arguments are those of `Workspace.commit`; `attempt` has no effect here."""
        self._lease.require_claim()
        self._scratch.put(receipt(unit), encode_line(unit, files))
        self.units[unit] = dict(files)

    def note(self, name: str) -> bytes | None:
        """Return the content of the note `name`; None if there is none."""
        return read_note(self._scratch, name)

    def keep_note(self, name: str, content: str) -> None:
        """Put `content` as the note `name`, an object beside the receipts."""
        self._scratch.put(name, content.encode())

    def publish(self, metadata: Mapping[str, bytes], replace: bool) -> None:
        """Put the metadata, and the manifest last. The arguments are those of `Workspace.publish`."""
        units = [unit for unit, _ in self.layout.chunk_files()]
        own = {LEDGER_FILE: whole(self.units, units), FINGERPRINT: f"{self._fingerprint}\n".encode()}
        for name, content in [*metadata.items(), *own.items()]:
            if name != ROOT:
                self._target.put(name, content)
        self._lease.mark(self._fingerprint)  # raises if another process has taken over
        self._target.put(ROOT, metadata[ROOT])
        with suppress(CacheError):
            self._clear_scratch()

    def _finished(self) -> bool:
        return RemoteBackend(self._target.path).published() == self._fingerprint

    def _receipts(self) -> dict[str, dict[str, int]]:
        """Return the finished units with their checksums. Objects that are no receipts are left as they are."""
        units = {receipt(unit): unit for unit, _ in self.layout.chunk_files()}
        there = self._scratch.sizes()
        names = [name for name in units if there.get(name, LONGEST_LINE + 1) <= LONGEST_LINE]
        found = at_once(lambda name: decode_line(self._scratch.read(name, LONGEST_LINE)), names)
        pairs = zip(names, found, strict=True)
        return {units[name]: entry[1] for name, entry in pairs if entry and entry[0] == units[name]}

    def _clear_scratch(self) -> None:
        """Delete receipts, notes and clocks, and write into the claim that no unfinished objects lie here."""
        self._scratch.delete([name for name in sorted(self._scratch.sizes()) if is_ours(name)])
        self.units = {}
        self._lease.mark(None)

    def _release(self) -> None:
        if self._held:
            self._held = False
            self._lease.release()
