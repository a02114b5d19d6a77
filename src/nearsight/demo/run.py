"""`nearsight demo`: images in, one page worth looking at out."""

import importlib.util
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import nearsight
from nearsight import images
from nearsight.collection import AddReport, Collection, Item, Match
from nearsight.demo import selection
from nearsight.errors import ImageError, InvalidParameterError, MissingExtraError
from nearsight.reports.gallery import SCALE, Card, Row, Section, gallery, match_cards
from nearsight.reports.html import write_html
from nearsight.text_format import count, printable

# Photographs among the packages' files whose documentation gives them as CC0, public domain, without
# known copyright restrictions, or (scikit-learn's two) as CC BY 2.0.
_PHOTOGRAPHS = {
    "skimage": (
        "data/astronaut.png",
        "data/brick.png",
        "data/camera.png",
        "data/chelsea.png",
        "data/clock_motion.png",
        "data/coffee.png",
        "data/coins.png",
        "data/grass.png",
        "data/gravel.png",
        "data/hubble_deep_field.jpg",
        "data/moon.png",
        "data/retina.jpg",
        "data/rocket.jpg",
    ),
    "sklearn": ("datasets/images/china.jpg", "datasets/images/flower.jpg"),
}
_FABRICS = {"nominal": 60, "local": 30, "global": 30}
_LICENSES = {
    "scikit-image's photographs": "CC0, public domain, or no known copyright restrictions",
    "china.jpg and flower.jpg of scikit-learn": "CC BY 2.0, by danielbuechele and vultilion on Flickr",
    "conformal-clip-data's fabrics": "MIT",
}

# Vectors compared with each other, thumbnails on the contact sheet, rows of neighbors.
_SAMPLE, _SHEET, _QUERIES = 2000, 320, 6
_SHEET_PX = 112
_THUMBNAIL_PX = 256
# An edit is about one image: its first few results tell whether it was found.
_EDIT_HITS = 5
_EDITABLE = ("chelsea.png", "astronaut.png", "coffee.png")


@dataclass(frozen=True, slots=True)
class Material:
    """The images of a demonstration.

    Attributes
    ----------
    inputs : list of str
        As `Collection.add` takes them.
    title : str
        What they are.
    metadata : callable
        From an image's path to what is attached to it.
    licenses : mapping of str to str
        On what terms they may be used; empty for the user's own.
    where : callable
        From an image to the filter its neighbors must pass, or None.
    editable : sequence of str
        File names of the images to edit first.
    """

    inputs: list[str]
    title: str
    metadata: Callable[[str], Mapping[str, Any]]
    licenses: Mapping[str, str] = field(default_factory=dict)
    where: Callable[[Item], str | None] = lambda _: None
    editable: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Edited:
    """An image that was changed, and where its original was found."""

    item: Item
    edit: str
    thumbnail: bytes
    found: list[Match]

    @property
    def rank(self) -> int | None:
        """Place of the original among what was found, from 1."""
        return selection.rank_of(self.item.id, [match.id for match in self.found])


@dataclass(frozen=True, slots=True)
class Query:
    """An image of the collection and its nearest neighbors."""

    item: Item
    where: str | None
    found: list[Match]


@dataclass(frozen=True, slots=True)
class Result:
    """What a demonstration did."""

    report: Path
    collection: Collection
    material: Material
    added: AddReport
    edits: list[Edited]
    queries: list[Query]

    @property
    def commands(self) -> list[str]:
        """What to try next, ready to copy."""
        where = shlex.quote(printable(str(self.collection.directory)))
        example = self.queries[0].item.id[:12] if self.queries else "ID"
        commands = [
            f"nearsight search IMAGE -c {where} --open",
            f"nearsight search --id {example} -c {where} -k 20",
        ]
        if self.material.licenses:
            commands.append(f"nearsight ls -c {where} --where \"defect = 'local'\"")
            commands.append("nearsight demo ~/Images --open")
        commands.append("nearsight index ~/Images")
        return commands

    @property
    def speed(self) -> str:
        """How fast it went, in words that are true for a second run as well."""
        report = self.added
        if not report.embedded:
            return f"{count(report.unchanged, 'image')} unchanged, checked in {report.seconds:.1f} s"
        rate = f"{report.images_per_second:,.0f} a second"
        return f"{count(report.embedded, 'image')} embedded in {report.seconds:.1f} s, {rate}"

    def to_dict(self) -> dict[str, Any]:
        """Return the document of ``--json``."""
        report = self.added.to_dict()
        return {
            "report": str(self.report),
            "collection": str(self.collection.directory),
            "images": len(self.collection),
            **{key: report[key] for key in ("embedded", "seconds", "images_per_second")},
            "edits": [
                {
                    "path": e.item.path,
                    "edit": e.edit,
                    "rank": e.rank,
                    "similarity": e.found[e.rank - 1].similarity if e.rank else None,
                }
                for e in self.edits
            ],
            "queries": [
                {
                    "id": query.item.id,
                    "path": query.item.path,
                    "where": query.where,
                    "hits": [asdict(match) for match in query.found],
                }
                for query in self.queries
            ],
            "failed": report["failed"],
            "licenses": {self.collection.spec.id: self.collection.spec.license, **self.material.licenses},
            "next": self.commands,
        }

    def lines(self) -> list[str]:
        """Return what to tell a person."""
        found = sum(1 for edited in self.edits if edited.rank == 1)
        return [
            f"{self.material.title}: {self.speed}.",
            f"Edited images whose original came first: {found} of {len(self.edits)}.",
            f"Model: {self.collection.spec.id}, {self.collection.spec.license}.",
            *(f"Images: {name}, {license}." for name, license in self.material.licenses.items()),
            "",
            "Next:",
            *(f"  {command}" for command in self.commands),
        ]


def run_demo(
    folder: str | None, out: Path, *, k: int = 10, cache_dir: Path | None = None, progress: bool | None = None
) -> Result:
    """Index images into ``out/collection`` and write ``out/index.html``.

    Parameters
    ----------
    folder : str, optional
        The user's images; by default, those of installed packages.
    out : Path
        Made if missing.
    k : int, default 10
        Neighbors shown of each image.
    cache_dir : Path, optional
        Where converted models are kept.
    progress : bool, optional
        As in `Embedder`.

    Raises
    ------
    MissingExtraError
        No folder was given and the packages are not installed.
    InvalidParameterError
        There is no image in the folder.
    """
    material = _from_packages() if folder is None else _from_folder(folder)
    out.mkdir(parents=True, exist_ok=True)
    collection = Collection.create(out / "collection", cache_dir=cache_dir)
    report = collection.add(material.inputs, metadata=material.metadata, prune=True, progress=progress)
    items = _only(collection, material.inputs)
    if not items:
        raise InvalidParameterError(f"there is no image that can be used in {folder}; name another folder")
    sample = [items[i] for i in selection.spread(len(items), _SAMPLE)]
    vectors = collection.vectors([item.id for item in sample])
    queries = []
    for item in (sample[row] for row in selection.telling(vectors, _QUERIES)):
        where = material.where(item)
        queries.append(Query(item, where, collection.search(id=item.id, k=k, where=where)))
    preferred = [item for name in material.editable for item in sample if Path(item.path).name == name]
    others = [sample[row] for row in selection.varied(vectors, 4 * len(selection.EDITS))]
    edits = _edit([*preferred, *others], collection)
    result = Result(out / "index.html", collection, material, report, edits, queries)
    on_sheet = selection.spread(len(sample), _SHEET)
    order = selection.arranged(vectors[on_sheet])
    write_html(result.report, _page(result, [sample[on_sheet[i]] for i in order], len(items)))
    return result


def _from_packages() -> Material:
    photographs = [_package(package) / name for package, names in _PHOTOGRAPHS.items() for name in names]
    textiles = _package("conformal_clip_data") / "data" / "textile_images" / "simulated"
    fabrics = [p for kind, n in _FABRICS.items() for p in sorted((textiles / kind).glob("*.jpg"))[:n]]

    def about(path: str) -> Mapping[str, Any]:
        folder = Path(path).parent
        if folder.parent == textiles:
            return {"kind": "fabric", "defect": "none" if folder.name == "nominal" else folder.name}
        return {"kind": "photograph"}

    return Material(
        [str(path) for path in [*photographs, *fabrics] if path.is_file()],
        "Photographs and simulated fabrics",
        about,
        _LICENSES,
        lambda item: f"kind = '{item.metadata['kind']}'",
        _EDITABLE,
    )


def _package(name: str) -> Path:
    # Found without importing: scikit-image alone would take longer than all the rest.
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError(
            f"the demo's own images need the package {name}, which is not installed:"
            " pip install 'nearsight[demo]', or use your own images: nearsight demo FOLDER"
        )
    return Path(spec.submodule_search_locations[0])


def _from_folder(folder: str) -> Material:
    name = Path(folder).resolve().name or folder
    return Material([folder], f"Images in {name}", lambda _: {})


def _only(collection: Collection, inputs: list[str]) -> list[Item]:
    """Return the items of these inputs, and drop those of an earlier demonstration of others."""
    roots = images.roots(inputs)
    kept: list[Item] = []
    strangers: list[str] = []
    for item in collection.items():
        if any(images.covers(roots, str(Path(path).absolute())) for path in item.paths):
            kept.append(item)
        else:
            strangers.append(item.id)
    if strangers:
        collection.remove(strangers)
    return kept


def _edit(candidates: Sequence[Item], collection: Collection) -> list[Edited]:
    """Change an image for each of the edits, and look for its original."""
    edits = list(selection.EDITS)
    done: dict[str, Edited] = {}
    for item in candidates:
        if len(done) == len(edits):
            break
        if item.id in done:
            continue
        edit = edits[len(done)]
        try:
            source = next(images.find([item.path]))
            if isinstance(source, nearsight.ImageFailure):
                continue
            changed = edit.apply(images.decode(source, min_side_px=2 * _THUMBNAIL_PX).image)
        except ImageError:
            continue
        thumbnail = images.thumbnail(changed, _THUMBNAIL_PX)
        done[item.id] = Edited(item, edit.name, thumbnail, collection.search(changed, k=_EDIT_HITS))
    return list(done.values())


def _page(result: Result, sheet: Sequence[Item], n_items: int) -> str:
    spec = result.collection.spec
    sections = [
        _edits_section(result, n_items),
        _queries_section(result),
        _sheet_section(result, sheet, n_items),
    ]
    sections.append(Section("What to do next", commands=result.commands))
    licenses = [f"Images: {name}, {license}." for name, license in result.material.licenses.items()]
    return gallery(
        result.material.title,
        [section for section in sections if section.rows or section.sheet or section.commands],
        lead=f"One pass over {count(n_items, 'image')}; everything below came from it, on this machine.",
        facts={
            "Images": f"{n_items:,}",
            "This run": result.speed,
            "Model": spec.id,
            "A vector": f"{spec.dim:,} numbers",
        },
        footer=[SCALE, f"Model: {spec.id}, {spec.license}.", *licenses],
    )


def _edits_section(result: Result, n_items: int) -> Section:
    first = sum(1 for edited in result.edits if edited.rank == 1)
    rows = []
    for edited in result.edits:
        name = Path(edited.item.path).name
        query = Card(edited.item.path, edited.thumbnail, name=edited.edit, detail=name, linked=False)
        hits = match_cards(result.collection, edited.found)
        if edited.rank:
            hits[edited.rank - 1] = hits[edited.rank - 1].with_badge("the original")
        label = "An edited copy" if edited.rank else f"Original not among the first {len(hits)}"
        rows.append(Row(query, hits, label))
    lead = (
        f"{count(len(rows), 'image was', 'images were')} changed in memory and looked for among all"
        f" {n_items:,}. The original came first in {first} of {len(rows)}."
    )
    return Section("Edited copies find their original", lead, rows)


def _queries_section(result: Result) -> Section:
    thumbnails = result.collection.thumbnails([query.item.id for query in result.queries])
    rows = []
    for query in result.queries:
        item = query.item
        card = Card(item.path, thumbnails.get(item.id), metadata=item.metadata)
        label = f"Where {query.where}" if query.where else "Looked for"
        rows.append(Row(card, match_cards(result.collection, query.found), label))
    lead = "Images unlike each other, each with its nearest neighbors."
    return Section("What is closest to what", lead, rows)


def _sheet_section(result: Result, sheet: Sequence[Item], n_items: int) -> Section:
    thumbnails = result.collection.thumbnails([item.id for item in sheet])
    cards = [
        Card(item.path, images.thumbnail(images.decode(thumbnails[item.id]).image, _SHEET_PX))
        for item in sheet
        if item.id in thumbnails
    ]
    shown = f"All {n_items:,}" if len(cards) == n_items else f"{len(cards):,} of {n_items:,}"
    return Section(
        "The whole collection", f"{shown}, arranged so that look-alikes sit together.", sheet=cards
    )
