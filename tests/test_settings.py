from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from nearsight.errors import InvalidParameterError
from nearsight.settings import DEFAULT_COLLECTION, Settings


def test_an_empty_environment_gives_the_defaults():
    settings = Settings.from_environment({})
    assert settings.collection == DEFAULT_COLLECTION == ".nearsight"
    assert settings.cache_dir.name == "nearsight"
    assert not settings.no_color


def test_the_environment_is_read_and_home_expanded():
    settings = Settings.from_environment({"NEARSIGHT_COLLECTION": "~/photos", "NEARSIGHT_CACHE": "/tmp/c"})
    assert settings.collection == str(Path.home() / "photos")
    assert settings.cache_dir == Path("/tmp/c")


def test_a_variable_set_to_nothing_is_unset():
    empty = {"NEARSIGHT_COLLECTION": "", "NEARSIGHT_CACHE": "", "NO_COLOR": ""}
    assert Settings.from_environment(empty) == Settings.from_environment({})


def test_a_uri_keeps_its_slashes():
    settings = Settings.from_environment({"NEARSIGHT_COLLECTION": "postgres://host/images"})
    assert settings.collection == "postgres://host/images"


@pytest.mark.parametrize("environ", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colors_can_be_refused(environ):
    assert Settings.from_environment(environ).no_color


def test_the_process_environment_is_the_default(monkeypatch):
    monkeypatch.setenv("NEARSIGHT_COLLECTION", "elsewhere")
    assert Settings.from_environment().collection == "elsewhere"


def test_settings_do_not_change():
    with pytest.raises(FrozenInstanceError):
        Settings.from_environment({}).collection = ""


def test_the_number_of_processes_is_a_number():
    read = Settings.from_environment
    assert read({}).n_processes is None
    assert read({"NEARSIGHT_PROCESSES": ""}).n_processes is None
    assert read({"NEARSIGHT_PROCESSES": "0"}).n_processes == 0
    assert read({"NEARSIGHT_PROCESSES": "12"}).n_processes == 12
    with pytest.raises(
        InvalidParameterError, match="NEARSIGHT_PROCESSES is 'all'; it must be a whole number"
    ):
        _ = read({"NEARSIGHT_PROCESSES": "all"}).n_processes
