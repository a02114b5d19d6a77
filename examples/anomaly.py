"""Fit an anomaly detector on good fabric, find defects, and draw where they are."""

import tempfile
from pathlib import Path

import conformal_clip_data

from nearsight import AnomalyDetector, AnomalyResult
from nearsight.anomaly import draw

textiles = Path(conformal_clip_data.__file__).parent / "data/textile_images/simulated"
good = sorted((textiles / "nominal").glob("*.jpg"))
new = {"good": good[60:64], "local defect": sorted((textiles / "local").glob("*.jpg"))[:4]}

with tempfile.TemporaryDirectory() as folder:
    detector = AnomalyDetector(false_alarm_rate=0.1).fit(good[:60])
    detector.save(Path(folder) / "fabric.npz")  # one file, with the same scores on every machine

    detector = AnomalyDetector.load(Path(folder) / "fabric.npz")
    for kind, images in new.items():
        for result in detector.score(images, heatmaps=True):
            if isinstance(result, AnomalyResult):
                verdict = "DEFECT" if result.defect else "fine"
                print(f"{kind:14}{result.score:6.2f}  above {result.threshold:.2f} is a defect: {verdict}")
                draw(result).save(Path(folder) / f"{kind}-{Path(result.path).stem}.png")
    print(len(list(Path(folder).glob("*.png"))), "images drawn")
