from dataclasses import fields

import pytest

from nearsight.cli.commands.serve import serve
from nearsight.errors import InvalidParameterError
from nearsight.services.server_settings import ServerSettings, read_file, resolve


def test_flags_come_before_the_environment_and_that_before_the_file():
    file = {"port": 1, "queue": 2, "grace_s": 3}
    settings = resolve({"port": 7, "queue": None}, {"NEARSIGHT_QUEUE": "8", "NEARSIGHT_PORT": "9"}, file)
    assert (settings.port, settings.queue, settings.grace_s) == (7, 8, 3.0)


def test_lists_and_booleans():
    settings = resolve({"model": ()}, {"NEARSIGHT_MODEL": "a=x, b=y=z", "NEARSIGHT_ALLOW_URLS": "yes"})
    assert settings.pairs("model") == {"a": "x", "b": "y=z"}
    assert settings.allow_urls
    assert resolve({}, {}, {"root": ["a=/b"]}).pairs("root") == {"a": "/b"}


def test_secrets_may_be_in_files(tmp_path):
    (tmp_path / "key").write_text("ns_secret\n")
    assert resolve({}, {"NEARSIGHT_API_KEY_FILE": str(tmp_path / "key")}).api_key == "ns_secret"
    with pytest.raises(InvalidParameterError, match="NEARSIGHT_API_KEY_FILE"):
        resolve({}, {"NEARSIGHT_API_KEY_FILE": str(tmp_path / "none")})


def test_toml_is_read(tmp_path):
    file = tmp_path / "settings.toml"
    file.write_text('port = 9000\nmodel = ["default=efficientnet-lite0"]\n')
    assert resolve({}, {}, read_file(file)).port == 9000
    file.write_text("port = ")
    with pytest.raises(InvalidParameterError, match="TOML"):
        read_file(file)


@pytest.mark.parametrize(
    "file",
    [
        {"prot": 1},
        {"port": "x"},
        {"port": 1.5},
        {"port": True},
        {"port": 70000},
        {"port": -1},
        {"queue": 0},
        {"model": ["default"]},
        {"model": ["a/b=c"]},
        {"model": ["a=b", "a=c"]},
        {"model": 3},
        {"allow_urls": "perhaps"},
        {"log_format": "xml"},
    ],
)
def test_bad_settings_are_refused_by_name(file):
    with pytest.raises(InvalidParameterError, match=next(iter(file))):
        resolve({}, {}, file)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("a.b", False),
    ],
)
def test_loopback_is_known(host, expected):
    assert ServerSettings(host=host).is_on_loopback is expected


def test_every_setting_is_a_flag_but_secrets():
    flags = {parameter.name for parameter in serve.params}
    names = {each.name for each in fields(ServerSettings)}
    assert names - flags == {"api_key"}
