"""Run every benchmark, one after another, each in a process of its own."""

import subprocess
import sys

SCRIPTS = ["throughput", "refresh", "search", "baseline"]

if __name__ == "__main__":
    for name in SCRIPTS:
        print(f"\n== benchmarks.{name}", flush=True)
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *sys.argv[1:]], check=True)
