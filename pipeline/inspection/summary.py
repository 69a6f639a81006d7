"""What a teacher cache is, finished or not, in one screen: from its manifest, and from a look at its files."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import CacheCorrupt, CacheNotFound, printable
from pipeline.progress import duration, size
from pipeline.publishing.artifacts import is_scratch_folder, unfinished
from pipeline.publishing.ledger import Ledger
from pipeline.publishing.scratch import HOLDER, read_holder
from pipeline.signals import EncodingChoice
from pipeline.store.encodings import name_of
from pipeline.store.format.arrays import STATIC
from pipeline.store.format.identity import IDENTITY
from pipeline.store.format.layout import StoreLayout
from pipeline.store.format.manifest import MANIFEST_MAX_BYTES, Manifest, sound_layout
from pipeline.store.format.provenance import RUNS, noted_runs, provenance_of
from pipeline.store.location import RemotePath, StorePath, store_path
from pipeline.store.published import scratch_prefix
from pipeline.store.remote.lease import STALE_SECONDS
from pipeline.store.remote.unfinished import unfinished_cache
from pipeline.store.store_files import files_at
from pipeline.untrusted import parse_json, read_file

Facts = dict[str, Any]
"""Plain values: what `describe` found out about one cache."""


def describe(path: StorePath | str) -> list[Facts]:
    """Describe the cache at `path`, if it is finished, and every unfinished one for this path.

    Raises CacheNotFound if there is neither, CacheMismatch or CacheCorrupt if the manifest cannot be read.
    """
    path = store_path(path)
    if isinstance(path, RemotePath):
        return _at_address(path)
    folders = [path] if is_scratch_folder(path.name) else unfinished(path)
    found = [] if is_scratch_folder(path.name) or (folders and not path.exists()) else [_finished(path)]
    return found + [_unfinished(folder) for folder in folders]


def _at_address(path: RemotePath) -> list[Facts]:
    """Of a store on object storage, where one cache at a time is finished or made."""
    started = None if path.exists() else unfinished_cache(path)
    if started is None:
        return [_finished(path)]
    facts: Facts = {"path": path.as_posix(), "state": "unfinished"}
    total = None
    if started.identity is not None:
        what, total = _will_be(started.identity, scratch_prefix(path) / IDENTITY)
        facts |= what
    claim, running = started.claim, None if started.claim.token else False
    made = {"units": len(started.units - {STATIC}), "of": total, "holder": None, "running": running}
    facts["progress"] = {**made, "claim": {"who": claim.who, "renewed": started.renewed}}
    facts |= {**_on_disk(path), "provenance": provenance_of(noted_runs(started.runs))}
    return [{**facts, "fingerprint": claim.fingerprint}]


def _finished(path: StorePath) -> Facts:
    manifest = Manifest.read(path)
    facts = {
        "path": path.as_posix(),
        "state": "finished",
        **_what(manifest.identity, manifest.layout),
        **_on_disk(path),
    }
    return {**facts, "provenance": manifest.provenance, "fingerprint": manifest.fingerprint}


def _unfinished(folder: Path) -> Facts:
    """Of a folder in which a cache is made. Those of early versions do not say what it will be."""
    facts: Facts = {"path": folder.as_posix(), "state": "unfinished"}
    units = set(Ledger(folder).units)
    if not units and not (folder / IDENTITY).exists() and not (folder / HOLDER).exists():
        raise CacheNotFound("nobody makes a teacher cache here", where=folder)
    total = None
    if (folder / IDENTITY).exists():
        what, total = _will_be(_content(folder / IDENTITY), folder / IDENTITY)
        facts |= what
    holder = read_holder(folder / HOLDER)
    facts["progress"] = {"units": len(units - {STATIC}), "of": total, "holder": holder, "running": _running(holder)}
    runs = _content(folder / RUNS) if (folder / RUNS).exists() else None
    facts |= {**_on_disk(folder), "provenance": provenance_of(noted_runs(runs))}
    return {**facts, "fingerprint": folder.name.split(".")[-2]}


def _will_be(content: bytes, file: StorePath) -> tuple[Facts, int]:
    """What an unfinished cache will be, by its file `IDENTITY`, and the number of its units."""
    try:
        identity = parse_json(content)
    except ValueError as error:
        raise CacheCorrupt("a file of an unfinished cache cannot be read", where=file, got=error) from None
    plan = sound_layout(identity, file)
    return _what(identity, plan), plan.views * plan.blocks


def _what(identity: Mapping[str, Any], plan: StoreLayout) -> Facts:
    signals = [
        {"name": s.name, "shape": list(s.shape), "encoding": s.encoding, "bytes_per_view": s.bytes_per_view}
        for s in plan.signals
    ]
    return {
        "teacher": identity["teacher"],
        "data": identity["data"],
        "views": identity["views"],
        "signals": signals,
        "head": identity["signals"]["head"],
        "grid": identity["signals"]["grid"],
        "filter": identity["signals"]["filter"],
        "rows_per_block": plan.rows,
        "row_blocks": plan.blocks,
    }


def _on_disk(path: StorePath) -> Facts:
    sizes = files_at(path).sizes()
    return {"files": len(sizes), "bytes": sum(sizes.values())}


def _content(file: Path) -> bytes:
    try:
        return read_file(file, MANIFEST_MAX_BYTES)
    except OSError as error:
        what = "a file of an unfinished cache cannot be read"
        raise CacheCorrupt(what, where=file, got=error.strerror) from None


def _running(holder: Any) -> bool | None:
    """Whether the process that holds a folder is there; None if it is on another machine, or nobody holds it."""
    if holder is None or holder["host"] != socket.gethostname():
        return None
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def summary_text(facts: Facts) -> str:
    """Write the facts for people."""
    lines = [f"{facts['path']}: {'a teacher cache' if facts['state'] == 'finished' else 'an unfinished teacher cache'}"]
    if "progress" in facts:
        lines += _progress(facts["progress"])
    if "teacher" in facts:
        lines += [*_teacher(facts["teacher"]), *_data(facts), *_signals(facts)]
    disk = f"{size(facts['bytes'])} in {facts['files']:,} files"
    if "teacher" in facts:
        units = facts["views"]["count"] * facts["row_blocks"]
        disk += f"; {units:,} unit{'s' if units > 1 else ''} of one view of {facts['rows_per_block']:,} samples"
    lines += _entry("disk", disk)
    lines += [*_made(facts["provenance"]), *_entry("fingerprint", facts["fingerprint"])]
    return printable("\n".join(lines))


def _entry(name: str, *lines: str) -> list[str]:
    return [f"  {name if number == 0 else '':<12} {line}" for number, line in enumerate(lines)]


def _progress(progress: Facts) -> list[str]:
    done, total, holder = progress["units"], progress["of"], progress["holder"]
    share = f"{done:,} units" if not total else f"{done:,} of {total:,} units, {done / total:.0%}"
    lines = [share]
    if holder:
        states = {True: "still running", False: "no longer running", None: "not looked for from this machine"}
        who = f"process {holder['pid']} on {holder['host']}, {states[progress['running']]}"
        lines.append(f"begun {holder['since']} by {who}")
    if claim := progress.get("claim"):
        lines.append(f"worked on by {claim['who'] or 'nobody'}, heard of at {claim['renewed']}")
    if claim and progress["running"] is None:
        lines.append(f"if it is not heard of for {STALE_SECONDS:.0f} seconds, another may go on with the same command")
    elif not progress["running"]:
        command = f": {holder['command']}" if holder else ": pipeline cache-teacher"
        lines.append(f"to go on, run the same command again{command}")
    return _entry("done", *lines)


def _teacher(teacher: Mapping[str, Any]) -> list[str]:
    known = {"model", "options", "num_classes", "input_size", "mean", "std", "weights", "precision", "micro_batch"}
    first = f"{teacher['model']}, {teacher['precision']}, micro-batches of {teacher['micro_batch']}"
    lines = [first, f"weights {teacher['weights']}"]
    if teacher.get("input_size") is not None:
        seen = (
            f"input {teacher['input_size']}, mean {_list(teacher.get('mean', []))}, std {_list(teacher.get('std', []))}"
        )
        lines.insert(1, f"{teacher.get('num_classes', '?')} classes, {seen}")
    options = {**teacher.get("options", {}), **{key: value for key, value in teacher.items() if key not in known}}
    if options:
        lines.insert(1, _options(options))
    return _entry("teacher", *lines)


def _data(facts: Facts) -> list[str]:
    data, views = facts["data"], facts["views"]
    first, last = views["first"], views["first"] + views["count"] - 1
    numbers = f"numbers {first} to {last}" if last > first else f"number {first}"
    operations = [
        f"{one['name']} {_options({k: v for k, v in one.items() if k != 'name'})}".rstrip()
        for one in views["operations"]
    ]
    lines = [f"{views['count']:,} of every sample, {numbers}, seed {views['seed']}"]
    lines += operations or ["the images as they are"]
    head = _entry("data", f"{data['samples']:,} samples", f"pixels {data['pixels']}", f"ids {data['ids']}")
    return head + _entry("views", *lines)


def _signals(facts: Facts) -> list[str]:
    rows = [
        (s["name"], _list(s["shape"], " x "), _encoding(s["encoding"]), f"{s['bytes_per_view']:,}")
        for s in facts["signals"]
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = [
        f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:<{widths[2]}}  {d:>{widths[3]}} bytes a view" for a, b, c, d in rows
    ]
    if facts["grid"] is not None:
        lines.append(f"maps on a grid of {facts['grid']} by the filter {facts['filter']}")
    if facts["head"]:
        where = "the last block" if facts["head"]["linear"] else "final" if facts["head"].get("linear_final") else None
        linear = f"linear on the mean of {where}" if where else "not linear on the mean of a map"
        lines.append(f"head {_list(facts['head']['shape'], ' x ')}, {linear}")
    return _entry("signals", *lines)


def _encoding(choice: EncodingChoice) -> str:
    options = {} if isinstance(choice, str) else {key: choice[key] for key in choice if key != "name"}
    return f"{name_of(choice)} {_options(options)}".rstrip()


def _made(provenance: Mapping[str, Any]) -> list[str]:
    runs = provenance.get("runs") or []
    if not runs:
        return []
    rate = f", {provenance['views_per_second']:,} views/s" if provenance.get("views_per_second") else ""
    count = f"{len(runs)} run{'s' if len(runs) > 1 else ''}"
    if provenance.get("seconds"):
        count += f" of {duration(provenance['seconds'])}"
    lines = [f"{runs[0]['started'].replace('T', ' ')}, in {count}{rate}"]
    lines += [f"on {device}" for device in dict.fromkeys(run["device"] for run in runs)]
    lines.append(", ".join(f"{name} {found}" for name, found in runs[-1]["versions"].items()))
    return _entry("made", *lines)


def _options(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_list(value) if isinstance(value, list) else value}" for name, value in options.items())


def _list(values: list[Any], between: str = " ") -> str:
    return between.join(map(str, values))
