"""Looking at what is there: `search`, `ls`, `info`, `export`."""

import sys
import webbrowser
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nearsight import text_format
from nearsight.cli import options
from nearsight.cli.framework import BadInputError, Command, Run, out_file
from nearsight.errors import ImageError
from nearsight.text_format import count, pairs, printable

if TYPE_CHECKING:
    from nearsight.collection import Item, Match

# Digits of an id that people see; commands take any unique start of an id.
_SHORT = 12
# The best of a search that are looked at in detail; each costs some 50 ms.
_VERIFIED = 50


@click.command(
    cls=Command,
    json_shape="""{"hits": [{"id", "path", "similarity": float, "metadata": {}}]}""",
    examples=(
        "nearsight search photo.jpg --open",
        "nearsight search --id 3fa9c1 -k 20 --where \"width >= 640 AND path LIKE '%beach%'\"",
        'nearsight search --text "a dog on a beach" --open',
        "nearsight search logo.png --verify",
        "curl -s https://example.org/a.jpg | nearsight search -",
    ),
)
@click.argument("image", required=False, type=click.Path())
@click.option("--id", "like_id", metavar="ID", help="Instead of IMAGE: an image of the collection.")
@click.option("--text", metavar="TEXT", help="Instead of IMAGE: words that say what is to be seen.")
@options.k("How many to find.")
@options.where
@options.device
@click.option("--verify", is_flag=True, help="Put first what shows the very same object (SIFT, RANSAC).")
@click.option("--exact", is_flag=True, help="Compare with every image; slower in a large collection.")
@options.allow_remote
@options.page("Write a page of thumbnails.")
@click.pass_obj
def search(
    run: Run,
    /,
    image: str | None,
    like_id: str | None,
    text: str | None,
    k: int,
    where: str | None,
    exact: bool,
    verify: bool,
    allow_remote: bool,
    out: Path | None,
    show: bool,
) -> None:
    """Find the images most similar to IMAGE, or to words.

    IMAGE is a file, an address, or - for the bytes of an image on standard input.
    The similarity is the cosine of two vectors: 1 is the same image. Between words and images it is
    low even where they fit; only the order tells.
    """
    if sum(given is not None for given in (image, like_id, text)) != 1:
        raise click.UsageError("name one thing to look for: IMAGE or --id ID or --text TEXT")
    if image is not None and Path(image).is_dir():
        raise BadInputError(f"{image} is a folder; name one image in it")
    if run.device == "auto":
        # Opening a session on a GPU takes longer than one image does here.
        run.device = "cpu"
    collection = run.open_collection()
    if verify and text is not None:
        raise click.UsageError("--verify compares images; it has nothing to compare a text with")
    query: Any = sys.stdin.buffer.read() if image == "-" else image
    n = max(k, _VERIFIED) if verify else k
    try:
        found = collection.search(
            query, id=like_id, text=text, k=n, where=where, exact=exact, allow_remote=allow_remote
        )
    except ImageError as error:
        raise ImageError("standard input" if image == "-" else error.path, error.reason) from error
    if verify:
        found = _verified(query if like_id is None else collection.get(like_id).path, found)[:k]
    run.console.document({"hits": [as_hit(match) for match in found]})
    say_hits(run, found)
    if out or show:
        from nearsight.reports.search import write_search

        file = out or run.settings.cache_dir / "search.html"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_search(file, collection, found, query=query, query_id=like_id, text=text)
        present(run, file, show=show)


def _verified(query: Any, found: "list[Match]") -> "list[Match]":
    """Put first the images that show the very object of the query, as their files are now."""
    from nearsight.verification.keypoints import geometric_rerank

    return [found[v.position] for v in geometric_rerank(query, [match.path for match in found], mirror=True)]


def as_hit(match: "Match") -> dict[str, Any]:
    """Return a match as the contract writes it."""
    return {"id": match.id, "path": match.path, "similarity": match.similarity, "metadata": match.metadata}


def say_hits(run: Run, found: "list[Match]") -> None:
    """Print matches as a table."""
    if not found:
        run.console.note("Nothing was found.")
    rows = [[f"{m.similarity:.3f}", m.id[:_SHORT], m.path or "(no file)", pairs(m.metadata)] for m in found]
    for line in text_format.table(rows, header=("similarity", "id", "path", "") if rows else (), right=(0,)):
        run.console.say(line)


def present(run: Run, file: Path, *, show: bool) -> None:
    """Say where a page is, and open it if that was asked for."""
    run.console.note(f"Page: {printable(str(file))}")
    if show and not webbrowser.open(file.absolute().as_uri()):
        run.console.warn(f"No browser could be started; open {printable(str(file))} yourself.")


@click.command(
    cls=Command,
    json_shape="""{"items": [{"id", "path", "paths": [path], "metadata": {}, "width": int, "height": int,
            "size_bytes": int, "modified": time, "added": time}]}""",
    examples=("nearsight ls --where \"added > '2026-01-01'\" --limit 20",),
)
@options.where
@click.option("--limit", type=click.IntRange(min=0), metavar="N", help="At most so many.")
@click.pass_obj
def ls(run: Run, /, where: str | None, limit: int | None) -> None:
    """List the images in the order they came in."""
    items = islice(run.open_collection().items(where=where), limit)
    if run.console.as_json:
        run.console.documents("items", map(asdict, items))
        return
    empty = limit != 0
    for item in items:
        run.console.say(_line(item))
        empty = False
    if empty:
        run.console.note(text_format.nothing(where))


def _line(item: "Item") -> str:
    """One image on one line; the columns are fixed, so that the list can stream."""
    area = f"{item.width}x{item.height}"
    copies = f" (+{count(len(item.paths) - 1, 'copy', 'copies')})" if len(item.paths) > 1 else ""
    text = (
        f"{item.id[:_SHORT]}  {area:>11}  {text_format.size(item.size_bytes):>7}  {item.path or '(no file)'}"
    )
    return printable("  ".join(filter(None, [text + copies, pairs(item.metadata)])))


@click.command(
    cls=Command,
    json_shape="""{"directory", "images": int, "model", "dim": int, "storage", "fingerprint", "license",
 "size_bytes": int, "bytes_per_image": int, "bytes_per_vector": int,
 "metadata": {key: type}, "created": time, "written_by"}""",
)
@click.pass_obj
def info(run: Run, /) -> None:
    """Say what the collection is and holds."""
    facts = run.open_collection().info()
    run.console.document(facts)
    rows = []
    for key, value in facts.items():
        if isinstance(value, dict):
            text = ", ".join(f"{k} ({v})" for k, v in value.items()) or "none"
        elif isinstance(value, int):
            text = text_format.size(value) if "bytes" in key else f"{value:,}"
        else:
            text = str(value)
        name = key.replace("size_bytes", "size").replace("bytes_per", "size_per").replace("_", " ")
        rows.append([name, text])
    for line in text_format.table(rows):
        run.console.say(line)


@click.command(
    cls=Command,
    json_shape="""{"exported": int, "file"}""",
    examples=("nearsight export vectors.parquet", 'nearsight export part.npz --where "width > 640"'),
)
@click.argument(
    "file",
    type=click.Path(path_type=Path),
    callback=out_file(".parquet", ".npz"),
    metavar="FILE(.parquet|.npz)",
)
@options.where
@click.pass_obj
def export(run: Run, /, file: Path, where: str | None) -> None:
    """Write the collection to a file for other tools.

    Both kinds hold vectors, ids and paths; Parquet holds sizes, times and metadata as well.
    """
    rows = run.open_collection().export(file, where=where)
    run.console.document({"exported": rows, "file": str(file)})
    run.console.say(f"{count(rows, 'image')} written to {printable(str(file))}")
