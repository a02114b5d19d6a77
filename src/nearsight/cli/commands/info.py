"""`nearsight info`."""

from typing import Any

import click

from nearsight import text_format
from nearsight.cli.framework import Command, Run


@click.command(
    cls=Command,
    json_shape="""{"directory", "images": int, "model", "dim": int, "storage", "fingerprint", "decode",
 "license", "size_bytes": int, "bytes_per_image": int, "bytes_per_vector": int,
 "metadata": {key: type}, "created": time, "written_by"}""",
)
@click.pass_obj
def info(run: Run) -> None:
    """Describe the collection: model, size and metadata."""
    facts = run.open_collection().info()
    run.console.document(facts)
    for line in text_format.table([[_label(key), _value(key, value)] for key, value in facts.items()]):
        run.console.say(line)


def _label(key: str) -> str:
    return key.replace("size_bytes", "size").replace("bytes_per", "size_per").replace("_", " ")


def _value(key: str, value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} ({kind})" for name, kind in value.items()) or "none"
    if isinstance(value, int):
        return text_format.size(value) if "bytes" in key else f"{value:,}"
    return str(value)
