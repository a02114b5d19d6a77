"""Titles of images, from their metadata."""

from collections.abc import Mapping, Sequence
from typing import Any

from nearsight.text_format import printable

#: Metadata that titles an image; the first that it has counts.
TITLE_KEYS = ("title", "name")


def title_of(metadata: Mapping[str, Any]) -> str:
    """Return the title of an image, or an empty string.

    Examples
    --------
    >>> title_of({"name": "Chair", "price": 9}), title_of({"title": None, "name": "Chair"}), title_of({})
    ('Chair', 'Chair', '')
    """
    values = (metadata.get(key) for key in TITLE_KEYS)
    return next(
        (printable(value.strip()) for value in values if isinstance(value, str) and value.strip()), ""
    )


def titles_of(columns: Mapping[str, Sequence[Any]], n: int) -> list[str]:
    """Return the titles of n images whose metadata lie in columns."""
    present = {key: columns[key] for key in TITLE_KEYS if key in columns}
    return [title_of({key: values[i] for key, values in present.items()}) for i in range(n)]
