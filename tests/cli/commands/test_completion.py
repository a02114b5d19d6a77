import subprocess
import sys

import pytest


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(nearsight, shell):
    document = nearsight.json("completion", shell)
    assert document["shell"] == shell
    assert "_NEARSIGHT_COMPLETE" in document["script"]
    assert nearsight("completion", shell).stdout.strip() == document["script"].strip()


def test_completion_of_an_unknown_shell(nearsight):
    assert nearsight.json("completion", "tcsh", code=2)["error"]["type"] == "UsageError"


def test_completion_suggests_models():
    program = [sys.executable, "-c", "from nearsight.cli.main import cli; cli(prog_name='nearsight')"]
    env = {
        "_NEARSIGHT_COMPLETE": "zsh_complete",
        "COMP_WORDS": "nearsight index --model eff",
        "COMP_CWORD": "3",
        "PATH": "/usr/bin:/bin",
    }
    done = subprocess.run(program, capture_output=True, text=True, env=env, check=True)
    assert "efficientnet-lite0" in done.stdout.splitlines()
