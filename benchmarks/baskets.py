"""Real baskets of things with images, taken out of Debian packages, with a baskets.csv.

sweethome   Sweet Home 3D (package sweethome3d; GPL-2+, its models and homes also CC-BY 3.0). Items are the
            icons of its furniture catalog; a basket is one room of one of its nine example homes: the
            pieces that stand inside the room's outline, or nearest to it (doors and windows stand in walls).
            Pieces that no home has are there as images without a basket.
wesnoth     The Battle for Wesnoth 1.16 (packages wesnoth-1.16-*; GPL-2+). Items are the images of units and
            of terrain; a basket is one scenario: the terrain of its map and the units its file names outside
            of what is said in dialogues.

Nobody buys anything there. What is alike is that people chose what goes together.
"""

import argparse
import csv
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

_CAMPAIGNS = ["did", "dm", "dw", "ei", "httt", "l", "low", "nr", "sof", "sota", "sotbe", "thot"]
_CAMPAIGNS += ["trow", "tsg", "ttb", "utbs"]
PACKAGES = {
    "sweethome": ["sweethome3d"],
    "wesnoth": [f"wesnoth-1.16-{part}" for part in ["data", *_CAMPAIGNS]],
}


def make(name: str, folder: Path) -> Path:
    """Write images and ``baskets.csv`` below `folder`, once; return the folder that has them."""
    made = folder / name
    if not (made / "baskets.csv").exists():
        unpacked = folder / f"{name}-packages"
        if not unpacked.exists():
            _fetch(PACKAGES[name], unpacked)
        found = _sweethome(unpacked) if name == "sweethome" else _wesnoth(unpacked)
        _write(made, *found)
    return made


def read(made: Path) -> dict[str, list[str]]:
    """Return the items of each basket."""
    baskets: dict[str, list[str]] = {}
    with open(made / "baskets.csv", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            baskets.setdefault(row["basket"], []).append(row["item"])
    return baskets


def group(basket: str) -> str:
    """Return the home or the campaign that a basket belongs to: its sisters there are like it."""
    return basket.rpartition("/")[0]


def _fetch(packages: Iterable[str], target: Path) -> None:
    partial = target.with_name(target.name + ".part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    subprocess.run(["apt-get", "download", "-qq", *packages], cwd=partial, check=True)
    for file in sorted(partial.glob("*.deb")):
        subprocess.run(["dpkg", "-x", file.name, "."], cwd=partial, check=True)
        file.unlink()
    partial.rename(target)


Baskets = dict[str, dict[str, bytes]]


def _write(made: Path, baskets: Baskets, others: Mapping[str, bytes]) -> None:
    partial = made.with_name(made.name + ".part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    with open(partial / "baskets.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["basket", "item"])
        for basket, items in baskets.items():
            for item, image in items.items():
                (partial / item).write_bytes(image)
                writer.writerow([basket, item])
    for item, image in others.items():
        (partial / item).write_bytes(image)
    partial.rename(made)


def _sweethome(unpacked: Path) -> tuple[Baskets, dict[str, bytes]]:
    baskets: Baskets = {}
    with zipfile.ZipFile(unpacked / "usr/share/sweethome3d/sweethome3d.jar") as jar:
        for name in sorted(jar.namelist()):
            if not re.search(r"/resources/examples/.*\.xml$", name):
                continue
            home = ET.fromstring(jar.read(name))
            rooms = [
                (f"{Path(name).stem}/{room.get('name') or 'room'} {i}", _outline(room))
                for i, room in enumerate(home.findall("room"))
            ]
            # What is not part of the catalog has its icon in the home's own archive, and nowhere else.
            for piece in (p for p in home.iter() if p.get("icon", "").startswith("com/eteks/")):
                at = np.array([float(piece.get("x", 0)), float(piece.get("y", 0))])
                basket = min(rooms, key=lambda room: _distance(at, room[1]))[0]
                icon = piece.get("icon", "")
                baskets.setdefault(basket, {})[Path(icon).name] = jar.read(icon)
        listed = jar.read("com/eteks/sweethome3d/io/DefaultFurnitureCatalog.properties").decode("latin-1")
        icons = [name.strip("/") for name in re.findall(r"^icon#\d+=(\S+)", listed, re.MULTILINE)]
        catalog = {Path(icon).name: jar.read(icon) for icon in icons}
    return baskets, catalog


def _outline(room: ET.Element) -> np.ndarray:
    return np.array([[float(p.get("x", 0)), float(p.get("y", 0))] for p in room.findall("point")])


def _distance(at: np.ndarray, outline: np.ndarray) -> float:
    """Return how far a point lies outside of a polygon; 0 inside."""
    a, b = outline, np.roll(outline, -1, axis=0)
    crossed = (a[:, 1] > at[1]) != (b[:, 1] > at[1])
    span = np.where(crossed, b[:, 1] - a[:, 1], 1)
    left = a[:, 0] + (at[1] - a[:, 1]) / span * (b[:, 0] - a[:, 0]) > at[0]
    if (crossed & left).sum() % 2:
        return 0.0
    edge = b - a
    along = ((at - a) * edge).sum(1) / np.maximum((edge**2).sum(1), 1e-9)
    nearest = a + np.clip(along, 0, 1)[:, None] * edge
    return float(np.linalg.norm(at - nearest, axis=1).min())


def _wesnoth(unpacked: Path) -> tuple[Baskets, dict[str, bytes]]:
    [data] = unpacked.glob("usr/share/games/wesnoth/*/data")
    images = _units(data)
    names = "|".join(sorted(map(re.escape, images), key=len, reverse=True))
    unit = re.compile(rf"(?<!\w)(?:{names})(?!\w)")
    images |= {f"terrain {code}": path for code, path in _terrains(data / "core").items()}
    maps = {path.name: path for path in sorted(data.rglob("*.map"))}
    baskets: Baskets = {}
    for file in sorted(data.rglob("scenarios/**/*.cfg")):
        text = re.sub(r"#(?!ifdef|endif).*", "", file.read_text(encoding="utf-8", errors="replace"))
        if not re.search(r"\[(scenario|multiplayer)\]", text):
            continue
        used = set(unit.findall(re.sub(r'_\s*"[^"]*"', "", text)))
        for name in re.findall(r"map_(?:file|data)=\W*([\w./-]+\.map|[\w./-]+)", text):
            path = maps.get(f"{Path(name).stem}.map")
            if path is not None:
                used |= {f"terrain {code}" for code in _codes(path.read_text(encoding="utf-8"))}
        items = {_file_name(item): images[item].read_bytes() for item in sorted(used & images.keys())}
        if items:
            baskets[file.relative_to(data).with_suffix("").as_posix()] = items
    return baskets, {}


def _units(data: Path) -> dict[str, Path]:
    units: dict[str, Path] = {}
    for file in sorted(data.rglob("units/**/*.cfg")):
        text = file.read_text(encoding="utf-8", errors="replace")
        for block in re.findall(r"\[unit_type\](.*?)\[/unit_type\]", text, re.DOTALL):
            head = block.split("[attack]")[0]
            id = re.search(r'^\s*id=\s*"?([^"\n#]+?)"?\s*$', head, re.MULTILINE)
            image = re.search(r'^\s*image="?([^"\n~:]+\.png)', head, re.MULTILINE)
            if id and image:
                places = [data / "core/images", *(folder / "images" for folder in file.parents)]
                found = next((p / image[1] for p in places if (p / image[1]).is_file()), None)
                if found:
                    units.setdefault(id[1], found)
    return units


def _terrains(core: Path) -> dict[str, Path]:
    terrains: dict[str, Path] = {}
    text = (core / "terrain.cfg").read_text(encoding="utf-8")
    for block in re.findall(r"\[terrain_type\](.*?)\[/terrain_type\]", text, re.DOTALL):
        code = re.search(r"^\s*string=(\S+)", block, re.MULTILINE)
        image = re.search(r"^\s*symbol_image=([^\s~]+)", block, re.MULTILINE)
        if code and image:
            path = core / "images/terrain" / f"{image[1]}.png"
            if path.is_file():
                terrains[code[1]] = path
    return terrains


def _codes(text: str) -> set[str]:
    """Return the codes of ground and of what lies on it; a cell is ``[player ]ground[^above]``."""
    codes: set[str] = set()
    for cell in re.findall(r"[^,\n]+", text):
        ground, sign, above = cell.split()[-1].partition("^") if cell.strip() else ("", "", "")
        codes |= {ground, f"^{above}"} if sign else {ground}
    return codes


def _file_name(item: str) -> str:
    return re.sub(r"[^\w -]", lambda m: f"%{ord(m[0]):02X}", item) + ".png"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/data"))
    for chosen in PACKAGES:
        made = make(chosen, parser.parse_args().out)
        contents = read(made)
        items = {item for basket in contents.values() for item in basket}
        sizes = [len(basket) for basket in contents.values()]
        print(
            f"{made}: {len(contents)} baskets in {len({group(b) for b in contents})} groups,"
            f" {len(items)} items, {np.mean(sizes):.1f} a basket ({min(sizes)} to {max(sizes)})"
        )
