"""`nearsight keys`: add, list, revoke."""

import click

from nearsight.cli.framework import Command, Run, Subgroup
from nearsight.services.keys import SCOPES, ApiKey, KeyStore
from nearsight.services.server_settings import resolve
from nearsight.settings import environment

_data = click.option(
    "--data", metavar="DIR", help="The service's directory. Default: $NEARSIGHT_DATA, or ./nearsight-data."
)


def _store(data: str | None) -> KeyStore:
    return KeyStore(
        resolve({"data": data}, {k: v for k, v in environment().items() if k == "NEARSIGHT_DATA"}).data
    )


def _facts(key: ApiKey) -> dict[str, object]:
    return {"name": key.name, "prefix": key.prefix, "scopes": list(key.scopes), "created": key.created}


@click.command(
    cls=Command,
    json_shape="""{"key": str, "name": str, "prefix": str, "scopes": [str], "created": str}""",
    examples=("nearsight keys add page", "nearsight keys add shop --scope embed --scope read"),
)
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(SCOPES),
    default=("embed", "read", "write"),
    help="What the key allows; may be repeated. Default: embed, read and write.",
)
@_data
@click.pass_obj
def add(run: Run, /, *, name: str, scopes: tuple[str, ...], data: str | None) -> None:
    """Make a key, and print it once. Only its hash is stored."""
    key, secret = _store(data).add(name, scopes)
    run.console.document({"key": secret, **_facts(key)})
    run.console.say(secret)
    run.console.note(f"It allows {', '.join(key.scopes)}. Keep it: it is not shown again.")


@click.command(
    "list",
    cls=Command,
    json_shape="""{"keys": [{"name": str, "prefix": str, "scopes": [str], "created": str}]}""",
    examples=("nearsight keys list",),
)
@_data
@click.pass_obj
def list_(run: Run, /, *, data: str | None) -> None:
    """List the keys, by their first characters."""
    keys = _store(data).all()
    run.console.document({"keys": [_facts(key) for key in keys]})
    for key in keys:
        run.console.say(f"{key.prefix}…  {key.name}  {','.join(key.scopes)}  {key.created}")
    if not keys:
        run.console.note("There are no keys.")


@click.command(
    cls=Command, json_shape="""{"revoked": {"name": str, ...}}""", examples=("nearsight keys revoke shop",)
)
@click.argument("name")
@_data
@click.pass_obj
def revoke(run: Run, /, *, name: str, data: str | None) -> None:
    """Revoke a key by its name or first characters.

    A running service refuses it at once.
    """
    key = _store(data).revoke(name)
    run.console.document({"revoked": _facts(key)})
    run.console.say(f"{key.name} is revoked")


keys = Subgroup("keys", commands=[add, list_, revoke], help="Manage the keys of the service.")
