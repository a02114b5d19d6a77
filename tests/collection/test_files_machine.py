"""Random edits to a folder, against a dict: after each run the collection is what the disk is."""

import itertools
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from PIL import Image

from nearsight import Collection
from nearsight.images import content_id

from fake import FakeBackend

NAMES = st.sampled_from(["a.png", "b.png", "c d.png", "e'f.png", "sub/g.png", "sub/ü\n.png"])
CLOCK = itertools.count(1)


class Folder(RuleBasedStateMachine):
    """Files come, change, move, are copied and go; `add` catches up now and then."""

    @initialize()
    def begin(self) -> None:
        self.root = Path(tempfile.mkdtemp())
        self.photos = self.root / "photos"
        (self.photos / "sub").mkdir(parents=True)
        # One image that stays: a folder without any is never pruned.
        self.paint("stays.png", 1000)
        self.collection = Collection.create(self.root / "collection", model=FakeBackend())
        self.known: set[str] = set()
        self.in_step = False

    def paint(self, name: str, seed: int) -> None:
        pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
        Image.fromarray(pixels).save(self.photos / name, "PNG")
        self.stamp(name)

    def stamp(self, name: str) -> None:
        # Edits within one tick of the clock would look unchanged.
        os.utime(self.photos / name, ns=(next(CLOCK) * 10**9,) * 2)
        self.in_step = False

    @rule(name=NAMES, seed=st.integers(0, 3))
    def write(self, name: str, seed: int) -> None:
        self.paint(name, seed)

    @rule(old=NAMES, new=NAMES)
    def move(self, old: str, new: str) -> None:
        if (self.photos / old).exists():
            (self.photos / old).replace(self.photos / new)
            self.in_step = False

    @rule(old=NAMES, new=NAMES)
    def copy(self, old: str, new: str) -> None:
        if old != new and (self.photos / old).exists():
            shutil.copyfile(self.photos / old, self.photos / new)
            self.stamp(new)

    @rule(name=NAMES)
    def unlink(self, name: str) -> None:
        (self.photos / name).unlink(missing_ok=True)
        self.in_step = False

    @rule(rounds=st.integers(1, 2))
    def add(self, rounds: int) -> None:
        disk = {str(p): content_id(p.read_bytes()) for p in self.photos.rglob("*.png")}
        for _ in range(rounds):
            report = self.collection.add(self.photos, prune=True, n_threads=1, progress=False)
            assert report.added + report.updated + report.unchanged == len(disk)
            assert report.embedded <= len(set(disk.values()) - self.known)
            self.known = set(disk.values())
        assert rounds == 1 or (report.embedded, report.updated, report.added) == (0, 0, 0)
        self.disk, self.in_step = disk, True

    @invariant()
    def the_collection_is_the_disk(self) -> None:
        if getattr(self, "in_step", False):
            items = list(self.collection.items())
            assert {path: item.id for item in items for path in item.paths} == self.disk
            assert len(items) == len(set(self.disk.values()))
            assert all(item.path == item.paths[0] for item in items)

    def teardown(self) -> None:
        if hasattr(self, "root"):
            shutil.rmtree(self.root)


TestFolder = Folder.TestCase
TestFolder.settings = settings(max_examples=12, stateful_step_count=14, deadline=None)
