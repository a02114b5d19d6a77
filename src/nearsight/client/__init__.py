"""The client of the service: the same methods and results as those of a collection on this machine."""

from nearsight.client.client import (
    AsyncClient,
    AsyncRemoteCollection,
    AsyncRemoteDetector,
    Client,
    RemoteCollection,
    RemoteDetector,
    open_collection,
)

__all__ = [
    "AsyncClient",
    "AsyncRemoteCollection",
    "AsyncRemoteDetector",
    "Client",
    "RemoteCollection",
    "RemoteDetector",
    "open_collection",
]
