"""Whatever the command line does has a route, or stands with its reason in the table of the documentation."""

import re
from pathlib import Path

import pytest

from nearsight.cli.main import cli

ROOT = Path(__file__).parents[2]
TABLE = re.compile(r"^\| `([a-z -]+)` \| (.+) \|$", re.MULTILINE)
ROUTE = re.compile(r"`([A-Z]+) ([^`]+)`")


def commands(command, words=()):
    """Yield the words of each command; the first word of a family may be one by itself."""
    members = getattr(command, "commands", None)
    if members is None or hasattr(command, "own"):
        yield " ".join(words)
    for name, member in (members or {}).items():
        yield from commands(member, (*words, name))


@pytest.fixture(scope="module")
def table():
    rows = TABLE.findall((ROOT / "docs" / "reference" / "service.md").read_text())
    assert len({command for command, _ in rows}) == len(rows)
    return dict(rows)


def test_each_command_is_in_the_table(table):
    assert set(table) == set(commands(cli))


def test_the_table_names_routes_that_there_are(table, client):
    paths = client.get("/openapi.json").json()["paths"]
    known = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    for command, text in table.items():
        routes = {
            (method, re.sub(r"^C(?=/|$)", "/v1/collections/{name}", path))
            for method, path in ROUTE.findall(text)
        }
        if text.startswith("none: "):
            assert len(text) > len("none: ")
        else:
            assert routes, command
            assert routes <= known, command
    without = [command for command, text in table.items() if text.startswith("none: ")]
    assert without == ["serve", "keys add", "keys list", "keys revoke", "demo", "completion", "help"]
