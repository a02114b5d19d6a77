"""`nearsight serve`."""

from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import click

from nearsight.cli.framework import Command, Run
from nearsight.errors import MissingExtraError
from nearsight.services.server_settings import ENVIRONMENT_PREFIX, ServerSettings, read_file, resolve
from nearsight.settings import environment


def _options() -> list[click.Parameter]:
    """Return one option for each setting."""
    types = get_type_hints(ServerSettings)
    parameters: list[click.Parameter] = []
    for each in fields(ServerSettings):
        if each.metadata.get("is_secret"):
            continue
        kind, help = types[each.name], str(each.metadata["help"])
        options: dict[str, Any] = {"default": None, "metavar": each.metadata.get("metavar")}
        if kind is bool:
            options["is_flag"] = True
        elif kind in (int, float, str):
            choices = each.metadata.get("choices")
            options["type"] = click.Choice(choices) if choices else kind
            help += f" Default: {each.default}." if each.default != "" else ""
        else:
            options["multiple"] = True
            help += " May be repeated."
        name = f"--{each.name.replace('_', '-')}"
        parameters.append(click.Option([name, each.name], help=help, **options))
    return parameters


@click.command(
    cls=Command,
    json_shape='{"urls": [str]}, once the service listens',
    params=[
        click.Option(
            ["--config"],
            type=click.Path(path_type=Path, dir_okay=False, exists=True),
            help=f"Read settings from this TOML file. Default: ${ENVIRONMENT_PREFIX}CONFIG.",
        ),
        *_options(),
    ],
    examples=(
        "nearsight serve",
        "nearsight serve --model default=efficientnet-lite0 --model clip=clip-vit-base-patch32",
        "nearsight serve --mount photos=./.nearsight --root archive=/srv/photos",
        "nearsight keys add office && nearsight serve --host 0.0.0.0 --allowed-host images.example.org",
    ),
)
@click.pass_obj
def serve(run: Run, /, *, config: Path | None, **flags: Any) -> None:
    """Serve embeddings and collections over HTTP.

    Clients of OpenAI, infinity, Jina, vLLM, Cohere, Weaviate and Immich can use it as it is. Each option is
    also a variable (NEARSIGHT_PORT) and a key of the TOML file (port). Without keys, everybody on this
    machine may do everything; on any address but loopback, the service starts only with a key.
    """
    environ = environment()
    config = config or (Path(environ["NEARSIGHT_CONFIG"]) if environ.get("NEARSIGHT_CONFIG") else None)
    settings = resolve(flags, environ, read_file(config) if config else None)
    try:
        from nearsight.server import main
    except ImportError as error:
        raise MissingExtraError(f"{error.name} is not installed: pip install 'nearsight[serve]'") from error

    def listening(urls: list[str]) -> None:
        run.console.document({"urls": urls})
        for url in urls:
            run.console.note(f"Listening on {url}")

    main.run(settings, device=run.device, cache_dir=run.settings.cache_dir, listening=listening)
