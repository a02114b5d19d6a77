"""Filters in Qdrant's own conditions."""

from collections.abc import Sequence
from typing import Any

from qdrant_client import models

from nearsight.store.filters.conditions import ConditionWriter
from nearsight.store.json_columns import json_key

_RANGES = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}


class QdrantConditions(ConditionWriter[Any]):
    """Writes filters for Qdrant, which has no LIKE, no order of texts, and no NaN."""

    def both(self, left: Any, right: Any) -> Any:
        return models.Filter(must=[left, right])

    def either(self, left: Any, right: Any) -> Any:
        return models.Filter(should=[left, right])

    def no(self, condition: Any) -> Any:
        return models.Filter(must_not=[condition])

    def known(self, column: str) -> Any:
        return self.no(models.IsEmptyCondition(is_empty=models.PayloadField(key=json_key(column))))

    def is_in(self, column: str, values: Sequence[Any]) -> Any:
        if isinstance(values[0], bool):
            found: list[Any] = [
                self._condition(column, match=models.MatchValue(value=value)) for value in values
            ]
            return found[0] if len(found) == 1 else models.Filter(should=found)
        return self._condition(column, match=models.MatchAny(any=list(values)))

    def contains(self, column: str, values: Sequence[str]) -> Any:
        return self.is_in(column, values)

    def in_order(self, column: str, operator: str, value: float) -> Any:
        return self._condition(column, range=models.Range(**{_RANGES[operator]: value}))

    def _condition(self, column: str, **test: Any) -> models.FieldCondition:
        return models.FieldCondition(key=json_key(column), **test)
