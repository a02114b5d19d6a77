"""Texts in a filter in both forms of Unicode: a name may be stored in another form than it is typed."""

import unicodedata
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from typing import Any, Literal

from nearsight.store.filters.ast import And, Compare, Filter, In, Like, Node, Not, Or

_FORMS: tuple[Literal["NFC"], Literal["NFD"]] = ("NFC", "NFD")


def in_both_forms(condition: Filter) -> Filter:
    """Return a filter that finds a text whether it is stored precomposed (form C) or decomposed (form D).

    File names of macOS are decomposed; most others are precomposed. Comparisons of order stay as they are.
    """
    return Filter(_node(condition.node))


def _node(node: Node) -> Node:
    if isinstance(node, (And, Or)):
        return replace(node, left=_node(node.left), right=_node(node.right))
    if isinstance(node, Not):
        return Not(_node(node.node))
    if isinstance(node, Compare) and node.op in ("=", "!=") and len(forms := _forms(node.value)) > 1:
        equal = In(node.field, forms)
        return equal if node.op == "=" else Not(equal)
    if isinstance(node, In):
        return replace(node, values=tuple(form for value in node.values for form in _forms(value)))
    if isinstance(node, Like):
        return _like(node)
    return node


def _like(node: Like) -> Node:
    # A letter and its accent may be two parts, each of one character.
    if all(text.isascii() for _, text in node.parts):
        return node
    runs = [
        (is_wild, "".join(text for _, text in run)) for is_wild, run in groupby(node.parts, key=itemgetter(0))
    ]
    patterns = {
        tuple((is_wild, char) for is_wild, text in _normalized(runs, form) for char in text): None
        for form in _FORMS
    }
    first, *rest = (replace(node, parts=parts) for parts in patterns)
    return Or(first, *rest) if rest else first


def _normalized(runs: list[tuple[bool, str]], form: Literal["NFC", "NFD"]) -> list[tuple[bool, str]]:
    return [(is_wild, text if is_wild else unicodedata.normalize(form, text)) for is_wild, text in runs]


def _forms(value: Any) -> tuple[Any, ...]:
    if not isinstance(value, str) or value.isascii():
        return (value,)
    return tuple(dict.fromkeys((value, *(unicodedata.normalize(form, value) for form in _FORMS))))
