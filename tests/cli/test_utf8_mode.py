"""Every command in a locale without UTF-8, with names and labels that ASCII lacks."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from nearsight.cli.framework import Family
from nearsight.cli.main import cli

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has UTF-8 names in every locale")

NO_UTF8 = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
FOLDER, COLLECTION, LABEL = "fotos/Été", "sammlung-é", "Grün☃"


# Runs one command line after the other, in the mode that the command line starts itself in.
COMMANDS = """
import json, os, sys, traceback
from nearsight.cli import utf8_mode
utf8_mode.enter()
from nearsight.cli.main import cli
answers = os.fdopen(os.dup(1), "w")
for line in sys.stdin:
    words, out, err = json.loads(line)
    for number, name in enumerate((out, err), 1):
        with open(name, "wb") as file:
            os.dup2(file.fileno(), number)
    code = 0
    try:
        cli(words)
    except SystemExit as error:
        code = error.code
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    print(json.dumps(code), file=answers, flush=True)
"""


class Place:
    """A folder of images with names that ASCII lacks, and command lines in it.

    All are run by one process: to start one for each would take most of the time.
    """

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder = folder
        self.env = {**os.environ, **NO_UTF8, "NEARSIGHT_CACHE": str(cache)}
        self.env["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        self.env["NEARSIGHT_COLLECTION"] = COLLECTION
        self.process = subprocess.Popen(
            [sys.executable, "-c", COMMANDS],
            cwd=folder,
            env=self.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="ascii",
        )

    def __call__(self, *words: str) -> "subprocess.CompletedProcess[bytes]":
        assert self.process.stdin
        assert self.process.stdout
        # Bytes: what the commands print need not be text.
        out, err = self.folder.with_name("stdout"), self.folder.with_name("stderr")
        self.process.stdin.write(json.dumps([words, str(out), str(err)]) + "\n")
        self.process.stdin.flush()
        code = json.loads(self.process.stdout.readline())
        return checked(subprocess.CompletedProcess(list(words), code, out.read_bytes(), err.read_bytes()))

    def alone(self, *words: str) -> "subprocess.CompletedProcess[bytes]":
        """Run a command line by a process of its own."""
        command = [sys.executable, "-m", "nearsight", *words]
        return checked(
            subprocess.run(command, cwd=self.folder, env=self.env, capture_output=True, check=False)
        )


def checked(done: "subprocess.CompletedProcess[bytes]") -> "subprocess.CompletedProcess[bytes]":
    assert b"Traceback" not in done.stderr, done.stderr.decode(errors="replace")
    assert b"is a bug" not in done.stderr + done.stdout
    return done


@pytest.fixture(scope="module")
def place(tmp_path_factory, save_image, cache) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("ort-ß☃") / "hier-ß"
    for number, name in enumerate((FOLDER, "fotos/ähm")):
        (folder / name).mkdir(parents=True)
        for seed in range(10):
            save_image(folder / name / f"süß☃{seed}.png", seed + 10 * number)
    rows = [f"{name}/süß☃{seed}.png,{LABEL}{name}" for name in (FOLDER, "fotos/ähm") for seed in range(10)]
    (folder / "schätze.csv").write_text("\n".join(["path,label", *rows]) + "\n", encoding="utf-8")
    lines = [f"Käufer{n % 7},süß☃{n % 10}.png" for n in range(40)]
    (folder / "käufe.csv").write_text("\n".join(["customer,image", *lines]) + "\n", encoding="utf-8")
    (folder / "körbe.csv").write_text(
        "\n".join(["basket,item", *(f"{n % 15},süß☃{n % 10}.png" for n in range(40))]), encoding="utf-8"
    )
    place = Place(folder, cache)
    done = place.alone("index", "fotos", "--meta", f"ort={LABEL}", "--metadata", "schätze.csv")
    assert done.returncode == 0, done.stderr
    with place.process:
        yield place


@pytest.mark.slow
def test_names_and_metadata_are_those_of_a_utf8_locale(place: Place) -> None:
    done = place("ls", "--json", "--where", f"ort = '{LABEL}'")
    items = json.loads(done.stdout)["items"]
    assert len(items) == 20
    assert items[0]["path"] == str(place.folder / FOLDER / "süß☃0.png")
    assert {item["metadata"]["ort"] for item in items} == {LABEL}
    table = place.alone("ls", "--limit", "1").stdout.decode()
    assert "süß☃0.png" in table
    assert LABEL in table
    # A UTF-8 locale sees the same files.
    utf8 = {**place.env, "LC_ALL": "C.UTF-8", "PYTHONUTF8": "1"}
    words = [sys.executable, "-m", "nearsight", "index", "fotos", "--json"]
    again = subprocess.run(words, cwd=place.folder, env=utf8, capture_output=True, check=True)
    assert json.loads(again.stdout)["unchanged"] == 20


def test_the_library_stores_the_same_names_in_any_locale(tmp_path: Path) -> None:
    program = (
        "import os, sys; from nearsight.images import decode_path, encode_path\n"
        "name = os.fsdecode(b'\\xc3\\xa9\\xe2\\x98\\x83\\xff'); stored = encode_path(name)\n"
        "assert decode_path(stored) == name; sys.stdout.buffer.write(stored.encode())"
    )
    env = {**os.environ, **NO_UTF8, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, check=True)
    assert done.stdout.decode() == "é☃\uefff"


# What each command is tried with; where nothing is listed, every argument is a name that ASCII lacks.
WORDS = {
    "index": [["fotos"], ["nichts-é"], ["fotos", "--dim", "4", "-c", "kurz-é"]],
    "search": [
        [f"{FOLDER}/süß☃1.png"],
        [f"{FOLDER}/süß☃1.png", "--paths"],
        [f"{FOLDER}/süß☃1.png", "--html", "süche.html"],
        ["--text", "grün"],
    ],
    "duplicates": [[], ["--html", "dublétten.html"]],
    "cluster": [["--k", "2", "--html", "grüppen.html", "--words", "Grün,Süß"]],
    "segment-customers": [["käufe.csv", "--k", "2", "--html", "kündén.html"]],
    "classify fit": [["--labels", "schätze.csv"], ["--labels", "folder", "--to", "klässen.npz"]],
    "classify predict": [[FOLDER], [FOLDER, "--names", "Grün,Süß", "--html", "klässen.html"]],
    "classify suggest": [["--out", "vorschläge.csv"]],
    "recommend": [["süß☃1"], [f"{FOLDER}/süß☃1.png", "--baskets", "körbe.csv"]],
    "anomaly fit": [[FOLDER, "--to", "gut-é.npz", "--false-alarm-rate", "0.3"]],
    "anomaly score": [["--from", "gut-é.npz", "fotos/ähm", "--heatmaps", "wärme", "--html", "fehler-é.html"]],
    "anomaly rank": [[]],
    "map": [["--html", "kärte.html", "--method", "pca", "--color", "ort"]],
    "ls": [[], ["--where", "path LIKE '%süß%'"]],
    "info": [[]],
    "tag": [[f"art={LABEL}", "--where", f"ort = '{LABEL}'"]],
    "rm": [["--where", "path LIKE '%süß☃9%'", "--yes"]],
    "compact": [[]],
    "reduce-dim": [["--dim", "4", "--out", "klein-é"]],
    "export": [["täbelle.csv"], ["täbelle.parquet"], ["täbelle.npz"]],
    "embed": [["fotos", "--out", "vektoren-é.npz"]],
    "faces identify": [[FOLDER]],
    "faces group": [[FOLDER]],
    "models": [[], ["mödell"]],
    "doctor": [[]],
    "demo": [["--help"]],
    # Without a key, the service refuses to be reached from elsewhere: else it would run for ever.
    "serve": [["--host", "0.0.0.0"]],
    "completion": [["bash"]],
    "help": [[], ["häuser"]],
}


def commands(group: click.Command, *words: str) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(group, click.Group):
        yield " ".join(words), group
        return
    if isinstance(group, Family):
        yield " ".join(words), group.own
    for name, command in group.commands.items():
        yield from commands(command, *words, name)


def words_for(name: str, command: click.Command) -> list[list[str]]:
    if name in WORDS:
        return WORDS[name]
    required = [p for p in command.params if p.required or isinstance(p, click.Argument)]
    words = [[p.opts[0], "é☃"] if isinstance(p, click.Option) else ["é☃"] for p in required]
    return [[word for pair in words for word in pair]]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "command"), [pytest.param(n, c, id=n) for n, c in commands(cli)])
def test_no_command_ends_in_a_traceback(place: Place, name: str, command: click.Command) -> None:
    for position, words in enumerate(words_for(name, command)):
        for form in ([], ["--json"]) if position == 0 else ([],):
            done = place(*name.split(), *words, *form)
            assert done.returncode in (0, 2), done.stderr.decode(errors="replace")
            done.stderr.decode()
            if form and "--help" not in words:
                assert isinstance(json.loads(done.stdout), dict)
