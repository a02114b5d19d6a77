"""What a collection will take, as plain data."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nearsight.models import find_model
from nearsight.planning import Needs, estimate, measure

# Of an image, where nobody says how large it is and there are none to look at.
_MEGAPIXELS = 2.0


def plan_document(
    paths: Sequence[str],
    *,
    model: str,
    images: int,
    dim: int | None = None,
    megapixels: float | None = None,
    cache_dir: Path | None = None,
    **needs: Any,
) -> dict[str, Any]:
    """Measure images and a model for half a minute, and estimate what a collection takes.

    Parameters
    ----------
    paths : sequence of str
        Images to measure; without any, only the network is measured.
    model : str
    images : int
    dim : int, optional
        By default the model's.
    megapixels : float, optional
        Of an image; by default as measured.
    **needs
        See `planning.Needs`.
    """
    sample = measure(list(paths), model, cache_dir=cache_dir, network=not needs.get("gpus"))
    needed = Needs(
        images=images,
        dim=dim or find_model(model).spec.dim,
        model=model,
        megapixels=megapixels or sample.megapixels or _MEGAPIXELS,
        **needs,
    )
    lines = [asdict(line) for line in estimate(needed, sample)]
    facts = {"images": images, "model": model, "dim": needed.dim, "megapixels": needed.megapixels}
    return {**facts, "lines": lines}
