"""Measure a folder of ordinary photographs: the scores behind the limits of `nearsight audit`.

    python tools/quality_reference.py FOLDER "what these are"

writes `src/nearsight/analyses/quality_reference.json`: of each kind of fault, the highest scores.
"""

import json
import sys
from io import BytesIO
from pathlib import Path

from PIL import Image

from nearsight import images
from nearsight.analyses import image_quality
from nearsight.errors import ImageFailure
from nearsight.images.statistics import statistics

FILE = Path(image_quality.__file__).with_name("quality_reference.json")
# Highest scores that are kept: they allow rates up to 4 times their share.
N_KEPT = 60


def reference(folder: Path, source: str) -> dict[str, object]:
    """Return the document that `QualityLimits.shipped` reads."""
    measured = [
        statistics(Image.open(BytesIO(images.thumbnail(images.decode(found, min_side_px=224).image))))
        for found in images.find([folder])
        if not isinstance(found, ImageFailure)
    ]
    tails = {
        kind: sorted((round(image_quality.finite(m.score(s)), 4) for s in measured), reverse=True)[:N_KEPT]
        for kind, m in image_quality.MEASURES.items()
    }
    return {"source": source, "n": len(measured), "tails": tails}


if __name__ == "__main__":
    document = reference(Path(sys.argv[1]), sys.argv[2])
    FILE.write_text(
        json.dumps(document, separators=(",", ":")).replace("],", "],\n") + "\n", encoding="utf-8"
    )
