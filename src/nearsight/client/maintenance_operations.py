"""What a client can ask for about the care of a collection; see `nearsight.client.operations`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from nearsight.client.job_operations import job_result
from nearsight.client.operations import collection_path
from nearsight.client.requests import Named, Operation, Request
from nearsight.collection import CopyReport
from nearsight.errors import CopyDifferenceError

if TYPE_CHECKING:
    from nearsight.models.pca import Projection


def compact(collection: Named) -> Operation[None]:
    """Rewrite the collection into fewer and larger files; see `Collection.compact`.

    The result of the job says what that freed.
    """
    yield from _result(collection, "compact", {})


def copy(
    collection: Named,
    to: str,
    *,
    storage: str | None = None,
    verify: bool = False,
    start_over: bool = False,
) -> Operation[CopyReport]:
    """Copy the collection to another one of the service; see `copy_collection`.

    Parameters
    ----------
    to : str
        The name of the new collection, or of a mount that holds none. With `verify`, a copy may be there
        already, which is compared.
    storage, verify, start_over
        See `copy_collection`.

    Raises
    ------
    CopyDifferenceError
        The copy differs from the original.
    """
    body = {"to": to, "storage": storage, "verify": verify, "start_over": start_over}
    facts = yield from _result(collection, "copy", body)
    if differences := facts.get("differences"):
        raise CopyDifferenceError(f"{to!r} differs from {collection.name!r}: {differences}", differences)
    return CopyReport(facts["images"], facts["copied"], facts["files"], facts["verified"])


def reduce_dim(
    collection: Named, dim: int, to: str, *, storage: str | None = None
) -> "Operation[Projection]":
    """Make a collection of the same images with shorter vectors; see `Collection.reduce_dim`.

    Parameters
    ----------
    dim : int
    to : str
        The name of the new collection, or of a mount that holds none.
    storage : {"float32", "float16"}, optional

    Returns
    -------
    Projection
        Its `variance_kept` is the share of the variance that is left.
    """
    return (yield from _projected(collection, to, {"dim": dim, "storage": storage}))


def center(collection: Named, to: str, *, storage: str | None = None) -> "Operation[Projection]":
    """Make a collection of the same images with centered vectors; see `reduce_dim`."""
    return (yield from _projected(collection, to, {"center": True, "storage": storage}))


def _projected(collection: Named, to: str, options: Mapping[str, Any]) -> "Operation[Projection]":
    from nearsight.models.pca import Projection

    yield from _result(collection, "reduce-dim", {"to": to, **options})
    answer = yield Request("GET", f"/v1/collections/{quote(to, safe='')}/projection")
    return Projection.from_bytes(answer.content, to)


def _result(collection: Named, kind: str, body: Mapping[str, Any]) -> Operation[dict[str, Any]]:
    request = Request("POST", collection_path(collection, kind), json=dict(body) if body else None)
    return (yield from job_result(request))
