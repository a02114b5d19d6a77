"""One step of an upgrade, in a process that kills itself before one of its writes."""

import os
import signal

from nearsight import Collection
from nearsight.collection import bridge, bridged_search, shadow_rows, upgrade
from nearsight.object_storage import lease
from nearsight.store import locate

from fake import FakeBackend


def run(place, step, n_writes, query):
    """Do a step, and die before the write after the first `n_writes`; the exit status is 0 if it is done."""
    left = [n_writes]

    def dying(function):
        def stopped(*args, **kwargs):
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return function(*args, **kwargs)

        return stopped

    # A bucket knows of no death: the next process waits so long.
    lease.TTL_S = 0.5
    location = locate(place)
    store = location.open_store(upgrade.manifest.CollectionManifest.read(location).store)
    for owner, name in (
        *((type(location), f"{verb}_document") for verb in ("write", "delete")),
        *((type(location), f"{verb}_store") for verb in ("create", "delete")),
        (type(store), "append"),
        (bridge, "write_artifact"),
    ):
        setattr(owner, name, dying(getattr(owner, name)))
    shadow_rows._ROWS_AT_ONCE = 100
    if step in ("rollback", "commit"):
        getattr(upgrade, step)(location)
        return
    collection = Collection.open(location, model=FakeBackend(0))
    if step == "search":
        bridged_search.BridgedSearch(collection, FakeBackend(1)).search(query)
        return
    upgraded = upgrade.Upgrade(collection, FakeBackend(1))
    upgraded.sample(60, progress=False)
    if step == "upgrade":
        upgraded.shadow(progress=False)
        upgraded.verify()
        upgraded.switch()
