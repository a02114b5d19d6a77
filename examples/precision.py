"""Compute vectors in fewer bits, and measure how close they are and how long they take."""

import time
import warnings
from pathlib import Path

import skimage

from nearsight import load_model
from nearsight.errors import NearsightError
from nearsight.images import decode, find
from nearsight.models.precision.parity import compare

warnings.simplefilter("ignore")  # the results below contain what the warnings say

exact = load_model("efficientnet-lite0", device="cpu")
files = [source for source in find(Path(skimage.__file__).parent / "data") if source.path.endswith(".png")]
images = [exact.prepare(decode(source, min_side_px=exact.decode_px).image) for source in files]
vectors = exact.embed(images)
print(f"{len(images)} photographs and textures, compared with float32:")

for precision in ("bf16", "int8", "fp16"):
    try:
        model = load_model(f"efficientnet-lite0#{precision}", device="cpu")
    except NearsightError as error:
        print(f"\n{precision}: {error}")
        continue
    parity = compare(model.embed(images), vectors)
    seconds = {}
    for backend in (exact, model):
        started = time.perf_counter()
        backend.embed(images)
        seconds[backend] = time.perf_counter() - started
    same = model.spec.fingerprint == exact.spec.fingerprint
    print(f"\n{precision}: {parity}")
    print(f"  {'the same fingerprint' if same else 'a fingerprint of its own'}; it takes", end=" ")
    print(f"{seconds[model] / seconds[exact]:.2f} of the time that float32 takes")
