"""A Ray cluster that a command uses, or that it starts on this machine and ends, whatever interrupts it."""

import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from pathlib import Path
from typing import Any, TypeVar

from nearsight.errors import DeviceError, InvalidParameterError

_log = logging.getLogger(__name__)

# Rows go into files of the job, and not through Ray's memory; without a limit it takes 30 % of the machine's.
_OBJECT_STORE_BYTES = 80 * 2**20
# Of a cluster that is there but slow, no further attempt begins after so many seconds.
_MAX_STARTS, _SECONDS_BETWEEN_STARTS, _SECONDS_TO_CONNECT = 3, 1.0, 120.0
_SHORT_TMP, _MAX_REMOVALS = "/tmp", 20
# Ray's own name for where its files are; all of its processes inherit it.
_TMP_VARIABLE, _SECONDS_TO_END = "RAY_TMPDIR", 15.0

_Result = TypeVar("_Result")


def set_token() -> None:
    """Give processes that Ray will start a token, unless they have one.

    A cluster of one's own listens on all addresses of the machine, and nobody else shall use it. Ray reads
    this when it is imported.
    """
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def in_a_thread(work: Callable[[threading.Event], _Result]) -> _Result:
    """Call a function in a thread, and tell it by an event that the thread that waits was interrupted.

    Ctrl-C and SIGTERM raise an exception in the main thread, wherever that is: within Ray, half of a cluster
    would be started or stopped, and in a destructor the exception would be lost. So Ray is called from a
    thread that no signal reaches, and which ends what it has begun.
    """
    stop, result = threading.Event(), Future[_Result]()

    def call() -> None:
        try:
            result.set_result(work(stop))
        except BaseException as error:
            result.set_exception(error)

    try:
        threading.Thread(target=call, name="nearsight-ray").start()
        # An interrupted `Thread.join` takes a thread that runs for one that has ended.
        while not result.done():
            # Without a limit, Ctrl-C would not be heard on Windows.
            wait([result], timeout=0.2)
            _hear_signals()
    except BaseException:
        if hasattr(signal, "alarm"):
            signal.alarm(0)
        _log.warning("ending; what Ray is about to start or stop takes some seconds")
        stop.set()
        wait([result])
        raise
    return result.result()


def _hear_signals() -> None:
    """Set the handlers of this process again: Ray sets one for SIGTERM that aborts three seconds later."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if (handler := signal.getsignal(number)) is not None:
                signal.signal(number, handler)


def _require_answer(address: str) -> None:
    """Refuse an address where nobody listens, which Ray tries for two minutes."""
    host, _, port = address.rpartition(":")
    if "://" in host or not (host and port.isdigit()):
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise _no_cluster(address, error) from error


def _no_cluster(address: str, error: Exception) -> InvalidParameterError:
    return InvalidParameterError(
        f"no Ray cluster answers at {address!r} ({error}); start one with ray start --head, or use"
        " --ray local"
    )


@contextmanager
def files_of_ray() -> Iterator[str]:
    """Make a directory for the files of a cluster of one's own; remove it when its processes have ended."""
    # The paths of its sockets may have 107 characters, and $TMPDIR has often half of them.
    parent = _SHORT_TMP if os.access(_SHORT_TMP, os.W_OK) else None
    directory = tempfile.mkdtemp(prefix="nearsight-ray-", dir=parent)
    before = os.environ.get(_TMP_VARIABLE)
    os.environ[_TMP_VARIABLE] = directory
    try:
        yield directory
    finally:
        if before is None:
            del os.environ[_TMP_VARIABLE]
        else:
            os.environ[_TMP_VARIABLE] = before
        _end_processes(directory)
        for _ in range(_MAX_REMOVALS):
            shutil.rmtree(directory, ignore_errors=True)
            if not os.path.lexists(directory):
                break
            time.sleep(0.5)


def _end_processes(directory: str) -> None:
    """Wait for the processes of the cluster of a directory, and kill those that do not end.

    `ray.shutdown` does not wait for all of them; one that is just starting would make the directory again.
    Where there is no ``/proc``, nobody can tell which they are.
    """
    end = time.monotonic() + _SECONDS_TO_END
    while pids := _processes_of(directory):
        if time.monotonic() > end:
            for pid in pids:
                with suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            return
        time.sleep(0.1)


def _processes_of(directory: str) -> list[int]:
    """Return the processes that have inherited the directory in their environment, without this one."""
    entry = f"{_TMP_VARIABLE}={directory}".encode()
    pids = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        # Of others, they cannot be read; of those that have ended, they are empty.
        with suppress(OSError):
            if entry in path.read_bytes().split(b"\0"):
                pids.append(int(path.parent.name))
    return [pid for pid in pids if pid != os.getpid()]


@contextmanager
def connected(ray: Any, address: str) -> Iterator[None]:
    """Connect to a cluster, or start one that ends with the block, with its files."""
    facts: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": logging.ERROR}
    _require_answer(address)
    with (
        files_of_ray() if address == "local" else nullcontext() as directory,
        # Ray prints there that a node has died, where `--json` prints its document.
        redirect_stdout(sys.stderr),
    ):
        if address == "local":
            facts |= {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
            facts["_temp_dir"] = directory
        _init(ray, facts)
        try:
            yield
        finally:
            ray.shutdown()


def _init(ray: Any, facts: Mapping[str, Any]) -> None:
    # It says that it cannot listen to SIGTERM in a thread.
    logging.getLogger("ray").setLevel(logging.ERROR)
    is_own, started = facts["address"] == "local", time.monotonic()
    for attempt in range(1, _MAX_STARTS + 1):
        try:
            with warnings.catch_warnings():
                # LanceDB warns of each process that Ray starts; none of them calls LanceDB.
                warnings.filterwarnings("ignore", "lancedb fork support")
                ray.init(**facts)
            return
        # Ray raises just that where one of its processes takes more than half a minute to start, and where
        # a busy head answers too late.
        except Exception as error:  # noqa: PERF203 - three times at most
            ray.shutdown()
            is_late = not is_own and time.monotonic() - started > _SECONDS_TO_CONNECT
            if attempt < _MAX_STARTS and not is_late:
                time.sleep(_SECONDS_BETWEEN_STARTS)
                continue
            if not is_own:
                raise _no_cluster(facts["address"], error) from error
            raise DeviceError(
                f"Ray did not start on this machine ({error}); try again when the machine is less busy, or"
                " leave --ray out"
            ) from error
