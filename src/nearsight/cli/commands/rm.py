"""`nearsight rm`."""

import click

from nearsight.cli import options
from nearsight.cli.framework import FAILURE, BadInputError, Command, Run
from nearsight.text_format import count


@click.command(
    cls=Command,
    json_shape="""{"removed": int}""",
    examples=("nearsight rm 3fa9c1d2 77b0", "nearsight rm --where \"path LIKE '%/trash/%'\" --yes"),
)
@click.argument("ids", nargs=-1, metavar="[ID...]")
@options.where
@options.yes
@click.pass_obj
def rm(run: Run, /, *, ids: tuple[str, ...], where: str | None, yes: bool) -> int:
    """Remove images from the collection.

    The image files stay on disk. If one ID is unknown, nothing is removed. With --where, the command asks
    for confirmation.
    """
    if bool(ids) == (where is not None):
        raise click.UsageError("name the images to remove: either ID... or --where EXPR")
    collection = run.open_collection()
    if where is not None and not yes:
        n_matches = count(collection.count(where), "image")
        if not options.is_interactive():
            raise BadInputError(f"{n_matches} would be removed; add --yes to confirm")
        if not click.confirm(f"Remove {n_matches} from {run.shown_collection}?", err=True):
            run.console.note("Nothing was removed.")
            run.console.document({"removed": 0})
            return FAILURE
    n_removed = collection.remove(ids, where=where)
    run.console.document({"removed": n_removed})
    run.console.say(f"{count(n_removed, 'image')} removed")
    return 0
