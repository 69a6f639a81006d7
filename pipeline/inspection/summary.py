"""Describes a teacher cache, finished or not, on one screen: from its manifest, and from the list of its files."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import wrap
from typing import Any

from pipeline.errors import CacheCorrupt, printable
from pipeline.measuring.measured import TeacherWorth
from pipeline.progress import duration, size
from pipeline.signals import EncodingChoice
from pipeline.store.backend import UnfinishedCache, backend_of
from pipeline.store.encodings import name_of
from pipeline.store.format.arrays import STATIC
from pipeline.store.format.identity import IDENTITY, CacheIdentity
from pipeline.store.format.manifest import Manifest
from pipeline.store.format.provenance import noted_runs, provenance_of
from pipeline.store.kept import statistics_folder
from pipeline.store.location import StorePath, store_path
from pipeline.store.statistics import kept_statistics
from pipeline.untrusted import parse_json

Facts = dict[str, Any]
"""Plain values that `describe` found out about one cache."""


def describe(path: StorePath | str) -> list[Facts]:
    """Describe the cache at `path`, if it is finished, and every unfinished one for this path.

    Raises CacheNotFound if there is neither, CacheMismatch or CacheCorrupt if the manifest cannot be read.
    """
    path = store_path(path)
    backend = backend_of(path)
    unfinished = backend.unfinished_caches()
    # A scratch folder may be named itself: it exists, and is no finished cache.
    alone = unfinished and (not backend.exists() or any(each.path == path for each in unfinished))
    return ([] if alone else [_finished(path)]) + [_unfinished(each) for each in unfinished]


def _finished(path: StorePath) -> Facts:
    manifest = Manifest.read(path)
    facts = {
        "path": path.as_posix(),
        "state": "finished",
        **_what(manifest.identity),
        **_on_disk(path),
    }
    if kept := kept_statistics(path, manifest.fingerprint):
        facts["statistics"] = kept
    return {**facts, "provenance": manifest.provenance, "fingerprint": manifest.fingerprint}


def _unfinished(cache: UnfinishedCache) -> Facts:
    facts: Facts = {"path": cache.path.as_posix(), "state": "unfinished"}
    total = None
    if cache.identity is not None:
        what, total = _will_be(cache.identity, cache.notes / IDENTITY)
        facts |= what
    made = {"units": len(cache.units - {STATIC}), "of": total, "holder": cache.holder, "running": cache.running}
    facts["progress"] = {**made, "claim": cache.claim} if cache.claim else made
    facts |= {**_on_disk(cache.path), "provenance": provenance_of(noted_runs(cache.runs))}
    return {**facts, "fingerprint": cache.fingerprint}


def _will_be(content: bytes, file: StorePath) -> tuple[Facts, int]:
    """Return what an unfinished cache will be, by its file `IDENTITY`, and the number of its units."""
    try:
        values = parse_json(content)
    except ValueError as error:
        raise CacheCorrupt("a file of an unfinished cache cannot be read", where=file, got=error) from None
    identity = CacheIdentity.read(values, file)
    return _what(identity), identity.layout.views * identity.layout.blocks


def _what(identity: CacheIdentity) -> Facts:
    layout, kept = identity.layout, identity.signals
    signals = [
        {"name": s.name, "shape": list(s.shape), "encoding": s.encoding, "bytes_per_view": s.bytes_per_view}
        for s in layout.signals
    ]
    return {
        "teacher": identity.teacher.plain(),
        "data": identity.data.plain(),
        "views": identity.views.plain(),
        "signals": signals,
        "head": kept.head.plain() if kept.head else None,
        "grid": kept.grid,
        "filter": kept.filter,
        "rows_per_block": layout.rows,
        "row_blocks": layout.blocks,
    }


def _on_disk(path: StorePath) -> Facts:
    sizes = backend_of(path).files.sizes()
    return {"files": len(sizes), "bytes": sum(sizes.values())}


def summary_text(facts: Facts) -> str:
    """Return the text about one cache, for people.

    Args:
        facts: an entry of what `describe` returns.
    """
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
    if "statistics" in facts:
        folder = statistics_folder(store_path(facts["path"]), facts["fingerprint"])
        where = "beside it" if "://" not in facts["path"] else f"on this machine, in {folder}"
        lines += _entry("statistics", f"mean and covariance of {', '.join(facts['statistics'])}, {where}")
    lines += _entry("worth", *TeacherWorth(**worth).lines()) if (worth := facts.get("worth")) else []
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
        silence = f"{claim['stale_seconds']:.0f} seconds"
        lines.append(f"if it is not heard of for {silence}, another may go on with the same command")
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
        lines.insert(1, f"{teacher.get('num_classes', '?') or 'no'} classes, {seen}")
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
    versions = ", ".join(f"{name} {found}" for name, found in runs[-1]["versions"].items())
    lines += wrap(versions, 120, break_on_hyphens=False)
    return _entry("made", *lines)


def _options(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_list(value) if isinstance(value, list) else value}" for name, value in options.items())


def _list(values: list[Any], between: str = " ") -> str:
    return between.join(map(str, values))
