"""Rules of recommendations: filters that may refer to the image that is recommended for."""

import hashlib
import json
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from filelock import FileLock

from nearsight.collection import Collection, Item
from nearsight.errors import FilterError, InvalidParameterError, StorageError
from nearsight.services.change_files import write_durably

FILENAME = "recommendation_rules.json"

# Text in quotes is passed over; a reference may be multiplied from either side.
_QUOTED_OR_REFERENCE = re.compile(
    r"""(?P<quoted>'(?:[^']|'')*'|"[^"]*")"""
    r"|(?:(?P<before>\d+(?:\.\d+)?)\s*\*\s*)?\bitem\.(?P<name>[A-Za-z_]\w*)(?:\s*\*\s*(?P<after>\d+(?:\.\d+)?))?"
)
_FIELDS = ("width", "height", "size_bytes", "modified", "added", "taken", "camera", "lens", "lat", "lon")
MAX_RULES = 20


class RulesChangedError(InvalidParameterError):
    """The saved rules are not those that were to be replaced."""


def condition(
    collection: Collection, item: Item, rules: Sequence[str], where: str | None = None
) -> str | None:
    """Return the filter that rules make for one image; None if any image may be recommended.

    Parameters
    ----------
    collection : Collection
        It has the fields.
    item : Item
        The image that is recommended for.
    rules : sequence of str
        Each is a filter in which ``item.FIELD`` stands for the value of `item`, and may be multiplied by a
        number: ``category != item.category``, ``price <= 1.2 * item.price``. A rule that names a value which
        the image lacks does not apply to it. All others must hold.
    where : str, optional
        A further filter.

    Raises
    ------
    FilterError
        A rule refers to a field that no image has, or multiplies what is not a number; there are over 20.
    """
    if len(rules) > MAX_RULES:
        raise FilterError(f"there are {len(rules)} rules; at most {MAX_RULES} are allowed")
    known = collection.metadata_types()
    parts = [where] if where else []
    for rule in rules:
        values = _Values(item, known)
        text = _QUOTED_OR_REFERENCE.sub(values.literal, rule)
        if not values.is_missing:
            parts.append(text)
    return " AND ".join(f"({part})" for part in parts) or None


def check_rules(collection: Collection, rules: Sequence[str]) -> None:
    """Refuse rules that could not be understood for some image: the first one stands for all.

    Raises
    ------
    FilterError
        See `condition`.
    """
    first = next(iter(collection.items()), None)
    if first is not None:
        collection.count(condition(collection, first, rules))


class StoredRules:
    """The rules that a collection's recommendations follow by default, in its directory.

    Parameters
    ----------
    collection : Collection
    """

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self._file = collection.directory / FILENAME

    def read(self) -> list[str]:
        """Return the rules; none if none were saved.

        Raises
        ------
        StorageError
            The file is damaged.
        """
        try:
            rules = json.loads(self._file.read_text(encoding="utf-8"))["rules"]
            return [str(rule) for rule in rules]
        except FileNotFoundError:
            return []
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise StorageError(f"{self._file} is damaged; save the rules again, or delete it") from error

    def write(self, rules: Sequence[str], *, before: str | None = None) -> None:
        """Replace the rules; they are on disk when this returns. Of several writers, the last one holds.

        Parameters
        ----------
        rules : sequence of str
        before : str, optional
            The `revision` of the rules that these replace: then they replace no others.

        Raises
        ------
        FilterError
            See `condition`.
        RulesChangedError
            Somebody else has saved rules since.
        """
        check_rules(self._collection, rules)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self._file.with_suffix(".lock")):
            if before is not None and before != revision(self.read()):
                raise RulesChangedError("somebody has saved other rules meanwhile; read them, and save again")
            write_durably(self._file, {"format": 1, "rules": list(rules)})


def revision(rules: Sequence[str]) -> str:
    """Return a short text that only these rules have."""
    return hashlib.sha256(json.dumps(list(rules)).encode()).hexdigest()[:16]


class _Values:
    """The values of an image as literals of a filter.

    Attributes
    ----------
    is_missing : bool
        Whether the image lacks a value that was asked for.
    """

    def __init__(self, item: Item, known: Any) -> None:
        self._item, self._known = item, known
        self.is_missing = False

    def literal(self, match: "re.Match[str]") -> str:
        if match["quoted"]:
            return match["quoted"]
        name = match["name"]
        if name in self._known:
            value = self._item.metadata.get(name)
        elif name in _FIELDS:
            value = getattr(self._item, name)
        else:
            fields = ", ".join((*self._known, *_FIELDS))
            raise FilterError(f"item.{name}: no image has the field {name}; the fields are {fields}")
        if value is None:
            self.is_missing = True
            return "NULL"
        factors = [float(factor) for factor in (match["before"], match["after"]) if factor]
        if not factors:
            return _quoted(value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise FilterError(f"item.{name} is {value!r}; only a number can be multiplied")
        for factor in factors:
            value *= factor
        return f"{value:.12g}"


def _quoted(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, int | float):
        return repr(value)
    text = value.isoformat() if isinstance(value, datetime) else str(value)
    return "'" + text.replace("'", "''") + "'"
