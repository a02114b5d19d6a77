"""Searches which operations of a packaged model to keep in float32 when the rest runs in bfloat16.

Starting from ``--keep``, it tries each convolution, and tells what it adds to the cosine of the worst
images (the mean of the lowest twentieth) and what it costs in time. The list in `models/packaged.py` was
chosen so, a few at a time; `benchmarks/runtimes.py` judges the whole. OpenVINO cannot keep the last
convolution of a block with a residual sum by itself; such ones are told as "cannot". ::

    python tools/bf16_layers.py FOLDER --keep stem block0
"""

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nearsight.images import decode, find
from nearsight.models import find_model, load_model
from nearsight.models.graph_structure import convolutions, is_excluded
from nearsight.models.precision.bias_correction import round_to_bfloat16
from nearsight.models.runtimes.openvino import OpenVinoBackend


def main() -> None:
    """Print one line for each convolution, the best first."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="efficientnet-lite0")
    parser.add_argument("--keep", nargs="*", default=[])
    parser.add_argument("--images", type=int, default=200)
    options = parser.parse_args()
    exact = load_model(options.model)
    graph: Any = find_model(options.model).variants.graph(None)  # type: ignore[union-attr]  # packaged ones have variants
    sources = list(find(options.folder))
    step = max(1, len(sources) // options.images)
    prepared = [
        exact.prepare(decode(source, min_side_px=exact.decode_px).image) for source in sources[::step]
    ]
    wanted = exact.embed(prepared)

    def measure(operations: list[str]) -> tuple[float, float]:
        near = OpenVinoBackend(
            exact.spec,
            round_to_bfloat16(graph, exact.spec, float32_operations=operations),
            float32_operations=operations,
            precision="bf16",
            reload=partial(load_model),
        )
        near.embed(prepared[:4])
        started = time.perf_counter()
        found = near.embed(prepared)
        seconds = time.perf_counter() - started
        losses = np.sort(1 - (found * wanted).sum(1))[-max(1, len(prepared) // 20) :]
        return float(losses.mean()), 1000 * seconds / len(prepared)

    base = measure(options.float32_operations)
    print(f"{' '.join(options.keep) or 'nothing'}: loses {base[0]:.6f}, {base[1]:.2f} ms an image")
    rows = []
    for convolution in convolutions(graph):
        if is_excluded(convolution.name, options.float32_operations):
            continue
        try:
            rows.append((*measure([*options.float32_operations, convolution.name]), convolution.name))
        # The runtime's own exception, raised when the request is made.
        except RuntimeError:
            print(f"{convolution.name}: cannot")
    for loss, ms, name in sorted(rows):
        print(f"{name:24} loses {loss:.6f}, {ms:.2f} ms an image")


if __name__ == "__main__":
    main()
