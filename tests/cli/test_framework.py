import json
import os
import re
import signal
import subprocess
import sys
import time

import click
import pytest
from cli_reference import leaves
from click.testing import CliRunner

from nearsight.cli.console import Console
from nearsight.cli.framework import Command, Run
from nearsight.cli.main import cli
from nearsight.errors import ImageError, StorageError
from nearsight.settings import Settings

# What the installed script does.
PROGRAM = [sys.executable, "-c", "from nearsight.cli.main import main; main()"]


def environment(cli):
    return {**os.environ, **{name: value for name, value in cli.env.items() if value}}


@pytest.mark.parametrize("name", dict(leaves(cli)))
def test_every_command_has_the_shared_options_and_a_documented_answer(name):
    command = dict(leaves(cli))[name]
    assert isinstance(command, Command)
    assert {"collection", "as_json", "quiet"} <= {p.name for p in command.params}
    assert command.json_shape.startswith("{")
    assert len((command.help or "").splitlines()[0]) <= 55
    assert all(isinstance(p, click.Argument) or p.hidden or p.help for p in command.params)
    text = CliRunner().invoke(cli, [*name.split(), "--help"]).stdout
    assert "With --json" in text


@pytest.mark.parametrize(
    "words",
    [["--json", "ls"], ["ls", "--json"], ["-c", "{}", "--json", "ls"], ["ls", "-c", "{}", "--json"]],
)
def test_shared_options_work_on_both_sides(indexed, words):
    env = indexed.env if "{}" not in words else {**indexed.env, "NEARSIGHT_COLLECTION": "/nowhere"}
    words = [word.format(indexed.collection) for word in words]
    result = CliRunner(env=env).invoke(cli, words)
    assert result.exit_code == 0, result.stderr
    assert len(json.loads(result.stdout)["items"]) == 6


@pytest.mark.parametrize(
    "words", [["--bogus"], ["bogus"], ["ls", "--bogus"], ["index"], ["search", "-k", "x", "y"]]
)
def test_bad_usage_is_told_on_the_right_stream(nearsight, words):
    plain = nearsight(*words, code=2)
    assert plain.stdout == ""
    assert "Usage:" in plain.stderr
    told = nearsight.json(*words, code=2)
    assert told["error"]["type"] == "UsageError"
    assert told["error"]["message"]


def test_a_json_after_the_double_dash_is_a_file_name(nearsight):
    result = nearsight("index", "--", "--json", code=2)
    assert result.stdout == ""
    assert "there is nothing at --json" in result.stderr


def test_the_bare_command_prints_its_help(nearsight):
    result = nearsight()
    assert result.stdout.startswith("Usage: ")
    assert result.stdout == nearsight("--help").stdout == nearsight("help").stdout


@pytest.mark.parametrize(
    ("words", "suggestion"),
    [(["serach"], "'search'"), (["classify", "fti"], "'fit'"), (["help", "serach"], "'search'")],
)
def test_a_misspelled_command_is_corrected(nearsight, words, suggestion):
    message = nearsight.json(*words, code=2)["error"]["message"]
    assert f"did you mean {suggestion}?" in message


def test_an_unreadable_image_is_a_failure_only_when_strict(nearsight, tmp_path, save_image):
    save_image(tmp_path / "good.png", 1)
    (tmp_path / "bad.jpg").write_text("text")
    assert len(nearsight.json("index", tmp_path / "good.png", tmp_path / "bad.jpg")["failed"]) == 1
    assert len(nearsight.json("index", tmp_path / "bad.jpg", "--strict", code=1)["failed"]) == 1


@pytest.fixture
def one_command(monkeypatch):
    """Add a command to the real group that does what a test wants."""

    def add(work):
        command = Command("probe", callback=click.pass_obj(work), json_shape="{}")
        monkeypatch.setitem(cli.commands, "probe", command)

    return add


@pytest.mark.parametrize(
    ("error", "code", "kind"),
    [
        (StorageError("the disk is full"), 1, "StorageError"),
        (ImageError("a.jpg", "is empty"), 2, "ImageError"),
        (PermissionError(13, "Permission denied"), 1, "PermissionError"),
        (ZeroDivisionError("oops"), 1, "ZeroDivisionError"),
        (KeyboardInterrupt(), 130, "Interrupted"),
        (click.Abort(), 1, "Abort"),
    ],
)
def test_every_end_has_its_exit_code(nearsight, one_command, error, code, kind):
    def work(run: Run):
        raise error

    one_command(work)
    assert nearsight.json("probe", code=code)["error"]["type"] == kind
    plain = nearsight("probe", code=code)
    assert plain.stdout == ""
    assert plain.stderr


def test_a_missing_collection_is_created_by_a_command(nearsight):
    message = nearsight.json("info", code=2)["error"]["message"]
    assert message.endswith(f"create one with: nearsight index PATH -c {nearsight.collection}")
    assert "Collection.create" not in message


def test_warnings_become_notes(nearsight, one_command):
    import warnings

    one_command(lambda run: warnings.warn("a plugin is broken", UserWarning, stacklevel=1))
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert nearsight("probe").stderr == "Note: a plugin is broken\n"


def test_a_library_that_prints_does_not_spoil_the_document(nearsight, one_command):
    def work(run: Run):
        print("look at me")
        run.console.document({"fine": True})

    one_command(work)
    result = nearsight("probe", "--json")
    assert json.loads(result.stdout) == {"schema": 1, "fine": True}
    assert result.stderr == "look at me\n"


def test_a_closed_pipe_is_quiet(indexed):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*PROGRAM, "ls"],
        stdout=write,
        stderr=subprocess.PIPE,
        env=environment(indexed),
        timeout=60,
    )
    os.close(write)
    assert done.stderr == b""
    assert done.returncode == 141


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
@pytest.mark.parametrize("words", [["ls"], ["ls", "--json"], ["search", "PHOTO"]])
def test_hostile_names_in_any_locale(indexed, photos, encoding, words, strange):
    env = {
        **os.environ,
        **{k: v for k, v in indexed.env.items() if v},
        "PYTHONIOENCODING": f"{encoding}:strict",
    }
    words = [str(photos / strange) if word == "PHOTO" else word for word in words]
    done = subprocess.run([*PROGRAM, *words], capture_output=True, env=env, timeout=120)
    assert done.returncode == 0, done.stderr
    assert b"\xe9" not in done.stdout
    if "--json" in words:
        paths = [item["path"] for item in json.loads(done.stdout)["items"]]
        assert os.fsencode(photos / strange) in map(os.fsencode, paths)
    else:
        assert rb"caf\xe9\nnew line.png" in done.stdout


# Enough to be at work for a second or more on one thread.
N_IMAGES = 250


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_finished(tmp_path, nearsight, save_image):
    folder = tmp_path / "many"
    folder.mkdir()
    for seed in range(N_IMAGES):
        save_image(folder / f"{seed}.png", seed, (64, 64))
    process = subprocess.Popen(
        [*PROGRAM, "index", folder, "--threads", "1"],
        stderr=subprocess.PIPE,
        env=environment(nearsight),
        text=True,
        # Whoever runs the tests in the background may have it ignored, and programs inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while process.poll() is None and not (nearsight.collection / "collection.json").exists():
        time.sleep(0.02)
    time.sleep(0.4)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert "the same command continues from there" in told
    assert "Traceback" not in told
    saved = len(nearsight.json("ls")["items"])
    report = nearsight.json("index", folder)
    assert report["unchanged"] == saved
    assert report["added"] == N_IMAGES - saved


def test_ctrl_c_while_a_library_loads_is_no_fault(nearsight, one_command):
    def work(run: Run):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as interrupt:
            raise ImportError("initialization failed") from interrupt

    one_command(work)
    assert "please report" not in nearsight("probe", code=130).stderr


def test_permission_denied_names_the_file_and_the_way_out(nearsight, one_command):
    def work(run: Run):
        raise PermissionError(13, "Permission denied", "/a/write.lock")

    one_command(work)
    assert "/a/write.lock: permission denied; check who owns it" in nearsight("probe", code=1).stderr


def test_an_error_of_the_system_names_the_file_without_a_number(nearsight, one_command):
    def work(run: Run):
        raise FileNotFoundError(2, "No such file or directory", "/proc/a")

    one_command(work)
    assert "Error: /proc/a: No such file or directory\n" in nearsight("probe", code=1).stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("words", ["ls", "ls --json"])
@pytest.mark.parametrize(("stdout", "code"), [(">/dev/full", 1), (">&-", 0)])
def test_a_stdout_that_takes_nothing(indexed, words, stdout, code):
    line = f'"$0" -c "$1" {words} {stdout}'
    done = subprocess.run(
        ["sh", "-c", line, PROGRAM[0], PROGRAM[2]],
        stderr=subprocess.PIPE,
        env=environment(indexed),
        timeout=60,
    )
    assert (done.returncode, b"Traceback" in done.stderr) == (code, False), done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="the current folder cannot be removed")
def test_a_current_folder_that_was_removed(nearsight, photos, tmp_path):
    folder = tmp_path / "gone"
    folder.mkdir()
    command = f'rmdir "{folder}"; exec "$@" -c relative index "{photos}"'
    words = ["sh", "-c", command, "sh", *PROGRAM]
    result = subprocess.run(words, cwd=folder, env=environment(nearsight), capture_output=True, text=True)
    assert result.returncode == 1
    assert "Error: the current folder was removed; change to one that exists" in result.stderr


def test_the_help_lists_every_command_once_by_section(nearsight):
    shown = nearsight("--help").stdout
    sections = ("Collections:", "Analyses:", "Models:", "Service and large jobs:", "Help:")
    places = [shown.index(f"\n{title}\n") for title in sections]
    assert places == sorted(places)
    listed = re.findall(r"^  ([a-z][a-z-]*)  +[A-Z]", shown[places[0] :], re.MULTILINE)
    assert listed == list(cli.commands)


def test_a_command_that_is_told_names_the_collection_where_it_is_not_the_usual_one():
    settings = Settings.from_environment({"NEARSIGHT_COLLECTION": "photos"})
    of_settings = Run(settings, Console(), "photos")
    assert of_settings.command("upgrade", "--commit") == "nearsight upgrade --commit"
    named = Run(settings, Console(), "my shop")
    assert named.command("upgrade", "--commit") == "nearsight upgrade -c 'my shop' --commit"
