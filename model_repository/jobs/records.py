"""Records in shared memory that one process writes and many read, without a lock.

A record begins with two int64: its *generation* and the *time* it was written; the newer is the larger pair. It is kept
in two copies, each with a checksum, and a write goes over the older one. Whoever reads meanwhile, on whatever machine,
and whoever comes after a writer that was killed in the middle, finds the other copy whole.
"""

from __future__ import annotations

import struct
import zlib
from mmap import mmap

CHECKSUM = struct.Struct("@Q")


def summed(content: bytes, at: int | None = None) -> bytes:
    """``content`` with its checksum put in at ``at`` (by default at its end)."""
    at = len(content) if at is None else at
    return content[:at] + CHECKSUM.pack(zlib.crc32(content) + 1) + content[at:]  # never 0, as fresh memory is


def checked(record: bytes, at: int | None = None) -> bytes | None:
    """The content of a record with its checksum at ``at``, or None if it is not whole."""
    at = len(record) - CHECKSUM.size if at is None else at
    content = record[:at] + record[at + CHECKSUM.size :]
    return content if CHECKSUM.unpack_from(record, at)[0] == zlib.crc32(content) + 1 else None


class Records:
    """Records of the layout ``fields`` in ``memory``; ``words`` is the same memory as int64."""

    def __init__(self, fields: struct.Struct, memory: mmap, words: memoryview[int]) -> None:
        self._fields = fields
        self._memory = memory
        self._words = words
        self._size = fields.size + CHECKSUM.size
        self.size = 2 * self._size

    def write(self, start: int, *values: int | float) -> None:
        """Write the record at byte ``start``, a multiple of 8: generation, time, and the other fields."""
        if self.newer(start) == start:
            start += self._size
        self._memory[start : start + self._size] = summed(self._fields.pack(*values))

    def newer(self, start: int) -> int:
        """Where the newer copy is. It may be in the middle of being written: `read` looks, and takes the other then."""
        words, first, second = self._words, start >> 3, (start + self._size) >> 3
        later = words[second] > words[first] or (words[second] == words[first] and words[second + 1] > words[first + 1])
        return start + self._size if later else start

    def read(self, start: int) -> tuple[int, ...] | None:
        """The newest whole copy of the record at ``start``, or None if there is none yet."""
        newer = self.newer(start)
        for at in (newer, 2 * start + self._size - newer):
            content = checked(self._memory[at : at + self._size])
            if content is not None:
                return self._fields.unpack(content)
        return None
