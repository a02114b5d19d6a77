"""The processes of a job in tests: workers, committers that are killed at a chosen step, drivers of Ray.

They import this module and call `main` with ``work DIR SHARE/N LOG [SECONDS]``, ``commit DIR [STEP]`` or
``ray DIR ADDRESS MAX_ACTORS [STEP]``.
"""

import json
import os
import signal
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from preloaded import Preloaded

from nearsight.collection import Collection
from nearsight.distributed import Committer, JobFolder, Worker, claims, committer, worker
from nearsight.models.base import ModelEntry
from nearsight.object_storage import lease

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


class ActorBackend(FakeBackend):
    """The same in an actor: how slow it is, and whether actors see each other, a file says at any time.

    Its folder is in ``FAKE_JOBS``, which the processes of a cluster inherit: the log, whose lines are a
    process and a thread, and ``facts.json``. With ``together``, nobody gets past an image before so many
    processes have one.
    """

    def prepare(self, image):
        if image.size == (DEADLY_SIDE_PX, DEADLY_SIDE_PX):
            os.kill(os.getpid(), signal.SIGKILL)
        folder = Path(os.environ["FAKE_JOBS"])
        with open(folder / "log", "a") as file:
            file.write(f"{os.getpid()} {threading.get_ident()}\n")
        while len(_processes(folder)) < _facts(folder).get("together", 0):
            time.sleep(0.05)
        time.sleep(_facts(folder)["seconds"])
        return super().prepare(image)


def _facts(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "facts.json").read_text())


def _processes(folder: Path) -> set[str]:
    return {line.split()[0] for line in (folder / "log").read_text().splitlines()}


def entry() -> ModelEntry:
    """Register the model ``fake``, which `install_fake_model` makes a plugin."""
    folder = Path(os.environ["FAKE_JOBS"])
    if (folder / "facts.json").exists() and _facts(folder).get("is_blind"):
        claims.Claim.is_alive = lambda self: False
    return ModelEntry(
        FakeBackend().spec,
        load=lambda cache: ActorBackend(),
        available=lambda: True,
        load_on_device=lambda cache, device: ActorBackend(),
    )


def install_fake_model(folder: Path) -> None:
    """Install the plugin into a folder of the import path."""
    facts = folder / "fake_model-1.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-model\nVersion: 1\n")
    (facts / "entry_points.txt").write_text("[nearsight.models]\nfake = fake_jobs:entry\n")


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


def start(*arguments: object) -> Preloaded:
    """Start such a process."""
    return Preloaded(main, *map(str, arguments))


def main(*arguments: str) -> None:
    # A bucket knows of no death: the next process waits so long.
    lease.TTL_S = 3.0
    action, directory, *rest = arguments or sys.argv[1:]
    folder = JobFolder(directory)
    if action == "work":
        share, n_shares = map(int, rest[0].split("/"))
        use_fake_model(rest[1], float(rest[2]) if len(rest) > 2 else 0.0)
        Worker(folder, share=share, n_shares=n_shares, n_threads=1, progress=False).run()
        return
    committer._UNITS_PER_RECORD = 2
    steps = Steps(int(rest[-1]) if len(rest) in (1, 3) else -1)
    steps.around(Collection, "restore_rows")
    steps.around(JobFolder, "put_committed")
    writer = Committer(folder, Collection.open(folder.job.collection, in_memory=False))
    if action == "commit":
        steps.around(Path, "unlink")
        writer.commit()
        return
    from nearsight.distributed import ray

    if len(rest) == 3:
        ray._SECONDS_BETWEEN_COMMITS = 0.5
    ray._SECONDS_PER_LOOK = 0.5
    told: list[tuple[int, int]] = []

    def tell(n_images: int, n_failed: int = 0) -> None:
        told.append((n_images, n_failed))

    report = ray.run(folder, writer, rest[0], cpus=1.0, max_actors=int(rest[1]), told=tell)
    n_tellings = sum(n_images > 0 for n_images, _ in told)
    sums = {"tellings": n_tellings, "told": [sum(numbers) for numbers in zip(*told, strict=True)]}
    print(json.dumps({**asdict(report), **sums}))
