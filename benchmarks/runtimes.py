"""The default model in bfloat16, in int8, or on a device, beside the exact one: how much faster, how near.

All get the same prepared images, through nearsight's own backends, from one thread a core. They are timed
by turns, and the median of the rounds' ratios is told; beside it, that of the time which processors spent,
which other work on the machine disturbs less. FOLDER holds the photographs; without one, those of
scikit-learn and scikit-image, cut into pieces.
"""

import argparse
import json
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from joblib import cpu_count
from PIL import Image

from nearsight import load_model
from nearsight.images import decode, find
from nearsight.models import Backend
from nearsight.models.precision.parity import compare


def from_packages() -> list[Image.Image]:
    import skimage
    from sklearn.datasets import load_sample_images

    folder = Path(skimage.__file__).parent / "data"
    whole = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    whole += [Image.open(file).convert("RGB") for file in sorted(folder.glob("*")) if is_photograph(file)]
    pieces = []
    for image in whole:
        width, height = image.size
        for x, y in ((0, 0), (0.5, 0), (0, 0.5), (0.5, 0.5), (0.25, 0.25)):
            pieces.append(
                image.crop(
                    (
                        int(x * width),
                        int(y * height),
                        int(x * width) + width // 2,
                        int(y * height) + height // 2,
                    )
                )
            )
    return whole + pieces


def is_photograph(file: Path) -> bool:
    return file.suffix in (".png", ".jpg", ".jpeg") and file.stat().st_size > 100_000


def from_folder(folder: Path, most: int, min_side_px: int | None) -> list[Image.Image]:
    sources = list(find(folder))
    step = max(1, len(sources) // most)
    return [decode(source, min_side_px=min_side_px).image for source in sources[::step][:most]]


def rates(backend: Backend, prepared: list[Any]) -> tuple[float, float]:
    """Return images a second, and images a second of processors' time."""
    n = cpu_count()
    started, spent = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(n) as pool:
        list(pool.map(backend.embed, (prepared[i::n] for i in range(n))))
    return len(prepared) / (time.perf_counter() - started), len(prepared) / (time.process_time() - spent)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--model", default="efficientnet-lite0")
    parser.add_argument("--forms", nargs="+", default=["bf16", "int8", "fp16"], help="such as bf16, fp16")
    parser.add_argument("--device", help="Instead of forms: the same model on a device, such as openvino.")
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    exact = load_model(options.model, device="cpu")
    if options.device:
        forms = {options.device: load_model(options.model, device=options.device)}
    else:
        forms = {form: load_model(f"{options.model}#{form}") for form in options.forms}
    if options.folder:
        images = from_folder(options.folder, options.images, exact.decode_px)
    else:
        images = from_packages()
    prepared = [exact.prepare(image) for image in images]
    wanted = exact.embed(prepared)
    parities = {form: compare(near.embed(prepared), wanted) for form, near in forms.items()}
    prepared = (prepared * (1 + options.images // len(prepared)))[: options.images]
    rounds: dict[str, list[tuple[float, float]]] = {form: [] for form in forms}
    spent: dict[str, list[float]] = {form: [] for form in forms}
    for _ in range(options.rounds):
        for form, near in forms.items():
            before, ours, after = (rates(backend, prepared) for backend in (exact, near, exact))
            rounds[form].append((2 / (1 / before[0] + 1 / after[0]), ours[0]))
            spent[form].append(ours[1] / (2 / (1 / before[1] + 1 / after[1])))
    result = {
        "images": len(images),
        "threads": cpu_count(),
        "float32_per_s": round(statistics.median(r[0] for found in rounds.values() for r in found), 1),
        "forms": {
            form: {
                "smallest_cosine": round(parities[form].smallest, 5),
                "mean_cosine": round(parities[form].mean, 5),
                "top10_overlap": round(parities[form].overlap, 3),
                "per_s": round(statistics.median(r[1] for r in found), 1),
                "ratio": round(statistics.median(b / a for a, b in found), 2),
                "rounds": [round(b / a, 2) for a, b in found],
                "processor_ratio": round(statistics.median(spent[form]), 2),
            }
            for form, found in rounds.items()
        },
    }
    if options.json:
        print(json.dumps(result))
        return
    print(f"{result['images']} photographs, {result['threads']} threads, float32 {result['float32_per_s']}/s")
    for form, told in result["forms"].items():
        print(f"{form}: {told['per_s']}/s, {told['ratio']} x (rounds {', '.join(map(str, told['rounds']))})")
        print(f"  {told['processor_ratio']} x by the time that processors spent")
        print(f"  {parities[form]}")


if __name__ == "__main__":
    main()
