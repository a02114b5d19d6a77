"""The lock of whoever writes to a bucket: one at a time, and none that was taken for dead."""

import threading
import time
from itertools import count

import filelock
import pytest

from nearsight.errors import StorageError
from nearsight.object_storage.bucket import Bucket
from nearsight.object_storage.lease import Lease

_NUMBERS = count()


@pytest.fixture
def url() -> str:
    return f"memory://lease{next(_NUMBERS)}"


def test_one_holds_the_lock_at_a_time(url) -> None:
    # Each has a bucket of its own, as processes do.
    leases = [Lease(Bucket(url)) for _ in range(3)]
    inside, most, n_turns = [0], [0], [0]

    def take_turns(lease) -> None:
        turn = lease.hold()
        for _ in range(3):
            with turn, turn, lease.hold():
                inside[0] += 1
                n_turns[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0.002)
                inside[0] -= 1

    threads = [threading.Thread(target=take_turns, args=(lease,)) for lease in leases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, n_turns) == ([1], [9])
    with leases[0].hold():
        with pytest.raises(filelock.Timeout), leases[1].hold(blocking=False):
            pass
        # Another lock of the same bucket is free.
        with Lease(Bucket(url), "other").hold(blocking=False):
            pass


def test_who_was_stopped_for_long_does_not_write(url, monkeypatch) -> None:
    one, other = (Lease(Bucket(url), ttl_s=0.5) for _ in range(2))
    # One gives no sign, as in a machine that is suspended.
    monkeypatch.setattr(one, "_keep", lambda ended: None)
    with one.hold():
        one.check()
        with other.hold():
            time.sleep(0.3)
            with pytest.raises(StorageError, match="another one writes now. Run the same command again"):
                one.check()
    # What one released at the end was not the lock of the other.
    with one.hold(blocking=False):
        pass


def test_a_late_taker_does_not_get_a_number_that_was_used(url) -> None:
    bucket = Bucket(url)
    for _ in range(3):
        with Lease(bucket).hold():
            pass
    # It looked before the first turn, and went on only now.
    assert not Lease(bucket)._take(1)
    assert list(bucket.entries("lock")) == ["000000000003"]
