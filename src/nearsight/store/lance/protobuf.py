"""The wire format of protocol buffers, in which Lance writes what it says about its files."""

from collections.abc import Iterator, Set

# The bytes of a value by its wire type; those of type 2 begin with their number.
_WIDTHS = {1: 8, 5: 4}


def fields(data: memoryview, known: Set[int] | None = None) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the numbers and values of a message's fields.

    Raises
    ------
    ValueError, IndexError
        The message is damaged, or has a field that is not `known`.
    """
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire_type = key >> 3, key & 7
        if known is not None and number not in known:
            raise ValueError(f"there is an unknown field {number}")
        value: int | memoryview
        if wire_type == 0:
            value, at = _varint(data, at)
        elif wire_type == 2 or wire_type in _WIDTHS:
            length, at = _varint(data, at) if wire_type == 2 else (_WIDTHS[wire_type], at)
            value, at = data[at : at + length], at + length
            if at > len(data):
                raise ValueError("a field ends too late")
        else:
            raise ValueError(f"there is a field of wire type {wire_type}")
        yield number, value


def message(data: memoryview, known: Set[int] | None = None) -> dict[int, int | memoryview]:
    """Return the fields of a message by number, the last of those that are repeated."""
    return dict(fields(data, known))


def integers(value: int | memoryview) -> list[int]:
    """Return a repeated number, packed as one field."""
    data, at, numbers = as_bytes(value), 0, []
    while at < len(data):
        number, at = _varint(data, at)
        numbers.append(number)
    return numbers


def as_integer(value: int | memoryview) -> int:
    """Return a number; TypeError if the field holds bytes."""
    if not isinstance(value, int):
        raise TypeError("a field holds bytes, where a number is due")
    return value


def as_bytes(value: int | memoryview) -> memoryview:
    """Return bytes; TypeError if the field holds a number."""
    if isinstance(value, int):
        raise TypeError("a field holds a number, where bytes are due")
    return value


def as_text(value: int | memoryview) -> str:
    """Return text; TypeError if the field holds a number."""
    return bytes(as_bytes(value)).decode()


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
