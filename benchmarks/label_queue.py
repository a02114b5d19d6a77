"""How long a person who labels waits for the next images, in a collection of many.

    python -m benchmarks.label_queue [--images 100000] [--classes 20]

Random vectors of unequal kinds, as many numbers each as the default model gives. The service mounts the
collection. Two people label by turns: each asks for 24 images, labels five of them, and asks again; after
every tenth turn, a classifier is fitted on all labels. Told are, in milliseconds through `nearsight.Client`
on loopback: the first answer, for which images are chosen; the answers after it (median and longest); those
among them that follow a fit, while images are chosen anew in the background. Beside them stands the service's
processor time of the first answer and of the median one, which other work on the machine changes less.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.search_memory import Mixture
from benchmarks.serve import free_port, server
from nearsight import Client, Collection, load_model

N_ASKED, N_LABELED, N_TURNS, TURNS_PER_FIT = 24, 5, 40, 10
# Nobody labels five images faster.
TURN_S = 2.0


def make_collection(place: Path, n_images: int) -> None:
    model = load_model("efficientnet-lite0")
    collection = Collection.create(place, model=model)
    source, rng = Mixture(model.spec.dim), np.random.default_rng(0)
    for start in range(0, n_images, 20_000):
        n = min(20_000, n_images - start)
        ids = [rng.bytes(16).hex() for _ in range(n)]
        collection.add_vectors(source.draw(n), ids=ids, fingerprint=collection.fingerprint)


def measure(place: Path, n_classes: int) -> dict[str, float]:
    port = free_port()
    words = ("--port", str(port), "--data", str(place.parent / "data"), "--mount", f"v={place}")
    waits: list[tuple[bool, float]] = []
    work: list[float] = []
    with server("-m", "nearsight", "serve", *words, port=port) as (url, process), Client(url) as client:
        remote = client.collection("v")
        is_fitted = False
        for turn in range(N_TURNS):
            begun, before = time.perf_counter(), sum(process.cpu_times()[:2])
            images = remote.next_images(n=N_ASKED, labeler=f"person {turn % 2}")
            waits.append((is_fitted, 1000 * (time.perf_counter() - begun)))
            work.append(1000 * (sum(process.cpu_times()[:2]) - before))
            is_fitted = turn % TURNS_PER_FIT == TURNS_PER_FIT - 1
            ids = [image.prediction.id for image in images[:N_LABELED]]
            time.sleep(TURN_S)
            # The class does not matter to the time.
            remote.set_labels({id: f"class {int(id[:8], 16) % n_classes}" for id in ids})
            if is_fitted:
                remote.fit_classifier()
    (_, first), *others = waits
    everyone = np.array([wait for _, wait in others])
    fitted = np.array([wait for is_after_fit, wait in others if is_after_fit])
    return {
        "first_ms": round(first),
        "median_ms": round(float(np.median(everyone)), 1),
        "longest_ms": round(float(everyone.max()), 1),
        "after_fit_median_ms": round(float(np.median(fitted)), 1),
        "first_processor_ms": round(work[0]),
        "median_processor_ms": round(float(np.median(work[1:])), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--classes", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "vectors"
        make_collection(place, options.images)
        print(json.dumps({"images": options.images, **measure(place, options.classes)}))


if __name__ == "__main__":
    main()
