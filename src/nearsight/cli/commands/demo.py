"""`nearsight demo`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from nearsight.cli import options
from nearsight.cli.framework import RESUMABLE, Command, Run
from nearsight.settings import DEFAULT_DEMO

if TYPE_CHECKING:
    from nearsight.images import Exclusions


@click.command(
    cls=Command,
    json_shape="""{"report", "collection", "images": int, "embedded": int, "seconds": float,
 "images_per_second": float, "edits": [{"path", "edit", "rank": int|null, "similarity": float, "reason"}],
 "queries": [{"id", "path", "where", "hits": [{"id", "path", "similarity", "metadata"}]}],
 "failed": [{"path", "reason"}], "licenses": {name: license}, "next": [command]}""",
    examples=("nearsight demo --open", "nearsight demo ~/photos --out /tmp/my-images"),
)
@click.argument("folder", required=False, type=click.Path(), callback=options.existing_path)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    default=DEFAULT_DEMO,
    show_default=True,
    help="Folder of the report and the collection.",
)
@options.k("Number of matches of each search.", default=5)
@options.walk
@options.open_report
@options.strict
@click.pass_obj
def demo(run: Run, /, *, folder: str | None, out: Path, k: int, exclusions: "Exclusions") -> int:
    """Index images and write a report of example searches.

    Without FOLDER, the images come from installed packages (pip install 'nearsight[demo]'). Image files are
    neither copied nor changed.
    """
    from nearsight.demo.run import run_demo

    run.if_interrupted = RESUMABLE
    result = run_demo(
        folder,
        out,
        k=k,
        exclude=exclusions.patterns,
        include_hidden=exclusions.include_hidden,
        cache_dir=run.settings.cache_dir,
        progress=run.console.progress,
    )
    run.console.document(result.to_dict())
    for line in result.lines():
        run.console.say(line)
    run.present_report(result.report)
    return run.report_failures(result.added.failed, n_images=len(result.collection))
