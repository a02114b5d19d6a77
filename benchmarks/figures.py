"""Write what a benchmark measured into docs/figures.md, with the machine, the versions and the command.

A block of the page belongs to one command, and this module writes all of it:

    <!-- measured by: benchmarks.search --rows 100000 -->
    ...
    <!-- end -->

`python -m benchmarks --write` runs the command of every block and replaces what stands between the two lines.
Text outside the blocks is never touched.
"""

import datetime
import importlib.metadata
import json
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from joblib import cpu_count

PAGE = Path(__file__).parent.parent / "docs" / "figures.md"
BLOCK = re.compile(
    r"<!-- measured by: (?P<command>benchmarks\.[^\n]+?) -->\n(?P<text>.*?)<!-- end -->\n", re.DOTALL
)
PACKAGES = ("numpy", "onnxruntime", "lancedb", "pillow", "scikit-learn")


def commands(page: str) -> list[str]:
    """Return the command of each block, in the page's order."""
    return [block["command"] for block in BLOCK.finditer(page)]


def with_block(page: str, command: str, text: str) -> str:
    """Return the page with the text of one command's block replaced."""

    def replaced(block: re.Match[str]) -> str:
        if block["command"] != command:
            return block[0]
        return f"<!-- measured by: {command} -->\n{text}<!-- end -->\n"

    return BLOCK.sub(replaced, page)


def block_text(command: str, document: Mapping[str, Any] | Sequence[Any], seconds: float) -> str:
    """Return one run as Markdown: tables of what it measured, then how to repeat it."""
    tables = "\n".join(table for table in tables_of(document))
    return f"\n{tables}\n`python -m {command}` took {seconds:,.0f} s. {machine()}\n\n"


def tables_of(document: Mapping[str, Any] | Sequence[Any]) -> Iterator[str]:
    if not isinstance(document, Mapping):
        yield table_of(document)
        return
    single = {name: value for name, value in document.items() if not isinstance(value, dict | list)}
    if single:
        yield table_of([{"": name.replace("_", " "), "value": value} for name, value in single.items()])
    for name, value in document.items():
        if isinstance(value, dict):
            value = [
                {name.replace("_", " "): key, **(row if isinstance(row, dict) else {"value": row})}
                for key, row in value.items()
            ]
        if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
            yield table_of(value)
        elif isinstance(value, list):
            yield f"{name.replace('_', ' ')}: {', '.join(map(number, value))}\n"


def table_of(rows: Sequence[Mapping[str, Any]]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [
        "| " + " | ".join(name.replace("_", " ") for name in columns) + " |",
        "|" + "---|" * len(columns),
        *("| " + " | ".join(number(row.get(name)) for name in columns) + " |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def number(value: object) -> str:
    """Return a value as the page writes it: three or four digits, thousands apart.

    >>> [number(value) for value in (None, 0.98765, 1234.5, 100000, "lance", [0.1, 0.25])]
    ['–', '0.988', '1,234', '100,000', 'lance', '0.1 to 0.25']
    """
    if value is None:
        return "–"
    if isinstance(value, list) and len(value) == 2 and all(isinstance(end, int | float) for end in value):
        return f"{number(value[0])} to {number(value[1])}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return value if isinstance(value, str) else json.dumps(value)


def machine() -> str:
    """Return one line: the day, the processor, its cores, and the versions that decide the figures."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    return (
        f"{datetime.date.today():%B %Y}, {cpu_count()} cores of {processor_name()}, "
        f"Python {platform.python_version()}, {versions}."
    )


def processor_name() -> str:
    try:
        [name] = re.findall(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)[:1]
    except (OSError, ValueError):
        name = platform.processor() or platform.machine()
    return name
