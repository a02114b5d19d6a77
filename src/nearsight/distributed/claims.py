"""Claims: files by which processes on any machine know who works on what, and who has died."""

import json
import os
import re
import secrets
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nearsight.distributed.job_files import JobFiles

# A process that lives marks its claim at this interval, and one that does not for so long is dead.
HEARTBEAT_S, STALE_S = 10.0, 120.0
_CLAIM = re.compile(r"(\w+)\.claim(\d+)\Z")


@dataclass(frozen=True, slots=True)
class Claim:
    """An attempt at something.

    Attributes
    ----------
    subject : str
        What is claimed: the number of a unit.
    attempt : int
        From 1.
    files : JobFiles
    folder : str
        Of the claims, with a slash at its end, or empty.
    """

    subject: str
    attempt: int
    files: JobFiles
    folder: str = ""

    @property
    def name(self) -> str:
        """Name of the file."""
        return f"{self.folder}{self.subject}.claim{self.attempt}"

    def is_alive(self) -> bool:
        """Whether the process that made it still works, as far as one can tell.

        Its last sign and now are both times of the storage, so the machines' clocks do not matter.
        """
        try:
            facts = json.loads(self.files.read(self.name))
            if facts.get("host") == socket.gethostname() and _is_seen_here(facts):
                started = _started(facts["pid"])
                return started is not None and bool(started == facts["started"])
            # A sign from long after now is of before that clock was set back.
            return bool(facts) and abs(self.files.now_s() - self.files.modified_s(self.name)) < STALE_S
        except (OSError, ValueError):
            return False

    def is_of_namesake(self) -> bool:
        """Whether another machine or container of this one's name made it.

        That may be what this one was before it was started again, of which nothing is heard any more.
        """
        try:
            facts = json.loads(self.files.read(self.name))
        except (OSError, ValueError):
            return False
        return facts.get("host") == socket.gethostname() and not _is_seen_here(facts)

    def beat(self) -> None:
        """Show that the process lives."""
        with suppress(OSError):
            self.files.touch(self.name)

    def withdraw(self) -> None:
        """Undo the claim: the attempt does not count, unless the storage is away."""
        with suppress(OSError):
            self.files.delete(self.name)

    def end(self) -> None:
        """End the attempt, although the process lives."""
        with suppress(OSError):
            self.files.replace(self.name, b"{}")


def put_claim(files: JobFiles, folder: str, subject: str, last: Claim | None) -> Claim | None:
    """Claim something after its last claim; None if another process was first."""
    claim = Claim(subject, last.attempt + 1 if last else 1, files, folder)
    pid = os.getpid()
    facts = {
        "host": socket.gethostname(),
        "machine": _machine(),
        "pid": pid,
        "started": _started(pid),
        "token": secrets.token_hex(8),
    }
    return claim if files.put_if_absent(claim.name, json.dumps(facts).encode()) else None


def last_claims(files: JobFiles, folder: str) -> dict[str, Claim]:
    """Return the last claim of each subject in a folder."""
    last: dict[str, Claim] = {}
    for name, _ in files.names(folder):
        if match := _CLAIM.match(name):
            claim = Claim(match[1], int(match[2]), files, folder)
            if claim.subject not in last or last[claim.subject].attempt < claim.attempt:
                last[claim.subject] = claim
    return last


@contextmanager
def beating(claim: Claim) -> Iterator[None]:
    """Show from a thread that the process lives."""
    is_over = threading.Event()

    def beat() -> None:
        while not is_over.wait(HEARTBEAT_S):
            claim.beat()

    thread = threading.Thread(target=beat, name="nearsight-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _machine() -> str:
    """Return what no other machine or container has: within it, the number of a process means something.

    Machines that were cloned have one name, and so have containers that use the network of their machine.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115 - it is no path
    except OSError:
        return ""


def _is_seen_here(facts: Mapping[str, Any]) -> bool:
    """Whether a claim was made where this process sees who works; earlier versions did not note where."""
    return bool(facts.get("machine", own := _machine()) == own)


def _started(pid: int) -> str | None:
    """Return when a process of this machine started; None if there is none."""
    try:
        # The name, in parentheses, may hold spaces.
        facts = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return None if facts[0] in "ZX" else facts[19]
    except (OSError, IndexError):
        pass
    if Path("/proc/self").exists():
        return None
    try:
        os.kill(pid, 0)
    except OSError:
        return None
    return "unknown"
