"""`nearsight compact`."""

import click

from nearsight import text_format
from nearsight.cli.framework import Command, Run
from nearsight.text_format import count


@click.command(
    cls=Command, json_shape="""{"images": int, "size_bytes": int, "freed_bytes": int, "seconds": float}"""
)
@click.pass_obj
def compact(run: Run) -> None:
    """Rewrite the collection into fewer and larger files.

    Only what is new since the last time is rewritten, a part at a time: a killed run loses nothing, and the
    next one goes on. The search index is built anew if it lacks some thousand images. `index` and `rm` do
    both by themselves now and then.
    """
    from nearsight.services.collections import compacted

    facts = compacted(run.open_collection())
    run.console.document(facts)
    n_freed = facts["freed_bytes"]
    change = f"{text_format.size(abs(n_freed))} {'freed' if n_freed >= 0 else 'more, for the search index'}"
    run.console.say(
        f"{count(facts['images'], 'image')} in {text_format.size(facts['size_bytes'])} ({change})"
    )
