"""What a client can ask for about the upgrade of a collection; see `nearsight.client.operations`."""

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from nearsight.client.job_operations import job_result
from nearsight.client.operations import collection_path, image_files
from nearsight.client.requests import Named, Operation, Request
from nearsight.collection import Match

if TYPE_CHECKING:
    from nearsight.collection.bridged_search import BridgedResult


def upgrade(
    collection: Named,
    model: str,
    *,
    labels: str | None = None,
    missing: Literal["refuse", "keep", "drop"] = "refuse",
    dry_run: bool = False,
    force: bool = False,
) -> Operation[dict[str, Any]]:
    """Move a collection to another model of the service, and wait for it.

    Parameters
    ----------
    model : str
        An alias of the service.
    labels : str, optional
        A metadata key, or ``folder``: the models are compared by these labels.
    missing : {"refuse", "keep", "drop"}
        With images whose files are gone: stop, estimate their vectors, or leave them out.
    dry_run : bool, default False
        Stop after a sample. From then on, `search_by_model` works.
    force : bool, default False
        Change the collection although labels say that it gets worse.

    Returns
    -------
    dict
        As `nearsight upgrade --json` prints it, with aliases for models and names for files.
    """
    body = {"model": model, "labels": labels, "missing": missing, "dry_run": dry_run, "force": force}
    return (yield from job_result(Request("POST", collection_path(collection, "upgrade"), json=body)))


def upgrade_state(collection: Named) -> Operation[dict[str, Any]]:
    """Return how far an upgrade is.

    Returns
    -------
    dict
        ``phase`` (sampling, shadow, verifying, ready, switched, rolled_back, or None), ``model`` (the new
        model's alias), and ``report``, the latest result of `upgrade`.
    """
    facts: dict[str, Any] = (yield Request("GET", collection_path(collection, "upgrade"))).json()
    return facts


def commit_upgrade(collection: Named) -> Operation[None]:
    """Delete the vectors of the old model."""
    yield Request("POST", collection_path(collection, "upgrade", "commit"))


def abandon_upgrade(collection: Named) -> Operation[None]:
    """End an upgrade that has not changed the collection, and delete the new vectors."""
    yield Request("POST", collection_path(collection, "upgrade", "abandon"))


def roll_back_upgrade(collection: Named) -> Operation[int]:
    """Bring the old model back; return how many images came after the upgrade, and lack a vector now."""
    return int((yield Request("POST", collection_path(collection, "upgrade", "rollback"))).json()["lacking"])


def search_by_model(
    collection: Named,
    model: str,
    query: Any = None,
    *,
    ids: Sequence[str] = (),
    k: int = 10,
    where: str | None = None,
    exact: bool = False,
) -> "Operation[BridgedResult]":
    """Search by the model that an upgrade under way moves the collection to, or by its own.

    Parameters
    ----------
    model : str
        An alias of the service.
    query, k, where, exact
        See `Collection.search`.
    ids : sequence of str
        Images of the collection to look for.
    """
    from nearsight.collection.bridged_search import BridgedResult

    body: dict[str, Any] = {"model": model, "id": list(ids), "k": k, "where": where, "exact": exact}
    if query is not None:
        body["image"] = [base64.b64encode(data).decode() for _, (_, data) in image_files(query)]
    facts = (yield Request("POST", collection_path(collection, "search"), json=body)).json()
    by = [(Match(**{key: hit[key] for key in hit if key != "by"}), hit["by"]) for hit in facts["hits"]]
    bridge = facts["bridge"]
    return BridgedResult(
        [match for match, _ in by],
        [match.id for match, how in by if how == "bridge"],
        bridge["embedded"],
        *(bridge[name] for name in ("share", "recall", "low", "high")),
    )
