"""Recommendations that a client can ask for, and the baskets behind them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nearsight.client.job_operations import finished, job_result
from nearsight.client.operations import collection_path
from nearsight.client.requests import Named, Operation, Request
from nearsight.errors import InvalidParameterError

if TYPE_CHECKING:
    from nearsight.analyses.recommendations import Recommendations


# The service answers so many in one request.
_EACH = 200


def recommend(
    collection: Named,
    ids: str | Sequence[str],
    *,
    baskets: str | None = None,
    k: int = 10,
    where: str | None = None,
    rules: Sequence[str] = (),
    diversity: float = 0.0,
    include_new_items: bool = False,
) -> Operation["Recommendations"]:
    """Recommend similar images, or, with baskets, images that are bought together.

    Parameters
    ----------
    ids : str or sequence of str
        One image, or a customer's history.
    baskets : str, optional
        The name of baskets that the service has; see `fit_baskets`.
    rules : sequence of str
        Filters in which ``item.FIELD`` stands for the value of the first image.
    k, where, diversity, include_new_items
        See `Collection.recommend`.
    """
    first, *also = [ids] if isinstance(ids, str) else ids
    params = {
        "k": k,
        "where": where,
        "rule": list(rules),
        "diversity": diversity,
        "include_new_items": include_new_items,
        "baskets": baskets,
        "also": also,
    }
    sent = {name: value for name, value in params.items() if value is not None}
    answer = yield Request("GET", collection_path(collection, "items", first, "recommendations"), params=sent)
    return _recommendations(answer.json())


def recommend_each(
    collection: Named,
    ids: Sequence[str],
    *,
    baskets: str | None = None,
    k: int = 10,
    where: str | None = None,
    rules: Sequence[str] = (),
    diversity: float = 0.0,
    include_new_items: bool = False,
) -> Operation["dict[str, Recommendations]"]:
    """Recommend images for each of several images; return them by id, in order. See `recommend`.

    An image that was added after the baskets were learned from is left out.
    """
    body = _body(baskets, k, where, rules, diversity, include_new_items)
    place, found = collection_path(collection, "recommendations", "each"), {}
    for start in range(0, len(ids), _EACH):
        answer = yield Request("POST", place, json={**body, "ids": list(ids[start : start + _EACH])})
        for document in answer.json()["results"]:
            [id] = document["for"]
            found[id] = _recommendations(document)
    return found


def _body(
    baskets: str | None,
    k: int,
    where: str | None,
    rules: Sequence[str],
    diversity: float,
    include_new_items: bool,
) -> dict[str, Any]:
    return {
        "k": k,
        "where": where,
        "rule": list(rules),
        "diversity": diversity,
        "include_new_items": include_new_items,
        "baskets": baskets,
    }


def _recommendations(document: dict[str, Any]) -> "Recommendations":
    from nearsight.analyses.recommendations import Evidence, Recommendations, RecommendedImage

    images = [
        RecommendedImage(**{**each, "evidence": [Evidence(**reason) for reason in each["evidence"]]})
        for each in document["items"]
    ]
    return Recommendations(
        images,
        document["baskets"],
        learned=document["learned"],
        similar_lift=document["similar_lift"],
        n_new=document["new"],
    )


def recommendation_table(
    collection: Named,
    ids: Sequence[str] | None = None,
    *,
    baskets: str | None = None,
    k: int = 10,
    where: str | None = None,
    rules: Sequence[str] = (),
    diversity: float = 0.0,
    include_new_items: bool = False,
) -> Operation[bytes]:
    """Recommend images for each of `ids`, or for every image; return the table, a CSV file.

    See `recommend`.
    """
    body = {**_body(baskets, k, where, rules, diversity, include_new_items), "ids": ids and list(ids)}
    place = collection_path(collection, "recommendations")
    yield from finished((yield Request("POST", place, json=body)).json())
    return (yield Request("GET", place)).content


def recommendation_rules(collection: Named) -> Operation[list[str]]:
    """Return the rules that are saved with the collection; `recommend` takes them as `rules`."""
    answer = yield Request("GET", collection_path(collection, "recommendations", "rules"))
    rules: list[str] = answer.json()["rules"]
    return rules


def save_recommendation_rules(
    collection: Named, rules: Sequence[str], *, before: Sequence[str] | None = None
) -> Operation[None]:
    """Save rules with the collection, in place of those before.

    Parameters
    ----------
    rules : sequence of str
    before : sequence of str, optional
        The rules that these replace: then they replace no others that somebody has saved meanwhile. Without
        it, the rules that are saved last hold.

    Raises
    ------
    InvalidParameterError
        Others are saved.
    """
    place = collection_path(collection, "recommendations", "rules")
    headers = {}
    if before is not None:
        saved = yield Request("GET", place)
        if saved.json()["rules"] != list(before):
            raise InvalidParameterError("somebody has saved other rules meanwhile; read them, and save again")
        headers["If-Match"] = saved.headers["etag"]
    yield Request("PUT", place, json={"rules": list(rules)}, headers=headers)


def baskets(collection: Named) -> Operation[list[dict[str, Any]]]:
    """Return what is known of the baskets that the service has: name, number of baskets, unknown names."""
    answer = yield Request("GET", collection_path(collection, "baskets"))
    listed: list[dict[str, Any]] = answer.json()["baskets"]
    return listed


def fit_baskets(
    collection: Named, name: str, table: str | Path | bytes, *, on_server: bool = False
) -> Operation[dict[str, Any]]:
    """Learn from a table of baskets, and return what is known of them; what has the name is replaced.

    Parameters
    ----------
    name : str
        Up to 64 letters, digits, - and _.
    table : path or bytes
        A CSV file with the columns ``basket`` and ``item``, or its content.
    on_server : bool, default False
        Whether `table` is ``ROOT/below/it`` on the server instead of a file of this machine.
    """
    place = collection_path(collection, "baskets", name)
    if on_server:
        request = Request("PUT", place, json={"file": str(table)})
    else:
        content = table if isinstance(table, bytes) else Path(table).read_bytes()
        title = "table.csv" if isinstance(table, bytes) else Path(table).name
        request = Request("PUT", place, files=[("file", (title, content))])
    return (yield from job_result(request))


def delete_baskets(collection: Named, name: str) -> Operation[None]:
    """Delete what was learned from baskets."""
    yield Request("DELETE", collection_path(collection, "baskets", name))
