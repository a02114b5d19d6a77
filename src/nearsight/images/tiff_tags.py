"""Tags of a TIFF directory: the first page of a TIFF, and EXIF blocks, which are TIFFs without pixels.

Pillow's reader warns about each damaged tag, and no thread can silence a warning for itself alone. This one
does not warn; the caller decides which damage matters.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

ORIENTATION = 0x0112
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}
_INTEGERS = {1: "B", 3: "H", 4: "L", 13: "L", 16: "Q"}
_POINTERS = (4, 13, 16)


@dataclass(slots=True)
class Tag:
    """One tag of a directory; number, type and count as in TIFF 6.0."""

    number: int
    type: int
    count: int
    integer: int | None  # the first value, if it is an unsigned integer
    entry: bytes  # the tag's entry in the directory
    view: memoryview | None  # of the value; None if the tag points beyond the data

    @property
    def value(self) -> bytes | None:
        """The value; None if the tag points beyond the data. Copied when asked: many tags may name much."""
        return None if self.view is None else bytes(self.view)


@dataclass(slots=True)
class TagDirectory:
    """The first directory of a TIFF or EXIF block; `start` and `end` are its offsets in the data."""

    data: bytes
    endian: str
    is_big: bool  # a BigTIFF, with 64-bit offsets
    start: int
    end: int
    n_tags: int

    @classmethod
    def first(cls, data: bytes) -> "TagDirectory | None":
        """Return the first directory; None if it is not within the data."""
        endian = {b"II": "<", b"MM": ">"}.get(data[:2])
        if endian is None:
            return None
        is_big = data[2:4] in (b"+\0", b"\0+")
        word, word_at = ("Q", 8) if is_big else ("L", 4)
        try:
            (start,) = struct.unpack_from(endian + word, data, word_at)
        except struct.error:
            return None
        return cls._starting_at(data, endian, is_big, start)

    @classmethod
    def _starting_at(cls, data: bytes, endian: str, is_big: bool, start: int) -> "TagDirectory | None":
        word, counter, entry_bytes = ("Q", "Q", 20) if is_big else ("L", "H", 12)
        try:
            (n_tags,) = struct.unpack_from(endian + counter, data, start)
        except (struct.error, OverflowError):
            return None
        n_bytes = struct.calcsize(endian + counter) + n_tags * entry_bytes + struct.calcsize(endian + word)
        return cls(data, endian, is_big, start, start + n_bytes, n_tags)

    def following(self) -> "TagDirectory | None":
        """Return the directory after this one; None if there is none, or it is not within the data."""
        word = "Q" if self.is_big else "L"
        try:
            (start,) = struct.unpack_from(
                self.endian + word, self.data, self.end - struct.calcsize("<" + word)
            )
        except (struct.error, OverflowError):
            return None
        return self._starting_at(self.data, self.endian, self.is_big, start) if start else None

    def pages(self, tag: Tag) -> "list[TagDirectory]":
        """Return the directories at the offsets that a tag holds, as far as they are within the data."""
        if tag.view is None or tag.type not in _POINTERS:
            return []
        word = self.endian + _INTEGERS[tag.type]
        starts = [start for (start,) in struct.iter_unpack(word, tag.view[: 64 * struct.calcsize(word)])]
        found = (self._starting_at(self.data, self.endian, self.is_big, start) for start in starts)
        return [directory for directory in found if directory is not None]

    def pointed_to_by(self, tag: Tag) -> "TagDirectory | None":
        """Return the directory at the offset that a tag holds; None if it is not within the data."""
        if tag.integer is None or tag.type not in _POINTERS:
            return None
        return self._starting_at(self.data, self.endian, self.is_big, tag.integer)

    def tags(self) -> Iterator[Tag]:
        """Yield the tags in order, as far as their entries lie within the data."""
        word, word_bytes, counter_bytes, entry_bytes = ("Q", 8, 8, 20) if self.is_big else ("L", 4, 2, 12)
        view = memoryview(self.data)
        for i in range(self.n_tags):
            at = self.start + counter_bytes + i * entry_bytes
            entry = self.data[at : at + entry_bytes]
            if len(entry) < entry_bytes:
                return
            number, type_, count = struct.unpack_from(self.endian + "HH" + word, entry)
            value_at = at + entry_bytes - word_bytes
            n_bytes = count * _TYPE_BYTES.get(type_, 0)
            if n_bytes > word_bytes:
                (value_at,) = struct.unpack_from(self.endian + word, self.data, value_at)
            is_intact = 0 < n_bytes <= len(self.data) - value_at
            value = view[value_at : value_at + n_bytes] if is_intact else None
            integer = None
            if value is not None and type_ in _INTEGERS:
                (integer,) = struct.unpack_from(self.endian + _INTEGERS[type_], value)
            yield Tag(number, type_, count, integer, entry, value)

    def with_only(self, entries: list[bytes]) -> bytes:
        """Return the data with these entries in the directory, and no directory after it.

        The length stays, so that no byte is added that an image cut short could be completed with.
        """
        counter = struct.pack(self.endian + ("Q" if self.is_big else "H"), len(entries))
        directory = (counter + b"".join(entries)).ljust(self.end - self.start, b"\0")
        view = memoryview(self.data)
        return b"".join((view[: self.start], directory, view[self.end :]))
