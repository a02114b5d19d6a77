"""Processor time and memory of walking a folder of 250,000 names.

Run: python benchmarks/walk.py [--names 250000] [--folders 500]
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

_WALK = """
import resource, sys, time
from nearsight.images import find
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
started = time.process_time()
n_images = sum(1 for _ in find(sys.argv[1]))
seconds = time.process_time() - started
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(n_images, seconds, (peak - before) / 1024)
"""


def fill(folder: Path, n_names: int, n_folders: int, ignore: str) -> None:
    """Make empty files, nine images to one raw file, and an ignore file if `ignore` has patterns."""
    for number in range(n_folders):
        below = folder / f"{number:06}"
        below.mkdir(parents=True)
        for name in range(n_names // n_folders):
            (below / f"IMG_{name:06}.{'cr2' if name % 10 == 0 else 'jpg'}").touch()
    if ignore:
        (folder / ".nearsightignore").write_text(ignore)


def measure(folder: Path, repeats: int = 5) -> tuple[int, float, float]:
    """Return the number of images, the least seconds of processor time, and the growth of memory in MiB."""
    runs = []
    for _ in range(repeats):
        command = [sys.executable, "-c", _WALK, str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        n_images, seconds, mebibytes = done.stdout.split()
        runs.append((int(n_images), float(seconds), float(mebibytes)))
    return runs[0][0], min(run[1] for run in runs), max(run[2] for run in runs)


def main() -> None:
    """Measure one flat folder, many folders, and many folders with ignore patterns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--names", type=int, default=250_000)
    parser.add_argument("--folders", type=int, default=500)
    arguments = parser.parse_args()
    cases = (
        ("one folder", 1, ""),
        (f"{arguments.folders} folders", arguments.folders, ""),
        (
            f"{arguments.folders} folders, 3 patterns",
            arguments.folders,
            "*.tmp.jpg\n/000001/\n!IMG_000002.jpg\n",
        ),
    )
    print(f"{'case':32} {'images':>8} {'seconds':>8} {'MiB':>6}")
    for name, n_folders, ignore in cases:
        with tempfile.TemporaryDirectory() as place:
            fill(Path(place) / "photos", arguments.names, n_folders, ignore)
            n_images, seconds, mebibytes = measure(Path(place) / "photos")
        print(f"{name:32} {n_images:8,} {seconds:8.2f} {mebibytes:6.1f}")


if __name__ == "__main__":
    main()
