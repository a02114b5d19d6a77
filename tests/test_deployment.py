"""The examples of deployment say what the service understands."""

import ast
import importlib
import re
import shlex
import shutil
import subprocess
from dataclasses import fields
from fnmatch import fnmatch
from pathlib import Path
from urllib.parse import urlsplit

import click
import pytest
import yaml

from nearsight.cli.main import cli
from nearsight.services.server_settings import ServerSettings, resolve

DEPLOY = Path(__file__).parents[1] / "deploy"
FILES = sorted(path.name for path in DEPLOY.iterdir())


@pytest.mark.parametrize("name", FILES)
def test_every_variable_is_a_setting(name):
    known = {f"NEARSIGHT_{field.name.upper()}" for field in fields(ServerSettings)}
    known |= {f"{variable}_FILE" for variable in known} | {"NEARSIGHT_CACHE", "NEARSIGHT_FILES"}
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
    services = yaml.safe_load((DEPLOY / "compose-postgres.yaml").read_text())["services"]
    environment = services["nearsight"]["environment"]
    [(_, place)] = resolve({}, environment).pairs("mount").items()
    address = urlsplit(place)
    database = services["postgres"]["environment"]
    assert (address.username, address.path) == (database["POSTGRES_USER"], f"/{database['POSTGRES_DB']}")
    assert address.hostname in services
    assert address.password is None
    assert "ports" not in services["postgres"]
    workload, _ = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())
    pod = workload["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/ready"
    assert container["livenessProbe"]["httpGet"]["path"] == "/health"
    grace_s = ServerSettings().grace_s
    assert pod["terminationGracePeriodSeconds"] > grace_s
    unit = (DEPLOY / "nearsight.service").read_text()
    assert int(re.search(r"TimeoutStopSec=(\d+)", unit)[1]) > grace_s


def parsed(words):
    """Read words as the command line would, without running the command; raise if they are not understood."""
    command, context = cli, click.Context(cli)
    while isinstance(command, click.Group):
        name, command, words = command.resolve_command(context, list(words))
        context = click.Context(command, parent=context, info_name=name)
    return command.make_context(name, list(words), parent=context.parent).params


def commands():
    """Every command of ours in the examples, also in their comments."""
    docker = (DEPLOY / "Dockerfile").read_text()
    [entry], [arguments] = (re.findall(rf"^{word} (\[.*\])$", docker, re.M) for word in ("ENTRYPOINT", "CMD"))
    yield "Dockerfile", [*ast.literal_eval(entry), *ast.literal_eval(arguments)]
    unit = (DEPLOY / "nearsight.service").read_text()
    yield "nearsight.service", shlex.split(re.search(r"ExecStart=(.+)", unit)[1])
    for name in FILES:
        for line in re.findall(r"nearsight (?:keys|serve|job)\b[^(#\n;`]*", (DEPLOY / name).read_text()):
            yield name, shlex.split(line)


def test_every_command_is_one_of_ours():
    found = list(commands())
    assert {name for name, _ in found} >= {"Dockerfile", "nearsight.service", "compose.yaml"}
    for _, (program, *words) in found:
        assert Path(program).name == "nearsight"
        parsed(words)
    with pytest.raises(click.UsageError):
        parsed(["serve", "--no-such-flag"])


def test_every_file_of_the_build_exists_and_is_sent():
    docker = (DEPLOY / "Dockerfile").read_text()
    build = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["nearsight"]["build"]
    context = (DEPLOY / build["context"]).resolve()
    assert (context / build["dockerfile"]).samefile(DEPLOY / "Dockerfile")
    [dockerfile] = re.findall(r"docker build -f (\S+) -t nearsight \.", docker)
    assert (context / dockerfile).samefile(DEPLOY / "Dockerfile")
    assert re.findall(r"^COPY (?!--from)(\S+) ", docker, re.M) == ["."]
    sent = [line[1:] for line in (context / ".dockerignore").read_text().split() if line.startswith("!")]
    assert all((context / name).exists() for name in sent)
    project = (context / "pyproject.toml").read_text()
    needed = [*re.findall(r'^readme = "(.+)"', project, re.M), "LICENSE", "src", "pyproject.toml"]
    assert set(needed) <= set(sent)
    extras = project.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    known = set(re.findall(r"^(\w+) = ", extras, re.M))
    assert set(re.search(r'"/source\[(.+)\]"', docker)[1].split(",")) <= known
    # What others install without its dependencies, as the Makefile does.
    pinned = re.findall(r"^(?:TEXT_ENCODER|FACE_DETECTOR) := (\S+)", (context / "Makefile").read_text(), re.M)
    assert f"--no-deps {' '.join(pinned)}" in docker
    [program] = re.findall(r'bin/python -c "(import nearsight.*)"$', docker, re.M)
    call = ast.parse(program).body[1].value
    assert hasattr(importlib.import_module("nearsight"), call.func.attr)


def test_every_address_that_is_watched_is_a_route():
    routes = importlib.import_module("nearsight.server.routes.health").router.routes
    paths = {route.path for route in routes}
    port = ServerSettings().port
    [(used_port, used)] = re.findall(r"127\.0\.0\.1:(\d+)(/\w+)", (DEPLOY / "Dockerfile").read_text())
    assert (int(used_port), used in paths) == (port, True)
    assert f"EXPOSE {port}" in (DEPLOY / "Dockerfile").read_text()
    workload, service = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())
    pod = workload["spec"]["template"]["spec"]
    [container] = pod["containers"]
    for probe in ("livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] == port
        assert container[probe]["httpGet"]["path"] in paths
    assert service["spec"]["ports"] == container["ports"] == [{"port": port}] or container["ports"] == [
        {"containerPort": port}
    ]
    assert service["spec"]["selector"].items() <= workload["spec"]["template"]["metadata"]["labels"].items()
    volumes = {
        each["name"]
        for each in [
            *pod["volumes"],
            *(claim["metadata"] for claim in workload["spec"]["volumeClaimTemplates"]),
        ]
    }
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    for each in container["env"]:
        if each["name"].endswith("_FILE"):
            assert any(fnmatch(each["value"], f"{mount}/*") for mount in mounts)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_understands_the_unit(tmp_path):
    text = (DEPLOY / "nearsight.service").read_text()
    unit = tmp_path / "nearsight.service"
    unit.write_text(re.sub(r"ExecStart=\S+", "ExecStart=/bin/true", text))
    done = subprocess.run(
        ["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=60, check=False
    )
    complaints = [
        line for line in done.stderr.splitlines() if line.startswith(("nearsight.service", str(unit)))
    ]
    assert not complaints
