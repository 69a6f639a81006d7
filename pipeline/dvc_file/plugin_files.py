"""Finds the files of the plug-ins that an experiment names: a stage depends on these, and on no others."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple, Self

from pipeline import plugins
from pipeline.data.source import SOURCE_PACKAGE, SourceOptions
from pipeline.dvc_file.dependencies import OBJECTIVES, READING, SOURCE_ROOT
from pipeline.experiment.config import ExperimentConfig
from pipeline.experiment.experiment import EVALUATION_SIGNALS, HEADLESS_EVALUATION_SIGNALS
from pipeline.objectives.config import METHODS
from pipeline.signals import FeaturesConfig, SignalsConfig
from pipeline.signals.extra import EXTRAS
from pipeline.signals.lowpass import FILTERS
from pipeline.store.encodings import ENCODINGS, name_of
from pipeline.views import Operations
from pipeline.views.config import OPERATIONS

DEFAULT_FILTER: str = FeaturesConfig.model_fields["filter"].default


File = str | Path
"""A file of Decant's is text, its path in the repository; one of the user's own is a path from where they work."""


@dataclass(frozen=True)
class PluginFiles:
    """Holds the files of the plug-ins that an experiment names, by what they are for.

    Args:
        source: reads what is packed, and reduces it where pixels are packed.
        drawn: operations of the views that are cached or learnt from.
        scored: operations of the one view that evaluation sees.
        kept: encodings, filter and extra signals of the main cache.
        compared: encodings of the caches for evaluation.
        read: encodings and filters of the caches that students read.
        shown: encodings of the logits in these, which the report shows.
    """

    source: frozenset[File]
    drawn: frozenset[File]
    scored: frozenset[File]
    kept: frozenset[File]
    compared: frozenset[File]
    read: frozenset[File]
    shown: frozenset[File]

    @classmethod
    def of(cls, experiment: ExperimentConfig) -> Self:
        """Return the files for a configuration."""
        source, signals = experiment.data.source, experiment.signals
        kept = _kept(signals)
        compared = _kept(EVALUATION_SIGNALS) | _kept(HEADLESS_EVALUATION_SIGNALS)
        read = kept | compared
        shown = plugin_files(ENCODINGS, [name_of(signals.logits.encoding)] if signals.logits else [])
        if experiment.caches:  # of other teachers, whose signals are reduced and written in any way
            shown |= plugin_files(ENCODINGS, plugins.names(ENCODINGS))
            for package in (ENCODINGS, FILTERS):
                read |= plugin_files(package, plugins.names(package))
        return cls(
            source=frozenset(_packing(source) if source is not None else ()),
            drawn=_operations(experiment.views.operations),
            scored=_operations(experiment.evaluate.operations),
            kept=frozenset(kept),
            compared=frozenset(compared),
            read=frozenset(read),
            shown=frozenset(shown),
        )


def _packing(source: SourceOptions) -> set[File]:
    """Return the files of a source, and of what reduces its pixels."""
    found = plugin_files(SOURCE_PACKAGE, [source.name])
    if source.store == "raw":
        found |= plugin_files(OPERATIONS, ["resize"])
        found |= {f"pipeline/views/{name}.py" for name in ("compiled_resample", "resample", "shrinking")}
    return found


def _operations(operations: Operations) -> frozenset[File]:
    return frozenset(plugin_files(OPERATIONS, [operation.name for operation in operations]))


def _kept(signals: SignalsConfig) -> set[File]:
    """Return the files of the encodings, the filter and the extra signals of a section `signals`."""
    sections = [signals.logits, signals.embedding, signals.features, *signals.extras]
    encodings = {name_of(section.encoding) for section in sections if section is not None}
    filters = [signals.features.filter] if signals.features is not None else []
    extras = {extra.name.partition("/")[0] for extra in signals.extras}
    return plugin_files(ENCODINGS, encodings) | plugin_files(FILTERS, filters) | plugin_files(EXTRAS, extras)


def objective_files(names: Iterable[str]) -> set[File]:
    """Return the files of some objectives, and what they use of their room and of signals, without `OBJECTIVES`.

    Args:
        names: of the objectives.
    """
    found = _with_imported("pipeline/objectives", METHODS, list(names), OBJECTIVES)
    words = {word for file in found for word in _read(_absolute(file)).words}
    # An objective computes the extra signal that it names, and low-passes by this filter where the cache says nothing.
    extras = [name for name in plugins.names(EXTRAS) if name in words]
    filters = [DEFAULT_FILTER] if "lowpass" in words else []
    return found | plugin_files(EXTRAS, extras) | plugin_files(FILTERS, filters)


def plugin_files(package: str, names: Collection[str]) -> set[File]:
    """Return the files of some plug-ins, and those of their folder that they import, without `READING`.

    Args:
        package: of the plug-ins, such as `pipeline.views.operations`.
        names: as in a configuration.
    """
    return _with_imported(package.replace(".", "/"), package, ["__init__", *names] if names else [], READING)


def _with_imported(room: str, package: str, names: Collection[str], listed: Collection[str]) -> set[File]:
    """Return the files of plug-ins of a package, and those of their room that they import, unless they are listed."""
    found: set[File] = {file for name in names for file in plugins.own_files(package, name)}
    waiting = [f"{package.replace('.', '/')}/{name.replace('-', '_')}.py" for name in names]
    waiting = [file for file in waiting if (SOURCE_ROOT / file).is_file()]
    waiting += [file for each in found for file in _read(_absolute(each)).imported]
    while waiting:
        file = waiting.pop()
        if file not in found and file not in listed and file.startswith(f"{room}/"):
            found.add(file)
            waiting += _read(file).imported
    return found


class _Code(NamedTuple):
    """imported: the files of Decant that a file imports from. words: names that it imports, and texts in it."""

    imported: tuple[str, ...]
    words: frozenset[str]


def _absolute(file: File) -> File:
    return file if isinstance(file, str) else file.absolute()


@cache
def _read(file: File) -> _Code:
    """Read a file of code; each is parsed once, for experiments name it often."""
    path = SOURCE_ROOT / file if isinstance(file, str) else file
    nodes = list(ast.walk(ast.parse(path.read_bytes())))
    names = [(node.module, each.name) for node in nodes if isinstance(node, ast.ImportFrom) for each in node.names]
    modules = {module for of, name in names if of for module in (of, f"{of}.{name}")}
    paths = sorted(f"{module.replace('.', '/')}.py" for module in modules)
    texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    imported = tuple(path for path in paths if (SOURCE_ROOT / path).is_file())
    return _Code(imported, frozenset(texts | {name for _, name in names}))
