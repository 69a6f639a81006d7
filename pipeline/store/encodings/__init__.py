"""How signals are written, one encoding a file, named as in `signals.*.encoding`.

`Encoding` says what a file provides; `tests/contracts/test_encodings.py` finds every file.
"""

from pipeline.store.encodings._contract import ENCODINGS, Encoding, EncodingOverflow, load

__all__ = ["ENCODINGS", "Encoding", "EncodingOverflow", "load"]
