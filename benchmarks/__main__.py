"""Run the benchmarks one after another, each in a process of its own.

    python -m benchmarks            those that need no images of yours
    python -m benchmarks FOLDER     the others as well, on images in train/CLASS/ and test/CLASS/

Only what needs other data still (faces, baskets, solar cells) is left out: see the scripts themselves.
"""

import subprocess
import sys

ALONE = ["start_up", "throughput", "refresh", "walk", "decoding", "search", "baseline", "runtimes", "anomaly"]
ON_A_FOLDER = ["text", "dimension", "storage", "duplicates", "cluster", "fewshot", "audit", "map"]

if __name__ == "__main__":
    folder = sys.argv[1:2]
    calls = [[name] for name in ALONE] + [[name, *folder] for name in ON_A_FOLDER if folder]
    for name, *arguments in calls:
        print(f"\n== benchmarks.{name}", flush=True)
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *arguments], check=True)
