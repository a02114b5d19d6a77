"""The examples of deployment say what the service understands."""

import re
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from nearsight.services.server_settings import ServerSettings, resolve

DEPLOY = Path(__file__).parents[1] / "deploy"
FILES = sorted(path.name for path in DEPLOY.iterdir())


@pytest.mark.parametrize("name", FILES)
def test_every_variable_is_a_setting(name):
    known = {f"NEARSIGHT_{field.name.upper()}" for field in fields(ServerSettings)}
    known |= {f"{variable}_FILE" for variable in known} | {"NEARSIGHT_CACHE"}
    used = set(re.findall(r"NEARSIGHT_[A-Z_]+", (DEPLOY / name).read_text()))
    assert used <= known
    assert used or name == "README.md"


def test_the_image_runs_as_nobody_and_can_be_watched_and_stopped():
    text = (DEPLOY / "Dockerfile").read_text()
    last = text[text.rindex("FROM") :]
    for line in (
        "USER 10001",
        "HEALTHCHECK",
        "STOPSIGNAL SIGTERM",
        "VOLUME /data",
        'ENTRYPOINT ["nearsight"]',
    ):
        assert line in last
    assert "curl" not in text
    # On this address, the service starts only with a key.
    assert "NEARSIGHT_HOST=0.0.0.0" in last


def test_compose_and_kubernetes_are_yaml_that_says_as_much():
    service = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["nearsight"]
    assert service["read_only"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    resolve({}, service["environment"])
    workload, _ = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())
    pod = workload["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/ready"
    assert container["livenessProbe"]["httpGet"]["path"] == "/health"
    grace_s = ServerSettings().grace_s
    assert pod["terminationGracePeriodSeconds"] > grace_s
    unit = (DEPLOY / "nearsight.service").read_text()
    assert int(re.search(r"TimeoutStopSec=(\d+)", unit)[1]) > grace_s
