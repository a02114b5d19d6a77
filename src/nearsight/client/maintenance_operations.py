"""What a client can ask for about the care of a collection; see `nearsight.client.operations`."""

from nearsight.client.operations import collection_path, finished
from nearsight.client.requests import Named, Operation, Request


def compact(collection: Named) -> Operation[None]:
    """Rewrite the collection into fewer and larger files; see `Collection.compact`.

    The result of the job says what that freed.
    """
    yield from finished((yield Request("POST", collection_path(collection, "compact"))).json())
