"""`nearsight export`."""

from pathlib import Path

import click

from nearsight.cli import options
from nearsight.cli.framework import Command, Run, out_file
from nearsight.text_format import count, printable

_ENDINGS = (".parquet", ".npz", ".csv")


@click.command(
    cls=Command,
    json_shape="""{"exported": int, "file"}""",
    examples=("nearsight export vectors.parquet", 'nearsight export part.npz --where "width > 640"'),
)
@click.argument(
    "file",
    type=click.Path(path_type=Path),
    callback=out_file(*_ENDINGS),
    metavar=f"FILE({'|'.join(_ENDINGS)})",
)
@options.where
@click.pass_obj
def export(run: Run, /, *, file: Path, where: str | None) -> None:
    """Write the collection to a file for other tools.

    .npz holds vectors, ids and paths. .parquet adds image sizes, times and metadata. .csv holds paths and
    metadata, which `nearsight index --metadata` can read.
    """
    n_rows = run.open_collection().export(file, where=where)
    run.console.document({"exported": n_rows, "file": str(file)})
    run.console.say(f"{count(n_rows, 'image')} written to {printable(str(file))}")
