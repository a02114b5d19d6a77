"""What a benchmark measured reaches the page, and nothing else of the page changes."""

import doctest
import json
import subprocess
from types import SimpleNamespace

import pytest

from benchmarks import figures
from benchmarks.__main__ import write_page

PAGE = """# Figures

Before.

<!-- measured by: benchmarks.search --rows 10 -->
old
<!-- end -->

Between.

<!-- measured by: benchmarks.walk -->
<!-- end -->
After.
"""


def test_a_block_is_replaced_and_the_rest_stays():
    text = figures.block_text("benchmarks.walk", {"files": 250_000, "seconds": 0.5}, 3.2)
    page = figures.with_block(PAGE, "benchmarks.walk", text)
    assert "| files | 250,000 |" in page
    assert "`python -m benchmarks.walk` took 3 s." in page
    head, tail = PAGE.split("<!-- measured by: benchmarks.walk -->\n")
    assert page.startswith(head)
    assert page.endswith(tail)
    assert figures.with_block(page, "benchmarks.walk", "") == PAGE


def test_each_block_names_its_command():
    assert figures.commands(PAGE) == ["benchmarks.search --rows 10", "benchmarks.walk"]


def test_text_with_backslashes_is_written_as_it_is():
    assert r"\1 C:\new" in figures.with_block(PAGE, "benchmarks.walk", "\\1 C:\\new\n")


@pytest.mark.parametrize(
    ("document", "lines"),
    [
        ({"engines": [{"name": "lance", "p50_ms": 4.1}, {"name": "numpy", "recall": 1.0}]},
         ["| name | p50 ms | recall |", "| lance | 4.1 | – |", "| numpy | – | 1 |"]),
        ({"filters": {"0.5": {"recall": 0.991}, "0.1": {"recall": 1.0}}},
         ["| filters | recall |", "| 0.5 | 0.991 |", "| 0.1 | 1 |"]),
        ({"rates": {"small": 10.25}}, ["| rates | value |", "| small | 10.2 |"]),
        ({"rounds": [1.0, 2.0, 3.5]}, ["rounds: 1, 2, 3.5"]),
        ([{"command": "ls", "wall_s": 0.5}], ["| command | wall s |", "| ls | 0.5 |"]),
    ],
)  # fmt: skip
def test_lists_and_mappings_become_tables(document, lines):
    written = "\n".join(figures.tables_of(json.loads(json.dumps(document)))).splitlines()
    assert [line for line in written if line and not line.startswith("|---")] == lines


def test_only_the_named_commands_run_and_write_their_blocks(tmp_path, monkeypatch):
    page, ran = tmp_path / "figures.md", []
    page.write_text(PAGE, encoding="utf-8")

    def run(command, **_):
        ran.append(command[2:])
        return SimpleNamespace(stdout=b'[{"rows": 10, "p50_ms": 4.1}]')

    monkeypatch.setattr(figures, "PAGE", page)
    monkeypatch.setattr(subprocess, "run", run)
    write_page(None, "search")
    assert ran == [["benchmarks.search", "--rows", "10", "--json"]]
    written = page.read_text(encoding="utf-8")
    assert "| 10 | 4.1 |" in written
    assert "old" not in written
    assert written.endswith(PAGE[PAGE.index("Between.") :])


def test_the_examples_are_right():
    assert doctest.testmod(figures).failed == 0


def test_the_page_of_the_project_can_be_read():
    for command in figures.commands(figures.PAGE.read_text(encoding="utf-8")):
        assert command.split()[0].startswith("benchmarks.")
