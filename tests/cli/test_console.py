import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearsight.cli import console as console_module
from nearsight.cli.console import Console

# Any text a file name can become, bytes that are not UTF-8 included.
NAMES = st.binary().map(lambda b: b.decode("utf-8", "surrogateescape"))


JSON_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | NAMES | st.datetimes(),
    lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner),
    max_leaves=10,
)


@given(JSON_LIKE)
def test_any_value_becomes_json_in_ascii(value):
    text = console_module._dumps(value)
    assert text.isascii()
    assert "NaN" not in text
    assert "Infinity" not in text
    json.loads(text)


@given(NAMES)
def test_a_name_survives_json(name):
    assert json.loads(console_module._dumps(name)) == name


class Terminal(io.TextIOWrapper):
    def __init__(self, encoding, tty=False):
        super().__init__(io.BytesIO(), encoding=encoding)
        self.tty = tty

    def isatty(self):
        return self.tty

    def text(self):
        self.flush()
        return self.buffer.getvalue().decode(self.encoding)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_no_encoding_of_stdout_ends_the_command(monkeypatch, encoding):
    stdout = Terminal(encoding)
    monkeypatch.setattr("sys.stdout", stdout)
    Console().say("naïve 猫 \udcff")
    text = stdout.text()
    assert text.startswith("na")
    assert text.endswith("\n")


@pytest.mark.parametrize(
    ("tty", "color", "expected"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_colors_only_where_wanted(monkeypatch, tty, color, expected):
    stdout = Terminal("utf-8", tty)
    monkeypatch.setattr("sys.stdout", stdout)
    Console(color=color).say("fine", fg="green")
    assert ("\x1b[" in stdout.text()) is expected


def test_json_silences_the_prose_and_quiet_the_remarks(capsys):
    console = Console(as_json=True, quiet=True)
    console.say("for people")
    console.note("by the way")
    console.warn("beware")
    console.document({"a": 1})
    captured = capsys.readouterr()
    assert captured.out == '{"schema": 1, "a": 1}\n'
    assert captured.err == "beware\n"


def test_a_stream_of_documents_is_one_document(capsys):
    console = Console(as_json=True)
    assert console.documents("items", ({"n": n} for n in range(3))) == 3
    assert json.loads(capsys.readouterr().out) == {"schema": 1, "items": [{"n": 0}, {"n": 1}, {"n": 2}]}
    assert console.documents("items", []) == 0
    assert json.loads(capsys.readouterr().out) == {"schema": 1, "items": []}


def test_a_stream_that_breaks_prints_nothing(capsys):
    def items():
        yield {"n": 0}
        raise OSError("the disk went away")

    with pytest.raises(OSError, match="went away"):
        Console(as_json=True).documents("items", items())
    assert capsys.readouterr().out == ""


def test_what_goes_wrong_after_the_answer_is_no_second_document(capsys):
    console = Console(as_json=True)
    console.document({"groups": []})
    console.error("StorageError", "the page could not be written")
    out, err = capsys.readouterr()
    assert json.loads(out) == {"schema": 1, "groups": []}
    assert "could not be written" in err


def test_a_name_with_a_line_break_is_not_deleted_as_two(capsysbinary):
    console, names = Console(), ["a.jpg", "b\n.jpg", "c\r.jpg", "\udce9.jpg"]
    console.paths(names, to_delete=True)
    out, err = capsysbinary.readouterr()
    assert out == b"a.jpg\n\xe9.jpg\n"
    assert b"2 file names with a line break not listed" in err
    console.paths(names)
    out, err = capsysbinary.readouterr()
    assert out == b"a.jpg\nb\n.jpg\nc\r.jpg\n\xe9.jpg\n"
    assert b"2 file names with a line break listed" in err
    console.paths(["b\n.jpg", "c.jpg"], null=True, to_delete=True)
    assert capsysbinary.readouterr() == (b"b\n.jpg\0c.jpg\0", b"")
