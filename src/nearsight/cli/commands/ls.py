"""`nearsight ls`."""

from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING

import click

from nearsight import text_format
from nearsight.cli import options
from nearsight.cli.framework import Command, Run
from nearsight.text_format import SHORT_ID_DIGITS, count, pairs, printable

if TYPE_CHECKING:
    from nearsight.collection import Item


@click.command(
    cls=Command,
    json_shape="""{"items": [{"id", "path", "paths": [path], "metadata": {}, "width": int, "height": int,
            "size_bytes": int, "modified": time, "added": time, "taken": time, "camera", "lens", "lat": float,
            "lon": float, "orientation": int}]}""",
    examples=(
        "nearsight ls --where \"added > '2026-01-01'\" --limit 20",
        "nearsight ls --where \"taken >= '2025-06-01' AND camera LIKE '%iPhone%' AND lat IS NOT NULL\"",
    ),
)
@options.where
@click.option("--limit", type=click.IntRange(min=0), metavar="N", help="Maximum number of images.")
@click.pass_obj
def ls(run: Run, /, *, where: str | None, limit: int | None) -> None:
    """List the images of the collection."""
    items = islice(run.open_collection().items(where=where), limit)
    if run.console.as_json:
        run.console.documents("items", map(asdict, items))
        return
    is_empty = limit != 0
    for item in items:
        run.console.say(_line(item))
        is_empty = False
    if is_empty:
        run.console.note(text_format.nothing(where))


def _line(item: "Item") -> str:
    """Return an image on one line; the columns have fixed widths, so that the list can stream."""
    area, size = f"{item.width}x{item.height}", text_format.size(item.size_bytes)
    line = f"{item.id[:SHORT_ID_DIGITS]}  {area:>11}  {size:>7}  {item.path or '(no file)'}"
    if len(item.paths) > 1:
        line += f" (+{count(len(item.paths) - 1, 'identical file')})"
    return printable("  ".join(filter(None, [line, pairs({**item.exif(), **item.metadata})])))
