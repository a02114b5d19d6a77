"""Values of a field of many images as small numbers, which a map is colored by."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nearsight.collection import Collection

#: More categories cannot be told apart by color, least of all by the color-blind.
MOST_CATEGORIES = 10
#: Codes of categories: all others, and images without a value.
OTHER, NONE = MOST_CATEGORIES, 65535
#: The highest code of a scale; the lowest is 0.
HIGHEST = 1023
# A few extreme values would leave one color to all the rest.
_SCALE_QUANTILES = (0.01, 0.99)


@dataclass(frozen=True, slots=True)
class FieldValues:
    """Values of a field, one for each image.

    Attributes
    ----------
    kind : {"category", "number", "date"}
    codes : ndarray of shape (n,), uint16
        Of categories: the position in `categories`, or `OTHER`. Of a scale: 0 for its lower end to `HIGHEST`
        for its upper end. `NONE` where an image has no value.
    categories : list of (str, int)
        The most frequent values and the number of their images, the most frequent first.
    n_other, n_none : int
        Images of other values, and without a value.
    ends : tuple of (str, str) or None
        Both ends of the scale, for people: 98 % of the values lie between them.
    """

    kind: Literal["category", "number", "date"]
    codes: NDArray[np.uint16]
    categories: list[tuple[str, int]]
    n_other: int
    n_none: int
    ends: tuple[str, str] | None


def field_values(collection: Collection, field: str, ids: Sequence[str]) -> FieldValues:
    """Return the values of a field for images, in their order.

    Parameters
    ----------
    field : str
        What may be named in `where`: metadata, or a fact of an image such as ``camera``.
    ids : sequence of str
        Whole ids; those that are not in the collection have no value.

    Raises
    ------
    InvalidParameterError
        The collection has no such field.
    """
    values: dict[str, Any] = {}
    type_ = pa.string()
    for batch in collection.iter_batches(["id", field]):
        column = batch.column(field)
        type_ = column.type
        if pa.types.is_timestamp(type_):
            column = column.cast(pa.timestamp("us")).cast(pa.int64())
        values |= dict(zip(batch.column("id").to_pylist(), column.to_pylist(), strict=True))
    ordered = [values.get(id) for id in ids]
    if pa.types.is_timestamp(type_):
        return _scale("date", ordered)
    if pa.types.is_floating(type_) or pa.types.is_integer(type_):
        # A few whole numbers, such as those of clusters, are names rather than amounts.
        distinct = {value for value in ordered if value is not None}
        if len(distinct) > MOST_CATEGORIES or any(value % 1 for value in distinct):
            return _scale("number", ordered)
        return _categories([None if value is None else f"{value:g}" for value in ordered])
    return _categories([None if value is None else str(value) for value in ordered])


def _categories(values: Sequence[str | None]) -> FieldValues:
    counts = Counter(value for value in values if value is not None)
    # Of equally frequent values, the first by name: the same colors whatever the order of the rows is.
    frequent = sorted(counts.items(), key=lambda each: (-each[1], each[0]))[:MOST_CATEGORIES]
    codes = {value: code for code, (value, _) in enumerate(frequent)}
    coded = [NONE if value is None else codes.get(value, OTHER) for value in values]
    n_other = sum(counts.values()) - sum(n for _, n in frequent)
    return FieldValues("category", np.array(coded, np.uint16), frequent, n_other, coded.count(NONE), None)


def _scale(kind: Literal["number", "date"], values: Sequence[float | None]) -> FieldValues:
    numbers = np.array([np.nan if value is None else value for value in values], np.float64)
    is_known = np.isfinite(numbers)
    n_none = int((~is_known).sum())
    codes = np.full(len(numbers), NONE, np.uint16)
    if n_none == len(numbers):
        return FieldValues(kind, codes, [], 0, n_none, None)
    low, high = np.quantile(numbers[is_known], _SCALE_QUANTILES)
    # In halves: the whole width of the largest numbers is infinite.
    shares = np.clip((numbers[is_known] / 2 - low / 2) / ((high / 2 - low / 2) or 1), 0, 1)
    codes[is_known] = np.round(shares * HIGHEST).astype(np.uint16)
    return FieldValues(kind, codes, [], 0, n_none, (_shown(kind, low), _shown(kind, high)))


def _shown(kind: str, value: float) -> str:
    if kind == "date":
        return datetime.fromtimestamp(value / 1e6, timezone.utc).strftime("%Y-%m-%d")
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
