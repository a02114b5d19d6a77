"""The client of the service: the same methods and results as those of a collection on this machine."""

from nearsight.client.client import (
    AsyncClient,
    AsyncRemoteCollection,
    Client,
    RemoteCollection,
    open_collection,
)

__all__ = ["AsyncClient", "AsyncRemoteCollection", "Client", "RemoteCollection", "open_collection"]
