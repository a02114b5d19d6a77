"""How long commands take that embed no image: wall-clock and processor time, each the least of several runs.

The limits hold for two idle cores: 0.3 s of wall-clock time for `--help`, 1.2 s for the others.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.sample_images import make

HELP_LIMIT_S, LIMIT_S = 0.3, 1.2
PROGRAM = [sys.executable, "-m", "nearsight"]


def measure(words: list[str], n_runs: int) -> tuple[float, float]:
    """Return the smallest wall-clock and processor time of a command line in seconds."""
    walls, processor_times = [], []
    for _ in range(n_runs):
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run([*PROGRAM, *words], check=True, stdout=subprocess.DEVNULL)
        walls.append(time.perf_counter() - started)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        processor_times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(walls), min(processor_times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        os.environ["NEARSIGHT_COLLECTION"] = str(Path(directory) / "collection")
        photos = make(Path(directory) / "photos", 20, (320, 240), quality=85)
        subprocess.run([*PROGRAM, "index", str(photos), "-q"], check=True, stdout=subprocess.DEVNULL)
        listed = subprocess.run([*PROGRAM, "ls", "--json"], check=True, stdout=subprocess.PIPE, text=True)
        id = json.loads(listed.stdout)["items"][0]["id"]
        rows = []
        for name, words in {
            "--help": ["--help"],
            "info": ["info"],
            "ls": ["ls"],
            "search --id": ["search", "--id", id],
        }.items():
            wall, processor_time = measure(words, options.runs)
            limit = HELP_LIMIT_S if name == "--help" else LIMIT_S
            rows.append(
                {
                    "command": name,
                    "wall_s": round(wall, 3),
                    "processor_s": round(processor_time, 3),
                    "limit_s": limit,
                    "within": wall <= limit,
                }
            )
    if options.json:
        print(json.dumps(rows))
        return
    for row in rows:
        print(
            f"{row['command']:<12} {row['wall_s']:6.2f} s wall, {row['processor_s']:6.2f} s processor"
            f" (limit {row['limit_s']} s wall{'' if row['within'] else ': EXCEEDED'})"
        )


if __name__ == "__main__":
    main()
