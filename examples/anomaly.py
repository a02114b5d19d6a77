"""Learn what good fabric looks like, find what is not, and draw where."""

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
    detector.save(Path(folder) / "fabric.npz")  # one file, which scores the same anywhere

    detector = AnomalyDetector.load(Path(folder) / "fabric.npz")
    for kind, images in new.items():
        for found in detector.score(images, heatmaps=True):
            if isinstance(found, AnomalyResult):
                verdict = "DEFECT" if found.defect else "fine"
                print(f"{kind:14}{found.score:6.2f}  above {found.threshold:.2f} is a defect: {verdict}")
                draw(found).save(Path(folder) / f"{kind}-{Path(found.path).stem}.png")
    print(len(list(Path(folder).glob("*.png"))), "images drawn")
