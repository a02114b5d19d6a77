"""A job on a Ray cluster of three nodes, of which one is killed, and later the driver: each image once?

    python -m benchmarks.distributed FOLDER --images 20000 --svg docs/images/job-with-kills.svg

Crops of the images in FOLDER make as many files as asked for, and some more that are broken. Three nodes with
one core each run on loopback. When a quarter is embedded, the node of an actor is killed, and another joins
afterwards; at six tenths, the driver is killed, and the same command is started again. What is in the
collection at the end is compared with the files; the timeline becomes a plot. Needs the extra `ray`, 1 GB on
the disk and 4 GB of memory; Linux runs it in a network of its own by

    unshare --map-root-user --net sh -c 'ip link set lo up && python -m benchmarks.distributed ...'
"""

import argparse
import hashlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from nearsight import Collection
from nearsight.distributed import JobFolder, failures, plan
from nearsight.images import find

_N_NODES, _N_BROKEN = 3, 20
_SIDES_PX = (160, 260)
_KILL_NODE_AT, _KILL_DRIVER_AT, _SECONDS_UNTIL_NEW = 0.25, 0.6, 20.0
_NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 720, 380, 65, 130, 46, 62


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--unit-images", type=int, default=256)
    parser.add_argument("--dir", type=Path, help="where to put the files (default: a temporary directory)")
    parser.add_argument("--svg", type=Path, help="write the timeline there")
    parser.add_argument("--note", default="", help="a line below the plot, such as what else the machine did")
    parser.add_argument("--json", action="store_true", help="print one JSON document only")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.dir) as directory:
        document, run = measure(options, Path(directory))
    if options.svg:
        options.svg.write_text(plot(document, run, options.note), encoding="utf-8")
    if options.json:
        print(json.dumps(document, indent=2))
    else:
        for name, value in document.items():
            print(f"{name:>32}  {value}")


@dataclass
class Timeline:
    """What was seen of a job: seconds, images that are embedded, and that are in the collection."""

    job: JobFolder
    points: list[tuple[float, int, int]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    _sizes: dict[int, int] = field(default_factory=dict)

    def look(self) -> int:
        """Look at the job's folder; return how many images are embedded."""
        for number in self.job.records() - set(self._sizes):
            if (record := self.job.record(number)) is not None:
                self._sizes[number] = record.n_images
        n_embedded = sum(self._sizes.values())
        self.points.append((time.monotonic() - self.began, n_embedded, self.job.committed().n_images))
        return n_embedded

    def note(self, what: str) -> None:
        """Note an event."""
        self.events.append(
            {"event": what, "second": round(time.monotonic() - self.began), "embedded": self.look()}
        )
        print(self.events[-1], file=sys.stderr, flush=True)


class Nodes:
    """Three raylets on loopback."""

    def __init__(self) -> None:
        # Before Ray is imported: it listens on all addresses, and nobody else shall use it.
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        from ray.cluster_utils import Cluster

        facts = {"include_dashboard": False, "num_cpus": 0}
        self._cluster = Cluster(initialize_head=True, head_node_args=facts)
        self._nodes = [self._cluster.add_node(wait=False, **_NODE) for _ in range(_N_NODES)]
        self._cluster.wait_for_nodes(120)
        self.address: str = self._cluster.address

    def kill_one_that_works(self) -> bool:
        """Kill the raylet of a node that has an actor; return whether there was one."""
        for node in self._nodes:
            [raylet] = [info.process for info in node.all_processes["raylet"]]
            names = [" ".join(one.cmdline()) for one in psutil.Process(raylet.pid).children(recursive=True)]
            if any("UnitActor" in name for name in names):
                os.kill(raylet.pid, signal.SIGKILL)
                self._nodes.remove(node)
                self._cluster.remove_node(node, allow_graceful=False)
                return True
        return False

    def join(self) -> None:
        """Add a node."""
        self._nodes.append(self._cluster.add_node(wait=False, **_NODE))

    def stop(self) -> None:
        """End all of them."""
        self._cluster.shutdown()


def measure(options: argparse.Namespace, directory: Path) -> tuple[dict[str, Any], Timeline]:
    photos, job = directory / "photos", JobFolder(directory / "job")
    n_contents = make_images(options.folder, photos, options.images)
    uri = str(directory / "collection")
    plan(job, [str(photos)], uri, lambda: Collection.create(uri), unit_images=options.unit_images)
    nodes = Nodes()
    try:
        run = Timeline(job)
        follow(run, nodes, photos, uri)
    finally:
        nodes.stop()
    collection = Collection.open(uri)
    records = [record for unit in job.units() if (record := job.record(unit.number))]
    n_again = sum(record.attempt - 1 for record in records)
    document: dict[str, Any] = {
        "images": options.images + _N_BROKEN,
        "broken": _N_BROKEN,
        "different_contents": n_contents,
        "rows": len(collection),
        "distinct_ids": len({item.id for item in collection.items()}),
        "failed": len(failures(job)),
        "units": len(records),
        "images_of_a_unit": options.unit_images,
        "units_in_work_at_a_time": _N_NODES,
        "units_embedded_again": n_again,
        "images_embedded_again_at_most": n_again * options.unit_images,
        "events": run.events,
    }
    document["each_once"] = document["rows"] == document["distinct_ids"] == n_contents
    return document, run


def make_images(folder: Path, out: Path, n_images: int) -> int:
    """Write crops of images as JPEG files, and broken ones; return how many different contents there are."""
    rng = np.random.default_rng(0)
    sources = sorted(source.path for source in find(str(folder)) if hasattr(source, "key"))
    contents = set()
    for number in range(n_images):
        if number % -(-n_images // len(sources)) == 0:
            with Image.open(sources[number * len(sources) // n_images]) as opened:
                image = opened.convert("RGB")
        side = min(int(rng.integers(*_SIDES_PX)), *image.size)
        left, top = (int(rng.integers(0, size - side + 1)) for size in image.size)
        path = out / f"{number // 1000:03}" / f"{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.crop((left, top, left + side, top + side)).save(path, quality=int(rng.integers(80, 96)))
        contents.add(hashlib.sha256(path.read_bytes()).digest())
    for number in range(_N_BROKEN):
        path = out / f"{number * n_images // _N_BROKEN // 1000:03}" / f"broken-{number:02}.jpg"
        path.write_bytes(b"no image")
    return len(contents)


def follow(run: Timeline, nodes: Nodes, photos: Path, uri: str) -> None:
    """Run the job, kill, and note what happens."""
    n_images = sum(unit.n_images or 0 for unit in run.job.units())

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "nearsight", "index", str(photos), "--job", str(run.job.uri)]
        command += ["-c", uri, "--ray", nodes.address, "--actor-cpus", "1"]
        return subprocess.Popen(command, stdout=sys.stderr)

    driver, joins_at, n_kills = start(), None, 0
    run.note("start")
    while driver.poll() is None:
        time.sleep(2)
        n_embedded = run.look()
        if n_kills == 0 and n_embedded >= _KILL_NODE_AT * n_images and nodes.kill_one_that_works():
            n_kills, joins_at = 1, time.monotonic() + _SECONDS_UNTIL_NEW
            run.note("a node is killed")
        elif joins_at is not None and time.monotonic() > joins_at:
            nodes.join()
            joins_at = None
            run.note("another joins")
        elif n_kills == 1 and n_embedded >= _KILL_DRIVER_AT * n_images:
            driver.kill()
            driver.wait()
            n_kills = 2
            run.note("the driver is killed")
            time.sleep(_SECONDS_UNTIL_NEW)
            driver = start()
            run.note("started again")
    if driver.returncode or n_kills < 2:
        raise SystemExit(f"the driver ended with {driver.returncode}, after {n_kills} kills")
    run.note("all committed")


def plot(document: dict[str, Any], run: Timeline, note: str) -> str:
    """Return the timeline as SVG."""
    seconds, n_images = run.points[-1][0], document["images"]

    def x(second: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * second / seconds

    def y(n: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * n / n_images

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif"'
        ' font-size="13" role="img">',
        f"<title>{n_images:,} images on three nodes: one is killed, and later the driver</title>",
        "<style>text{fill:#495057}line{stroke:#adb5bd;stroke-width:.5}.event{stroke:#e03131;stroke-width:1;"
        "stroke-dasharray:3 3}"
        "@media(prefers-color-scheme:dark){text{fill:#ced4da}line{stroke:#495057}}</style>",
    ]
    for n in range(0, n_images + 1, max(1, n_images // 4 // 1000) * 1000 if n_images > 4000 else n_images):
        parts += [
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(n):.1f}" y2="{y(n):.1f}"/>',
            f'<text x="{_LEFT - 8}" y="{y(n) + 4:.1f}" text-anchor="end">{n:,}</text>',
        ]
    bottom, step = _HEIGHT - _BOTTOM, max(1, round(seconds / 60 / 6))
    parts += [
        f'<text x="{x(60 * minute):.1f}" y="{bottom + 20}" text-anchor="middle">{minute} min</text>'
        for minute in range(0, int(seconds / 60) + 1, step)
    ]
    lines = (("embedded", "#1971c2", 1), ("in the collection", "#d9480f", 2))
    for _, color, column in lines:
        points = _steps([(point[0], point[column]) for point in run.points])
        path = " ".join(f"{x(second):.1f},{y(n):.1f}" for second, n in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
    for row, (name, color, _) in enumerate(lines):
        place = _TOP + 40 + 18 * row
        parts += [
            f'<rect x="{_WIDTH - _RIGHT + 8}" y="{place - 8}" width="10" height="3" fill="{color}"/>',
            f'<text x="{_WIDTH - _RIGHT + 22}" y="{place}">{name}</text>',
        ]
    for index, event in enumerate(run.events[1:-1]):
        place = x(event["second"])
        parts += [
            f'<line class="event" x1="{place:.1f}" x2="{place:.1f}" y1="{_TOP - 4}" y2="{bottom}"/>',
            f'<text x="{place + (-4 if index % 2 == 0 else 4):.1f}" y="{_TOP - 10 - 14 * (index // 2 % 2)}"'
            f' text-anchor="{"end" if index % 2 == 0 else "start"}">{event["event"]}</text>',
        ]
    facts = (
        f"{document['rows']:,} rows, each once; {document['failed']} failed, as many as are broken;"
        f" {document['units_embedded_again']} units of {document['images_of_a_unit']} embedded again."
    )
    for row, text in enumerate((facts, note)):
        parts.append(f'<text x="{_LEFT}" y="{_HEIGHT - 24 + 17 * row}" font-size="12">{text}</text>')
    return "\n".join([*parts, "</svg>\n"])


def _steps(points: Sequence[tuple[float, int]]) -> list[tuple[float, int]]:
    """Return the corners of a line that jumps when a value changes, and else stays."""
    corners = [points[0]]
    for before, after in pairwise(points):
        if after[1] != before[1]:
            corners += [(after[0], before[1]), after]
    return [*corners, points[-1]]


if __name__ == "__main__":
    main()
