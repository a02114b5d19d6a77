"""The processes of a job in tests: a worker, and a committer that is killed at a chosen step.

They import this module and call `main` with ``work DIR SHARE/N LOG [SECONDS]`` or ``commit DIR [STEP]``.
"""

import os
import signal
import sys
import time
from pathlib import Path

from nearsight.collection import Collection
from nearsight.distributed import Committer, JobFolder, Worker, committer, worker

from fake import FakeBackend

#: An image of this size kills the process that decodes it, as a broken codec does.
DEADLY_SIDE_PX = 13


class LoggedBackend(FakeBackend):
    """Logs each image that it prepares, takes its time, and dies of some."""

    def __init__(self, log: str = "", seconds: float = 0.0) -> None:
        super().__init__()
        self.log, self.seconds = log, seconds

    def prepare(self, image):
        if image.size == (DEADLY_SIDE_PX, DEADLY_SIDE_PX):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.log:
            with open(self.log, "a") as file:
                file.write(f"{os.getpid()}\n")
        time.sleep(self.seconds)
        return super().prepare(image)


class Steps:
    """Kills this process at a step of a commit."""

    def __init__(self, last: int) -> None:
        self.left = last

    def step(self) -> None:
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1

    def around(self, owner: type, name: str) -> None:
        """Count a step before a method, and one after it: when it has answered, and nobody has heard."""
        original = getattr(owner, name)

        def stepped(*args, **kwargs):
            self.step()
            result = original(*args, **kwargs)
            self.step()
            return result

        setattr(owner, name, stepped)


def use_fake_model(log: str = "", seconds: float = 0.0) -> None:
    worker.load_model = lambda *args, **kwargs: LoggedBackend(log, seconds)


def main() -> None:
    action, directory, *rest = sys.argv[1:]
    folder = JobFolder(directory)
    if action == "work":
        share, n_shares = map(int, rest[0].split("/"))
        use_fake_model(rest[1], float(rest[2]) if len(rest) > 2 else 0.0)
        Worker(folder, share=share, n_shares=n_shares, n_threads=1, progress=False).run()
    else:
        committer._UNITS_PER_RECORD = 2
        steps = Steps(int(rest[0]) if rest else -1)
        steps.around(Collection, "restore_rows")
        steps.around(JobFolder, "put_committed")
        steps.around(Path, "unlink")
        Committer(folder, Collection.open(folder.job.collection, in_memory=False)).commit()
