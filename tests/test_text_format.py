import math
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nearsight import text_format
from nearsight.text_format import ShortRepr, plain, printable

# Any text a file name can become, bytes that are not UTF-8 included.
NAMES = st.binary().map(lambda b: b.decode("utf-8", "surrogateescape"))


@given(NAMES)
def test_a_printable_name_is_one_harmless_line(name):
    shown = printable(name)
    assert shown.isprintable()
    shown.encode("utf-8")


@given(st.text(st.characters(categories=["L", "N"])))
def test_a_harmless_name_is_shown_as_it_is(name):
    assert printable(name) == name


def test_prose_keeps_its_lines_and_nothing_else():
    assert printable("a\nb\x1b[2J", keep="\n") == "a\nb\\x1b[2J"


def test_values_that_json_lacks():
    zone = timezone(timedelta(hours=2))
    moment = datetime(2026, 3, 1, 12, 0, 0, 5000, tzinfo=zone)
    assert plain([moment, math.nan, np.float32(0.5), np.arange(2), b"\x01"]) == [
        "2026-03-01T10:00:00.005Z",
        None,
        0.5,
        [0, 1],
        "01",
    ]


def test_tables_align_by_cells_and_not_by_characters():
    lines = text_format.table([["猫", "1"], ["dog", "22"]], header=("name", "n"), right=(1,))
    assert lines == ["name   n", "猫     1", "dog   22"]
    assert text_format.table([]) == []


def test_a_table_shows_no_raw_control_characters():
    [line] = text_format.table([["a\nb", "\x1b[31m"]])
    assert line == r"a\nb  \x1b[31m"


@dataclass(frozen=True, slots=True, repr=False)
class Found(ShortRepr):
    ids: list[str]
    by_path: dict[str, int]
    share: float = 0.5


def test_a_result_shows_the_beginning_of_what_is_long():
    assert repr(Found(["a", "b"], {})) == "Found(ids=['a', 'b'], by_path={}, share=0.5)"
    long = repr(Found([str(n) for n in range(2000)], {str(n): n for n in range(5)}))
    assert long == (
        "Found(ids=['0', '1', '2', ... 2,000 in all], "
        "by_path={'0': 0, '1': 1, '2': 2, ... 5 in all}, share=0.5)"
    )


def test_metadata_on_one_line():
    assert (
        text_format.pairs({"year": 2024, "place": "north wing", "gone": None})
        == 'year=2024 place="north wing"'
    )
