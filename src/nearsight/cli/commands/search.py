"""`nearsight search`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nearsight import text_format
from nearsight.cli import options
from nearsight.cli.framework import BadInputError, Command, Run
from nearsight.errors import ImageError
from nearsight.text_format import SHORT_ID_DIGITS, pairs

if TYPE_CHECKING:
    from nearsight.collection import Match


@click.command(
    cls=Command,
    json_shape="""{"hits": [{"id", "path", "similarity": float, "metadata": {}}]}""",
    examples=(
        "nearsight search photo.jpg --open",
        "nearsight search --id 3fa9c1 -k 20 --where \"width >= 640 AND path LIKE '%beach%'\"",
        'nearsight search --text "a dog on a beach" --paths',
        "nearsight search logo.png --verify",
        "curl -s https://example.org/a.jpg | nearsight search -",
    ),
)
@click.argument("image", required=False, type=click.Path())
@click.option("--id", "like_id", metavar="ID", help="Instead of IMAGE: an image of the collection.")
@click.option("--text", metavar="TEXT", help="Instead of IMAGE: a description of the images.")
@options.k("Number of matches.")
@options.where
@options.device
@click.option(
    "--verify", is_flag=True, help="Put images of the very same object first (SIFT keypoints and RANSAC)."
)
@click.option("--exact", is_flag=True, help="Compare with every image; slower in a large collection.")
@options.allow_remote
@click.option("--paths", is_flag=True, help="Print only the paths, one per line.")
@options.report("search", "Write a report with thumbnails.")
@click.pass_obj
def search(
    run: Run,
    /,
    *,
    image: str | None,
    like_id: str | None,
    text: str | None,
    k: int,
    where: str | None,
    exact: bool,
    verify: bool,
    allow_remote: bool,
    paths: bool,
    report: Path | None,
) -> None:
    """Find the images most similar to an image or a text.

    IMAGE is a file, a URL, or - for an image on standard input.

    The similarity is the cosine of two vectors: 1 for the same image. Between a text and an image it is low
    even for a good match; only the order counts.
    """
    if sum(value is not None for value in (image, like_id, text)) != 1:
        raise click.UsageError("name one thing to search for: IMAGE, --id ID or --text TEXT")
    if image is not None and Path(image).is_dir():
        raise BadInputError(f"{image} is a folder; name one image in it")
    if verify and text is not None:
        raise click.UsageError("--verify compares images, not a text; leave out --verify or --text")
    if paths and run.console.as_json:
        raise click.UsageError("--paths and --json are two forms of output; give one of them")
    if run.device == "auto":
        # Opening a session on a GPU takes longer than embedding one image on the processor.
        run.device = "cpu"
    collection = run.open_collection()
    query: Any = sys.stdin.buffer.read() if image == "-" else image
    arguments: dict[str, Any] = {
        "id": like_id,
        "k": k,
        "where": where,
        "exact": exact,
        "allow_remote": allow_remote,
    }
    try:
        if verify:
            from nearsight.services.collections import search_verified

            matches = search_verified(collection, query, **arguments)
        else:
            matches = collection.search(query, text=text, **arguments)
    except ImageError as error:
        raise ImageError("standard input" if image == "-" else error.path, error.reason) from error
    run.console.document({"hits": [_hit(match) for match in matches]})
    if paths:
        for path in filter(None, (match.path for match in matches)):
            run.console.path(path)
    else:
        _print_matches(run, matches)
    if report:
        from nearsight.reports.search import write_search

        write_search(report, collection, matches, query=query, query_id=like_id, text=text)
        run.present_report(report)


def _hit(match: "Match") -> dict[str, Any]:
    return {"id": match.id, "path": match.path, "similarity": match.similarity, "metadata": match.metadata}


def _print_matches(run: Run, matches: "list[Match]") -> None:
    if not matches:
        run.console.note("No image matches.")
        return
    rows = [
        [f"{m.similarity:.3f}", m.id[:SHORT_ID_DIGITS], m.path or "(no file)", pairs(m.metadata)]
        for m in matches
    ]
    for line in text_format.table(rows, header=("similarity", "id", "path", ""), right=(0,)):
        run.console.say(line)
