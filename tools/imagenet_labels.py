"""Writes the names and meanings of ImageNet-1k's classes, from the lists in timm's wheel.

The words are WordNet 3.0's; its license lies beside the file that this writes. To run it again, in an
environment of its own::

    pip install --no-deps timm==1.0.31
    python tools/imagenet_labels.py
"""

from importlib.metadata import files
from pathlib import Path

HERE = Path(__file__).parent.parent / "src/nearsight/models/text/data"
HEADER = (
    "# Classes of ImageNet-1k in the order of a classifier's outputs: names, then meaning.",
    "# From WordNet 3.0, Copyright 2006 by Princeton University; see LICENSE-WordNet.txt.",
)


def lines(name: str) -> list[str]:
    """Return the lines of one of timm's lists, without importing timm."""
    [found] = [file for file in files("timm") or () if file.match(f"_info/{name}")]
    return Path(found.locate()).read_text(encoding="utf-8").splitlines()


def main() -> None:
    """Write the file."""
    names, meanings = (
        dict(line.split("\t", 1) for line in lines(f"imagenet_synset_to_{what}.txt"))
        for what in ("lemma", "definition")
    )
    rows = [f"{names[synset]}\t{meanings[synset]}" for synset in lines("imagenet_synsets.txt")]
    HERE.joinpath("imagenet.tsv").write_text("\n".join([*HEADER, *rows, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
