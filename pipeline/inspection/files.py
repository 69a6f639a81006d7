"""Reads every byte of a published cache, and finds the files that are not as they were written."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field

from pipeline.errors import CACHE_COMMAND, CacheCorrupt, CacheMismatch, CacheNotFound, CacheUnfinished
from pipeline.inspection.content import chunk_problem, manifest_problem, metadata_problem
from pipeline.progress import Progress, Silent
from pipeline.publishing.artifacts import FINGERPRINT, is_scratch_folder
from pipeline.publishing.checksum import crc32c
from pipeline.publishing.fingerprint import fingerprint
from pipeline.publishing.folder_files import Files
from pipeline.publishing.ledger import LEDGER_FILE, LEDGER_MAX_BYTES, ROOT, decode_line
from pipeline.store.backend import backend_of
from pipeline.store.format.arrays import STATIC, ArraySpec, Unit
from pipeline.store.format.chunks import CRC_BYTES, most_bytes
from pipeline.store.format.layout import MOST_CHUNK, StoreLayout
from pipeline.store.format.manifest import MANIFEST_MAX_BYTES, Manifest
from pipeline.store.format.zarr_files import laid_out, metadata_checksums, metadata_names
from pipeline.store.location import StorePath, store_path

DAMAGED_NAMED = 10
"""How many damaged files or lines a message names."""
LOST_MANIFEST_HINT = "not the manifest that was written; without it, the other zarr.json cannot be checked"

Units = dict[str, dict[str, int]]
"""The content of a ledger: the checksum of every file of every unit."""


@dataclass
class FilesReport:
    """Holds what reading all of a cache found.

    Args:
        files, bytes: how many were read.
        damaged: what is wrong, by file.
        manifest: None if it cannot be trusted.
    """

    files: int = 0
    bytes: int = 0
    damaged: dict[str, str] = field(default_factory=dict)
    manifest: Manifest | None = None


def check_files(path: StorePath | str, progress: Progress | None = None) -> FilesReport:
    """Read the whole cache at `path`: compare every file with its checksum, and its content with the manifest.

    Args:
        progress: shows how far the work is; None shows nothing.

    Raises CacheNotFound, CacheUnfinished or CacheMismatch if there is no finished cache of this schema.
    """
    path = store_path(path)
    backend = backend_of(path)
    files = backend.files
    if is_scratch_folder(path.name) and not files.has(FINGERPRINT):
        fix = f"run {CACHE_COMMAND} again: it goes on where it stopped"
        raise CacheUnfinished("this is the folder of an unfinished cache", where=path, fix=fix)
    unfinished = backend.in_place and backend.unfinished()
    if not files.has(ROOT) and (unfinished or not files.has(LEDGER_FILE)):
        Manifest.read(path)  # raises: says what is there instead
    return _Reading(path, files, progress or Silent()).report()


class _Reading:
    """Goes over all files of a cache, small ones first, since they list what there should be."""

    def __init__(self, path: StorePath, files: Files, progress: Progress) -> None:
        self._path, self._files, self._progress, self._report = path, files, progress, FilesReport()
        self._root = b""

    def report(self) -> FilesReport:
        """Read everything, and return what was found."""
        report, ledger = self._report, self._ledger()
        manifest = report.manifest = self._manifest()
        expected = {LEDGER_FILE, FINGERPRINT, ROOT}
        mark, there = self._content(FINGERPRINT), set(self._files.sizes())
        if manifest is None:
            expected |= self._listed(ledger, there)
            # Without a manifest it is not known which `zarr.json` belong here.
            there = {name for name in there if not name.endswith(ROOT)}
        else:
            if mark is not None and mark != f"{manifest.fingerprint}\n".encode():
                self._damaged(FINGERPRINT, "not the fingerprint of the manifest")
            expected |= self._metadata(manifest) | self._chunks(manifest.layout, ledger)
        for name in there - expected:
            self._damaged(name, "does not belong there")
        report.damaged = dict(sorted(report.damaged.items()))
        return report

    def _damaged(self, name: str, what: str) -> None:
        self._report.damaged.setdefault(name, what)

    def _content(self, name: str, most: int = MANIFEST_MAX_BYTES) -> bytes | None:
        """Return the bytes of a file of at most `most`; None, with a note in the report, if it cannot be read."""
        try:
            content = self._files.read(name, most)
        except FileNotFoundError:
            self._damaged(name, "absent")
            return None
        except OSError as error:
            self._damaged(name, f"cannot be read: {error.strerror}")
            return None
        self._report.files += 1
        self._report.bytes += len(content)
        return content

    def _ledger(self) -> Units:
        """Return the units in the ledger, as far as its lines are whole."""
        content = self._content(LEDGER_FILE, LEDGER_MAX_BYTES)
        units: Units = {}
        wrong: list[str] = []
        for number, line in enumerate(io.BytesIO(content or b""), start=1):
            if (entry := decode_line(line)) is not None:
                units[entry[0]] = entry[1]
            elif len(wrong) < DAMAGED_NAMED:
                wrong.append(str(number))
        if wrong:
            self._damaged(LEDGER_FILE, f"damaged in line {', '.join(wrong)} of {number}")
        return units

    def _manifest(self) -> Manifest | None:
        """Return the manifest, if it is what was written."""
        content = self._content(ROOT)
        if content is None:
            return None
        manifest, sound, self._root = None, _sound(content), content
        try:
            manifest = Manifest.read(self._path, alone=True)
            problem = None if sound else "not laid out as it was written"
            problem = problem or manifest_problem(manifest)
        except (CacheNotFound, CacheMismatch):
            if sound or not self._files.has(LEDGER_FILE):
                raise  # by its own checksum, another version's; or nothing of ours
            problem = LOST_MANIFEST_HINT
        except (CacheCorrupt, ValueError):
            problem = LOST_MANIFEST_HINT
        if problem is not None:
            self._damaged(ROOT, problem)
        return manifest

    def _metadata(self, manifest: Manifest) -> set[str]:
        """Check every `zarr.json`, the root's too, and return their names."""
        specs = {f"{name}/{ROOT}": spec for name, spec in (manifest.layout.arrays | manifest.layout.static).items()}
        names = metadata_names(specs.values())
        recorded = manifest.metadata
        found = {ROOT: self._root}
        for name in names - {ROOT}:
            if (content := self._content(name)) is not None:
                found[name] = content
        for name, checksum in metadata_checksums(found).items():
            if checksum != recorded.get(name):
                self._damaged(name, "not the metadata that was written")
            elif name in specs and (problem := metadata_problem(specs[name], found[name])) is not None:
                self._damaged(name, problem)
        return names

    def _chunks(self, layout: StoreLayout, ledger: Units) -> set[str]:
        """Check every chunk file; returns their names."""
        units = [(STATIC, None, layout.static), *((unit.key, unit, layout.arrays) for unit in layout.units)]
        if absent := [key for key, _, _ in units if key not in ledger]:
            self._damaged(LEDGER_FILE, f"does not list {', '.join(absent[:4])}{', ...' if len(absent) > 4 else ''}")
        if foreign := sorted(set(ledger) - {key for key, _, _ in units}):
            self._damaged(LEDGER_FILE, f"lists {', '.join(foreign[:4])}, of which the manifest knows nothing")
        names: set[str] = set()
        self._progress.begin("reading files", sum(len(specs) for _, _, specs in units), "files")
        for key, unit, specs in units:
            for spec in specs.values():
                name = spec.file(unit)
                names.add(name)
                content = self._content(name, most_bytes(spec))
                size = None if layout.compression else spec.chunk_bytes
                if content is not None and self._whole(name, content, ledger.get(key), size):
                    self._check(name, content, layout, spec, unit)
                self._progress.advance(1)
        self._progress.end()
        return names

    def _check(self, name: str, content: bytes, layout: StoreLayout, spec: ArraySpec, unit: Unit | None) -> None:
        """Note what is in a whole chunk file and cannot be what was computed."""
        try:
            problem = chunk_problem(layout, spec, unit, content)
        except CacheCorrupt:
            problem = "does not decompress to the elements of a chunk"
        if problem is not None:
            self._damaged(name, problem)

    def _listed(self, ledger: Units, there: set[str]) -> set[str]:
        """Check, without a manifest, the chunk files that the ledger lists, and return their names."""
        listed = {name: checksum for unit in ledger.values() for name, checksum in unit.items()}
        for name in listed:
            content = self._content(name, MOST_CHUNK) if name in there else None
            if content is None:
                self._damaged(name, "absent")
            else:
                self._whole(name, content, listed)
        return set(listed)

    def _whole(self, name: str, content: bytes, recorded: dict[str, int] | None, size: int | None = None) -> bool:
        """Tell whether a chunk file is as it was written. size: of its elements, in bytes.

        recorded: checksums in the ledger; None if that lacks the unit.
        """
        stored = int.from_bytes(content[-CRC_BYTES:], "little")
        if size is not None and len(content) != size + CRC_BYTES:
            self._damaged(name, f"{len(content)} bytes instead of {size + CRC_BYTES}")
        elif len(content) < CRC_BYTES or crc32c(memoryview(content)[:-CRC_BYTES]) != stored:
            self._damaged(name, "its checksum is not that of its content")
        elif recorded is not None and recorded.get(name) != stored:
            self._damaged(name, "not what the ledger lists")
        return name not in self._report.damaged


def _sound(root: bytes) -> bool:
    """Tell whether the root's `zarr.json` is laid out as it is written, and its attributes hash to their checksum."""
    try:
        value = json.loads(root)
        attributes = dict(value["attributes"])
        return attributes.pop("checksum") == fingerprint(attributes) and laid_out(value) == root
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
