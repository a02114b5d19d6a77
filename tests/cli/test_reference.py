from pathlib import Path

import cli_reference as reference
import pytest

from nearsight.cli.main import cli

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


def test_the_page_is_in_step():
    assert PAGE.read_text(encoding="utf-8") == reference.render()


def test_check_says_when_it_is_not(tmp_path, capsys):
    file = tmp_path / "cli.md"
    assert reference.main([str(file), "--check"]) == 1
    assert "python tools/cli_reference.py" in capsys.readouterr().err
    assert reference.main([str(file)]) == 0
    assert reference.main([str(file), "--check"]) == 0
    file.write_text(file.read_text() + "more\n")
    assert reference.main([str(file), "--check"]) == 1


@pytest.mark.parametrize("name", dict(reference.leaves(cli)))
def test_every_command_and_option_is_there(name):
    _, _, rest = reference.render().partition(f"\n## {name}\n")
    section = rest.partition("\n## ")[0]
    assert "With `--json`:" in section
    for parameter in dict(reference.leaves(cli))[name].params:
        if getattr(parameter, "hidden", False):
            assert not any(f"`{word}" in section for word in parameter.opts)
            continue
        for word in parameter.opts:
            if parameter.name not in ("collection", "as_json", "quiet") and word.startswith("-"):
                assert f"`{word}" in section or f", {word}" in section


def test_every_value_has_a_name():
    text = reference.render()
    assert " None`" not in text
    assert "`--level combined\\|image\\|patch`" in text
