"""Messages between two processes: pickles over two pipes, and large arrays through shared memory."""

import contextlib
import mmap
import os
import pickle
import queue
import secrets
import struct
import sys
import tempfile
import threading
from collections.abc import Sequence
from typing import IO, Any

# Smaller arrays are copied with the rest of the message.
MIN_SHARED_BYTES = 1 << 14

_LENGTH = struct.Struct("<Q")


class Channel:
    """Sends and receives messages; any thread may send, and one thread receives.

    Parameters
    ----------
    source, sink : binary file
        The ends of two pipes.
    """

    def __init__(self, source: IO[bytes], sink: IO[bytes]) -> None:
        self._source = source
        self._sink = sink
        self._sending = threading.Lock()

    def send(self, data: bytes) -> None:
        """Send a message that `dumps` returned.

        Raises
        ------
        OSError
            The other process has ended.
        """
        with self._sending:
            self._sink.write(_LENGTH.pack(len(data)))
            self._sink.write(data)
            self._sink.flush()

    def receive(self) -> Any:
        """Wait for a message.

        Raises
        ------
        EOFError
            The other process has ended.
        """
        [length] = _LENGTH.unpack(self._read(_LENGTH.size))
        return pickle.loads(self._read(length))

    def close(self) -> None:
        """Close what this process sends on; the other process then receives `EOFError`."""
        # What is left in the buffer is for a process that has ended.
        with contextlib.suppress(OSError):
            self._sink.close()

    def _read(self, n_bytes: int) -> bytes:
        data = self._source.read(n_bytes)
        if len(data) < n_bytes:
            raise EOFError
        return data


def dumps(message: Any) -> bytes:
    """Return a message as bytes."""
    return pickle.dumps(message, pickle.HIGHEST_PROTOCOL)


class SharedMemory:
    """Memory that a process and its child both see, divided into slots of equal size.

    It has no name that outlives the two: the system frees it when they end, whatever ends them. (Names of
    `multiprocessing.shared_memory` are removed by a tracker process; one that is killed leaves them in
    ``/dev/shm``, which is 64 MB in many containers.)

    Parameters
    ----------
    n_slots, slot_bytes : int
        Number and size of the slots.
    address : str
        By which a child opens it, see `address`; empty to create it.
    """

    def __init__(self, n_slots: int, slot_bytes: int, *, address: str = "") -> None:
        n_bytes = n_slots * slot_bytes
        self.n_slots, self.slot_bytes = n_slots, slot_bytes
        self.handle: int | None = None
        if sys.platform == "win32":
            self.address = address or f"nearsight-{secrets.token_hex(8)}"
            self._map = mmap.mmap(-1, n_bytes, self.address)
            return
        if address:
            self.handle = int(address)
        elif hasattr(os, "memfd_create"):
            self.handle = os.memfd_create("nearsight")
        else:
            with tempfile.TemporaryFile() as file:
                self.handle = os.dup(file.fileno())
        if not address:
            os.ftruncate(self.handle, n_bytes)
        self.address = str(self.handle)
        self._map = mmap.mmap(self.handle, n_bytes)

    def slot(self, number: int) -> memoryview:
        """Return the bytes of a slot."""
        start = number * self.slot_bytes
        return memoryview(self._map)[start : start + self.slot_bytes]

    def close(self) -> None:
        """Return this process's share of the memory."""
        self._map.close()
        if self.handle is not None:
            os.close(self.handle)
            self.handle = None


class SharedArrays:
    """Puts the large arrays of a message into slots of shared memory; for the process that writes them."""

    def __init__(self, memory: SharedMemory) -> None:
        self._memory = memory
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        for slot in range(memory.n_slots):
            self._free.put(slot)

    def release(self, slot: int) -> None:
        """Allow a slot to be written again; the reader has copied it."""
        self._free.put(slot)

    def dumps(self, value: Any) -> tuple[bytes, int, list[tuple[int, int]]]:
        """Return a value as bytes without its large arrays, and where those are: slot, offsets and lengths.

        The slot is -1 if there are no large arrays. Waits for a free slot otherwise.
        """
        buffers: list[memoryview] = []
        n_free = self._memory.slot_bytes

        def keeps_inside(buffer: pickle.PickleBuffer) -> bool:
            nonlocal n_free
            view = buffer.raw()
            if not MIN_SHARED_BYTES <= view.nbytes <= n_free:
                return True
            n_free -= view.nbytes
            buffers.append(view)
            return False

        data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL, buffer_callback=keeps_inside)
        if not buffers:
            return data, -1, []
        slot = self._free.get()
        memory, start, places = self._memory.slot(slot), 0, []
        for view in buffers:
            memory[start : start + view.nbytes] = view
            places.append((start, view.nbytes))
            start += view.nbytes
        return data, slot, places


def loads(data: bytes, memory: memoryview | None, places: Sequence[tuple[int, int]]) -> Any:
    """Return the value that `SharedArrays.dumps` has written; its arrays are copies that may be written."""
    buffers = [bytearray(memory[at : at + n]) for at, n in places] if memory is not None else []
    return pickle.loads(data, buffers=buffers)
