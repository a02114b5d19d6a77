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
        "nearsight tag --undo",
        "nearsight ls --json | jq -r '.items[].id' | nearsight tag reviewed=true -",
    ),
)
@click.argument("words", nargs=-1, metavar="KEY=VALUE... [ID...|-]")
@options.where
@click.option(
    "--undo", is_flag=True, help="Take back the last change of metadata; values changed since stay."
)
@click.pass_obj
def tag(run: Run, /, *, words: tuple[str, ...], where: str | None, undo: bool) -> None:
    """Set metadata of images.

    With -, ids are read from standard input, one per line. An empty VALUE removes the key. If one ID is
    unknown, nothing is changed. The command counts the images whose metadata changed.
    """
    from nearsight.services.csv_tables import parse_pair
    from nearsight.services.label_sets import matching_ids, whole_ids
    from nearsight.services.metadata_changes import MetadataChanges

    if undo:
        if words or where is not None:
            raise click.UsageError("--undo takes back the last change; name neither images nor KEY=VALUE")
        undone = MetadataChanges(run.open_collection()).undo()
        n_tagged = 0 if undone is None else undone.n_changed
        run.console.document({"tagged": n_tagged})
        run.console.say(f"{count(n_tagged, 'image')} as before")
        return
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
    ids = whole_ids(collection, ids) if where is None else matching_ids(collection, where)
    n_tagged = MetadataChanges(collection).change(ids, metadata).n_changed
    run.console.document({"tagged": n_tagged})
    run.console.say(f"{count(n_tagged, 'image')} tagged")
