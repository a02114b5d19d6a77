"""What a second run over unchanged images costs, and whether memory grows with their number.

Each run is a process of its own, so that its peak resident memory is its own.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

from benchmarks.sample_images import make

RUN = """
    import json, resource, sys, time
    started = time.perf_counter()
    from nearsight import Collection
    report = Collection.create(sys.argv[1]).add(sys.argv[2], progress=False)
    scale = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
    print(json.dumps({"seconds": time.perf_counter() - started, "peak_bytes": peak,
                      "embedded": report.embedded, "unchanged": report.unchanged}))
"""


def run(collection: Path, photos: Path) -> dict[str, float]:
    command = [sys.executable, "-c", textwrap.dedent(RUN), str(collection), str(photos)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--few", type=int, default=2_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        many = make(root / "many", options.images, (320, 240), quality=85)
        few = root / "few"
        few.mkdir()
        for file in sorted(many.iterdir())[: options.few]:
            (few / file.name).hardlink_to(file)
        small = run(root / "c-few", few)
        first = run(root / "c-many", many)
        again = run(root / "c-many", many)
    if (first["embedded"], again["unchanged"]) != (options.images, options.images):
        raise SystemExit(f"the runs did not do their work: {first}, {again}")
    result = {
        "first_s": round(first["seconds"], 2),
        "again_s": round(again["seconds"], 2),
        "again_to_first": round(again["seconds"] / first["seconds"], 4),
        "peak_few_mb": round(small["peak_bytes"] / 1e6),
        "peak_many_mb": round(first["peak_bytes"] / 1e6),
        "peak_again_mb": round(again["peak_bytes"] / 1e6),
        "peak_ratio": round(first["peak_bytes"] / small["peak_bytes"], 3),
    }
    if options.json:
        print(json.dumps(result))
        return
    print(
        f"{options.images} images: first run {result['first_s']} s, unchanged {result['again_s']} s:"
        f" {100 * result['again_to_first']:.2f} %"
    )
    print(
        f"peak memory: {options.few} images {result['peak_few_mb']} MB,"
        f" {options.images} {result['peak_many_mb']} MB: {result['peak_ratio']} x"
        f" (unchanged: {result['peak_again_mb']} MB)"
    )


if __name__ == "__main__":
    main()
