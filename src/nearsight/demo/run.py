"""The demo: index images, search them, and write a report."""

from collections.abc import Sequence
from pathlib import Path

from nearsight import images
from nearsight.collection import Collection, Item
from nearsight.demo.edits import EDITS, search_edited
from nearsight.demo.report import write_report
from nearsight.demo.result import DemoResult, ExampleSearch
from nearsight.demo.selection import diverse_rows, evenly_spaced, query_rows, similarity_order
from nearsight.demo.sources import folder_images, package_images
from nearsight.errors import InvalidParameterError
from nearsight.images.path_encoding import absolute

# Images that the selection compares with each other, and those on the contact sheet.
_MAX_SAMPLE, _MAX_SHEET = 2000, 320
_N_QUERIES = 6


def run_demo(
    folder: str | None,
    out: Path,
    *,
    k: int = 10,
    exclude: Sequence[str] = (),
    include_hidden: bool = False,
    cache_dir: Path | None = None,
    progress: bool | None = None,
) -> DemoResult:
    """Index images into ``out/collection``, and write the report ``out/index.html``.

    Parameters
    ----------
    folder : str, optional
        The user's images; by default, those of installed packages.
    out : Path
        Created if it does not exist.
    k : int, default 10
        Matches of each example search.
    exclude, include_hidden
        What is passed over in the folder; see `Collection.add`.
    cache_dir : Path, optional
        Directory of converted models.
    progress : bool, optional
        As in `Embedder`.

    Raises
    ------
    MissingExtraError
        There is no `folder`, and the packages are not installed. Install them, or name a folder.
    InvalidParameterError
        No image in the folder can be read. Name another folder.
    """
    demo_images = package_images() if folder is None else folder_images(folder)
    out.mkdir(parents=True, exist_ok=True)
    collection = Collection.create(out / "collection", cache_dir=cache_dir)
    added = collection.add(
        demo_images.paths,
        metadata=demo_images.metadata,
        prune=True,
        exclude=exclude,
        include_hidden=include_hidden,
        progress=progress,
    )
    items = _remove_others(collection, demo_images.paths)
    if not items:
        raise InvalidParameterError(f"no image in {folder} can be read; name another folder")
    sample = [items[i] for i in evenly_spaced(len(items), _MAX_SAMPLE)]
    vectors = collection.vectors([item.id for item in sample])
    queries = []
    for item in (sample[row] for row in query_rows(vectors, _N_QUERIES)):
        where = demo_images.where(item)
        queries.append(ExampleSearch(item, where, collection.search(id=item.id, k=k, where=where)))
    preferred = [item for name in demo_images.edited_first for item in sample if Path(item.path).name == name]
    others = [sample[row] for row in diverse_rows(vectors, 4 * len(EDITS))]
    edits = search_edited(collection, [*preferred, *others])
    result = DemoResult(out / "index.html", collection, demo_images, added, edits, queries)
    sheet = evenly_spaced(len(sample), _MAX_SHEET)
    order = similarity_order(vectors[sheet])
    write_report(result, [sample[sheet[i]] for i in order], len(items))
    return result


def _remove_others(collection: Collection, inputs: list[str]) -> list[Item]:
    """Remove images of an earlier demo that are not among the inputs, and return those that are."""
    roots = images.roots(inputs)
    items: list[Item] = []
    other_ids: list[str] = []
    for item in collection.items():
        if any(images.covers(roots, absolute(path)) for path in item.paths):
            items.append(item)
        else:
            other_ids.append(item.id)
    if other_ids:
        collection.remove(other_ids)
    return items
