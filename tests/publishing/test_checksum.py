"""CRC-32C against its definition, bit by bit."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.publishing import checksum
from pipeline.publishing.checksum import crc32c


def by_definition(data: bytes) -> int:
    """The remainder by the polynomial 1EDC6F41, reflected, bits inverted before and after."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def test_the_check_value_of_the_catalogue() -> None:
    assert crc32c(b"123456789") == 0xE3069283


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 100])
def test_pieces_make_no_difference(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checksum, "PIECE", 8)
    content = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    assert crc32c(content.tobytes()) == crc32c(content.data) == by_definition(content.tobytes())


def test_the_bytes_of_any_array() -> None:
    content = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert crc32c(content.data) == by_definition(content.tobytes())
    content.flags.writeable = False
    assert crc32c(memoryview(content)) == by_definition(content.tobytes())
