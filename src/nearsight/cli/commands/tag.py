"""`nearsight tag`."""

import sys
from typing import Any

import click

from nearsight.cli import options
from nearsight.cli.framework import Command, Run
from nearsight.text_format import count


@click.command(
    cls=Command,
    json_shape="""{"tagged": int}""",
    examples=(
        "nearsight tag season=winter year=2024 3fa9c1d2 77b0",
        "nearsight tag reviewed=true --where \"path LIKE '%/2024/%'\"",
        "nearsight ls --json | jq -r '.items[].id' | nearsight tag reviewed=true -",
    ),
)
@click.argument("words", nargs=-1, required=True, metavar="KEY=VALUE... [ID...|-]")
@options.where
@click.pass_obj
def tag(run: Run, /, *, words: tuple[str, ...], where: str | None) -> None:
    """Set metadata of images.

    With -, ids are read from standard input, one per line. An empty VALUE removes the key. If one ID is
    unknown, nothing is changed. The command counts the images whose metadata changed.
    """
    from nearsight.services.csv_tables import parse_pair

    metadata: dict[str, Any] = {}
    ids: list[str] = []
    for word in words:
        if "=" in word:
            key, value = parse_pair(word)
            metadata[key] = None if word.endswith("=") else value
        else:
            ids += sys.stdin.read().split() if word == "-" else [word]
    names_ids = any("=" not in word for word in words)
    if not metadata:
        raise click.UsageError("name what to set: KEY=VALUE, such as season=winter")
    if names_ids == (where is not None):
        raise click.UsageError("name the images to tag: either ID..., - or --where EXPR")
    collection = run.open_collection()
    if where is not None:
        ids = [item.id for item in collection.items(where)]
    n_tagged = collection.update_metadata(ids, metadata)
    run.console.document({"tagged": n_tagged})
    run.console.say(f"{count(n_tagged, 'image')} tagged")
