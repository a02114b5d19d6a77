"""Errors of the engine as errors of nearsight, and retries of those that pass."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import filelock

from nearsight.errors import CollectionNotFoundError, StorageError

T = TypeVar("T")

_REASONS = {
    13: "permission was denied. Check who owns the directory",
    1: "permission was denied. Check who owns the directory",
    28: "the disk is full. Free some space and run the same command again; rows already saved are intact",
    122: "the disk quota is used up. Free some space and run the same command again; "
    "rows already saved are intact",
    27: "a file grew over the allowed size. Raise the limit (ulimit -f) and run the same command again; "
    "rows already saved are intact",
    30: "the file system is read-only. Copy the collection to a place where you can write",
    5: "the disk reported a read or write error. Check the disk; rows already saved are intact",
}


def _storage_error(error: BaseException, place: object, doing: str) -> StorageError:
    text = str(error)
    match = re.search(r"os error (\d+)", text)
    code = int(match[1]) if match else getattr(error, "errno", None)
    # The engine adds a line of its own source, which helps no user.
    detail = re.sub(r",? *(/[^ ]*)?\.rs:\d+:\d+.*$", "", text, flags=re.DOTALL).removeprefix("lance error: ")
    reason = _REASONS.get(code or 0, f"{detail}. Run the same command again; if it persists, restore a copy")
    if "ot found" in text or code == 2:
        reason = (
            f"a file is gone ({detail}). If another process removed or compacted the collection, try again"
        )
    wrapped = StorageError(f"{place}: {doing} failed: {reason}.")
    wrapped.errno = code
    return wrapped


def _is_conflict(error: StorageError) -> bool:
    return "conflict" in str(error.__cause__).lower()


@contextmanager
def translated(place: object, doing: str) -> Iterator[None]:
    """Raise the engine's errors as StorageError, with the place and a remedy."""
    try:
        yield
    except (StorageError, CollectionNotFoundError, filelock.Timeout):
        raise
    except (RuntimeError, OSError) as error:
        raise _storage_error(error, place, doing) from error
    except BaseException as error:
        if type(error).__name__ == "PanicException":  # how a bug or a full disk in Rust code arrives
            raise _storage_error(error, place, doing) from error
        raise


def retried(call: Callable[[], T], on: str, n_tries: int = 5) -> T:
    """Return ``call()``, retried while another process wrote first ("conflict") or deleted files ("gone")."""
    while True:
        n_tries -= 1
        try:
            return call()
        except StorageError as error:
            matches = _is_conflict(error) if on == "conflict" else "is gone" in str(error)
            if not matches or not n_tries:
                raise
