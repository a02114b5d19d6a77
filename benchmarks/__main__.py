"""Run the benchmarks one after another, each in a process of its own.

    python -m benchmarks            those that need no images of yours
    python -m benchmarks FOLDER     the others as well, on images in train/CLASS/ and test/CLASS/
    python -m benchmarks --write    the commands that docs/figures.md names, and write their figures there
    python -m benchmarks --write --only upkeep    of these, the commands that contain the word

Only what needs other data still (faces, baskets, solar cells) is left out: see the scripts themselves.
"""

import argparse
import json
import shlex
import subprocess
import sys
import time

from benchmarks import figures

ALONE = [
    "start_up",
    "throughput",
    "refresh",
    "walk",
    "decoding",
    "search",
    "stores",
    "upkeep",
    "baseline",
    "runtimes",
    "anomaly",
]
ON_A_FOLDER = [
    "text",
    "dimension",
    "storage",
    "duplicates",
    "neighbors",
    "cluster",
    "fewshot",
    "fewshot_gains",
    "label_loop",
    "audit",
    "map",
]


def run_all(folder: str | None) -> None:
    calls = [[name] for name in ALONE] + [[name, folder] for name in ON_A_FOLDER if folder]
    for name, *arguments in calls:
        print(f"\n== benchmarks.{name}", flush=True)
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *arguments], check=True)


def write_page(folder: str | None, only: str) -> None:
    """Run the command of each block of docs/figures.md, and write each result as soon as it is there."""
    for command in figures.commands(figures.PAGE.read_text(encoding="utf-8")):
        if only not in command:
            continue
        if "FOLDER" in command and folder is None:
            print(f"== {command}: left as it is, because no folder was named", flush=True)
            continue
        print(f"== {command}", flush=True)
        module, *arguments = shlex.split(command.replace("FOLDER", shlex.quote(folder or "")))
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments, "--json"], check=True, stdout=subprocess.PIPE
        )
        text = figures.block_text(command, json.loads(done.stdout), time.perf_counter() - started)
        # Read again: an editor may have saved the page while the benchmark ran.
        page = figures.PAGE.read_text(encoding="utf-8")
        figures.PAGE.write_text(figures.with_block(page, command, text), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--write", action="store_true", help="write the figures into docs/figures.md")
    parser.add_argument("--only", default="", metavar="WORD", help="with --write: commands that contain it")
    options = parser.parse_args()
    if options.write:
        write_page(options.folder, options.only)
    else:
        run_all(options.folder)
