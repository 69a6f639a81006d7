"""Encodes signals as the numbers that are stored: one encoding a file, named as in `signals.*.encoding`.

A file provides `SIGNALS`, the kinds of signals that it can write, and `build(shape, options)`, which returns the
`Encoding` of a signal [R, *shape]. Options, if it has any, are its class `Options`: `{name: topk, k: 10}` in the
configuration, and with their defaults in the identity of a cache. `tests/contracts/test_encodings.py` finds every
file.
"""

from __future__ import annotations

from pipeline.config import Section
from pipeline.factories import Factory
from pipeline.store.encodings._choice import ENCODINGS, encodings_for, load_encoding, name_of, resolved_encoding
from pipeline.store.encodings._contract import EVERY_SIGNAL, Encoding, EncodingOverflow

__all__ = [
    "ENCODINGS",
    "Encoding",
    "EncodingOverflow",
    "encodings_for",
    "load_encoding",
    "name_of",
    "resolved_encoding",
]

FACTORY = Factory(
    "build", ("shape", "options"), Section, lambda: (Encoding,), "decant.encodings", constants={"SIGNALS": EVERY_SIGNAL}
)
"""How encodings are made that lie outside of this folder. Without `SIGNALS` their module writes signals of any kind."""
