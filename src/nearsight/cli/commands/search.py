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
    from nearsight.collection.bridged_search import BridgedResult
    from nearsight.store import Filter


@click.command(
    cls=Command,
    json_shape="""{"hits": [{"id", "path", "similarity": float, "metadata": {}}]}
 and with --model during an upgrade also {"bridge": {"model", "recall": float, "low": float, "high": float,
 "share": float, "embedded": int}}, and "by": "model" or "bridge" in each hit""",
    examples=(
        "nearsight search photo.jpg --open",
        "nearsight search --id 3fa9c1 -k 20 --where \"width >= 640 AND path LIKE '%beach%'\"",
        'nearsight search --text "a dog on a beach" --not snow',
        'nearsight search dress.jpg --text "striped"',
        "nearsight search --id 3fa9c1 --id 77b0 --not-id 9c41 --cluster shoes",
        "nearsight search --text sunset -k 50 --paths -0 | xargs -0 cp -t sunsets/",
        "nearsight search logo.png --verify",
        "curl -s https://example.org/a.jpg | nearsight search -",
    ),
)
@click.argument("queries", metavar="[IMAGE]...", nargs=-1, type=click.Path())
@click.option("--id", "ids", metavar="ID", multiple=True, help="An image of the collection. Repeatable.")
@click.option("--text", metavar="TEXT", help="A description of the images.")
@click.option(
    "--not", "not_texts", metavar="TEXT", multiple=True, help="A description of unwanted images. Repeatable."
)
@click.option(
    "--not-id",
    "not_ids",
    metavar="ID",
    multiple=True,
    help="An image of the collection that is not wanted. Repeatable.",
)
@click.option(
    "--not-image",
    "not_images",
    metavar="FILE",
    multiple=True,
    help="A file or URL of an image that is not wanted. Repeatable.",
)
@options.k("Number of matches.")
@options.where
@click.option(
    "--cluster",
    "clusters",
    metavar="NAME|NUMBER",
    multiple=True,
    help="Search only in a cluster that `nearsight cluster` found. Repeatable.",
)
@click.option(
    "--model",
    metavar="NAME",
    help="Search by the model that an upgrade under way moves the collection to.",
)
@options.device
@click.option(
    "--verify", is_flag=True, help="Put images of the very same object first (SIFT keypoints and RANSAC)."
)
@click.option("--exact", is_flag=True, help="Compare with every image; slower in a large collection.")
@click.option("--expand", is_flag=True, help="Widen a search by images, to find more of the same kind.")
@options.allow_remote
@click.option("--paths", is_flag=True, help="Print only the paths, one per line.")
@options.null("--paths")
@options.report("search", "Write a report with thumbnails.")
@click.pass_obj
def search(
    run: Run,
    /,
    *,
    queries: tuple[str, ...],
    ids: tuple[str, ...],
    text: str | None,
    not_texts: tuple[str, ...],
    not_ids: tuple[str, ...],
    not_images: tuple[str, ...],
    k: int,
    where: str | None,
    clusters: tuple[str, ...],
    model: str | None,
    exact: bool,
    expand: bool,
    verify: bool,
    allow_remote: bool,
    paths: bool,
    null: bool,
    report: Path | None,
) -> None:
    """Find the images most similar to images or a text.

    IMAGE is a file, a URL, or - for an image on standard input. Several images stand for their mean, less a
    quarter of the mean of those that are not wanted.

    The similarity is the cosine of two vectors: 1 for the same image. Between a text and an image it is low
    even for a good match; only the order counts. With --not, or with both images and a text, it is a sum of
    standard deviations from the mean of the collection.

    --expand adds the three nearest images to the query. That finds more of a kind, not the one nearest image.

    During an upgrade, --model names the new model. Images that lack its vectors are proposed by a bridge and
    embedded now, up to 100 for one search; their vectors are kept.
    """
    if not queries and not ids and text is None:
        raise click.UsageError("name what to search for: IMAGE, --id ID or --text TEXT")
    for image in (*queries, *not_images):
        if Path(image).is_dir():
            raise BadInputError(f"{image} is a folder; name one image in it")
    if verify and expand:
        raise click.UsageError(
            "--verify puts the same object first, --expand the same kind; give one of them"
        )
    has_unwanted = bool(not_texts or not_ids or not_images)
    if verify and (text is not None or has_unwanted or len(queries) + len(ids) > 1):
        raise click.UsageError("--verify compares with one image; give one IMAGE or --id, and no text")
    if null and not paths:
        raise click.UsageError("-0 changes how --paths ends a file name; add --paths")
    if paths and run.console.as_json:
        raise click.UsageError("--paths and --json are two forms of output; give one of them")
    if model is not None and (text is not None or has_unwanted or verify or expand):
        raise click.UsageError(
            "--model compares images; leave out --text, what is not wanted, --verify and --expand"
        )
    if run.device == "auto":
        # Opening a session on a GPU takes longer than embedding one image on the processor.
        run.device = "cpu"
    collection = run.open_collection()
    images = [sys.stdin.buffer.read() if image == "-" else image for image in queries]
    condition: str | Filter | None = where
    if clusters:
        from nearsight.services.cluster_edits import cluster_condition

        condition = cluster_condition(collection, clusters, where)
    arguments: dict[str, Any] = {"k": k, "where": condition, "exact": exact, "allow_remote": allow_remote}
    bridged = None
    try:
        if model is not None:
            from nearsight.services.upgrade import search_by_model

            bridged = search_by_model(
                collection,
                model,
                images,
                ids=ids,
                device=run.device,
                cache_dir=run.settings.cache_dir,
                **arguments,
            )
            matches = bridged.matches
        elif verify:
            from nearsight.services.collections import search_verified

            matches = search_verified(collection, *images, id=ids[0] if ids else None, **arguments)
        else:
            arguments["expand"] = expand
            arguments |= {"not_text": not_texts, "not_id": not_ids, "not_query": not_images}
            matches = collection.search(images, id=ids, text=text, **arguments)
    except ImageError as error:
        if "-" not in queries or error.path in queries:
            raise
        raise ImageError("standard input", error.reason) from error
    document: dict[str, Any] = {"hits": [_hit(match) for match in matches]}
    if bridged is not None:
        from nearsight.services.upgrade import bridge_document

        for hit in document["hits"]:
            hit["by"] = "bridge" if hit["id"] in bridged.estimated else "model"
        document["bridge"] = {"model": model, **bridge_document(bridged)}
    run.console.document(document)
    if bridged is not None:
        _note_bridge(run, bridged)
    if paths:
        run.console.paths(filter(None, (match.path for match in matches)), null=null)
    else:
        _print_matches(run, matches)
    if report:
        from nearsight.reports.search import write_search

        write_search(
            report,
            collection,
            matches,
            queries=images,
            ids=ids,
            text=text,
            not_texts=not_texts,
            not_queries=not_images,
            not_ids=not_ids,
        )
        run.present_report(report)


def _hit(match: "Match") -> dict[str, Any]:
    return {"id": match.id, "path": match.path, "similarity": match.similarity, "metadata": match.metadata}


def _note_bridge(run: Run, result: "BridgedResult") -> None:
    if result.share < 1:
        run.console.note(
            f"By bridge: {result.share:.0%} of the images have vectors of this model. Expected are"
            f" {result.recall:.0%} ({result.low:.0%} to {result.high:.0%}) of its ten nearest."
            f" Embedded now: {result.n_embedded:,}."
        )
    if result.estimated:
        run.console.note(
            f"Note: {len(result.estimated):,} of the similarities are estimates, because the files are gone."
        )


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
