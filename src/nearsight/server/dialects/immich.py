"""The machine learning server of Immich, on a listener of its own.

Immich can send no key, so this listener does nothing but embed, for addresses that are allowed. Immich takes
every answer but success for a broken server and does not try again: a full queue is waited for here.
"""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from fastapi import APIRouter, FastAPI, Request
from starlette.datastructures import UploadFile
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from nearsight.errors import InvalidParameterError
from nearsight.server import errors
from nearsight.server.errors import Problem, Renderers
from nearsight.server.inputs import ImageInput, Input, read_form, text_of
from nearsight.server.service import Service
from nearsight.server.vectors import embed_inputs

_WAIT_S = 60.0
# The length of the vectors that Immich expects of models whose names begin so: its database holds one.
_DIMENSIONS = [
    (r"RN50x4__", 640),
    (r"RN50x(16)__", 768),
    (r"RN(50|50x64)__", 1024),
    (r"RN101__", 512),
    (r"ViT-B-(16|32)(-plus-240)?__", 512),
    (r"ViT-L-14(-336|-quickgelu)?__", 768),
    (r"ViT-H-14(-378-quickgelu|-quickgelu)?__", 1024),
    (r"ViT-B-(16|32)-SigLIP2?(-\d+|-i18n-256)?__", 768),
    (r"ViT-L-16-SigLIP2?-\d+__", 1024),
    (r"ViT-SO400M-", 1152),
    (r"ViT-gopt-16-SigLIP2-", 1536),
    (r"XLM-Roberta-(Base|Large)-Vit-B-(16Plus|32)", 512),
    (r"(LABSE|XLM-Roberta-Large)-Vit-L-14|M-BERT", 768),
    (r"nllb-clip-base-siglip__", 768),
    (r"nllb-clip-large-siglip__", 1152),
]

router = APIRouter(tags=["Immich"])


def check_models(names: Mapping[str, str], dims: Mapping[str, int]) -> None:
    """Refuse a model whose vectors do not fit into Immich's database.

    Parameters
    ----------
    names : mapping of str to str
        Immich's name of a model to an alias.
    dims : mapping of str to int
        Length of the vectors by alias.

    Raises
    ------
    InvalidParameterError
        An alias is unknown, or its vectors have another length than Immich expects.
    """
    for name, alias in names.items():
        if alias not in dims:
            raise InvalidParameterError(f"immich names the model {alias!r}; there are: {', '.join(dims)}")
        expected = next((dim for pattern, dim in _DIMENSIONS if re.match(pattern, name)), None)
        if expected is None:
            raise InvalidParameterError(
                f"immich names {name!r}, and it is not known how long its vectors are; use a name of "
                f"the list of "
                "CLIP models in Immich's settings, such as ViT-B-32__openai"
            )
        if expected != dims[alias]:
            raise InvalidParameterError(
                f"Immich expects vectors of {expected} numbers of {name}, and {alias} has "
                f"{dims[alias]}; name "
                "another model of Immich's with that length"
            )


def create_app(service: Service) -> FastAPI:
    """Return the application of the listener."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.state.service = service
    errors.install(app, Renderers(public=service.public))
    app.include_router(router)
    return app


@router.get("/ping", response_class=PlainTextResponse)
async def ping() -> str:
    """Whether the process works."""
    return "pong"


@router.get("/")
async def root() -> dict[str, str]:
    """Say what Immich expects."""
    return {"message": "Immich ML"}


@router.post("/predict", response_class=Response)
async def predict(request: Request) -> Response:
    """Embed one image or text for Immich's search."""
    service: Service = request.app.state.service
    form = await read_form(request, max_files=1)
    try:
        kind, name = _wanted(form.get("entries"))
        inputs = [await _input(form, kind)]
    finally:
        await form.close()
    alias = service.settings.pairs("immich").get(name)
    if alias is None:
        raise Problem(422, f"the model {name!r} is not served; start with --immich {name}=ALIAS")
    embedded = await embed_inputs(request, inputs, model=alias, wait_s=_WAIT_S)
    document: dict[str, Any] = {
        "clip": orjson.dumps(embedded.vectors[0], option=orjson.OPT_SERIALIZE_NUMPY).decode()
    }
    if size := embedded.sizes[0]:
        document |= {"imageWidth": size[0], "imageHeight": size[1]}
    return Response(orjson.dumps(document), media_type="application/json")


def _wanted(entries: Any) -> tuple[str, str]:
    """Return whether an image or a text is to be embedded, and the name of the model."""
    try:
        document = orjson.loads(entries)
        [(kind, facts)] = document["clip"].items()
        name = facts["modelName"]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise Problem(
            422, 'only entries of the form {"clip": {"visual": {"modelName": ...}}} are served'
        ) from None
    if kind not in ("visual", "textual") or not isinstance(name, str) or len(document) != 1:
        raise Problem(422, "only clip's visual and textual are served")
    return kind, name


async def _input(form: Any, kind: str) -> Input:
    if kind == "textual":
        return text_of(form.get("text"), 0)
    image = form.get("image")
    if not isinstance(image, UploadFile):
        raise Problem(422, "the form has no file named 'image'")
    return ImageInput(await image.read())


class AddressCheck:
    """Refuses clients whose address is not allowed.

    Parameters
    ----------
    app : ASGI application
    renderers : Renderers
    networks : sequence of str
        Such as ``192.168.1.0/24``.

    Raises
    ------
    InvalidParameterError
        One is not a network.
    """

    def __init__(self, app: ASGIApp, renderers: Renderers, networks: Sequence[str]) -> None:
        self.app = app
        self._renderers = renderers
        try:
            self._networks = [ipaddress.ip_network(network) for network in networks]
        except ValueError as error:
            raise InvalidParameterError(
                f"immich_allow: {error}; give networks such as 192.168.1.0/24"
            ) from error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "http" and not self._allows((scope.get("client") or ("",))[0]):
            problem = Problem(403, "this address may not use the listener; see --immich-allow")
            await self._renderers.response(problem, scope["path"])(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _allows(self, client: str) -> bool:
        try:
            address = ipaddress.ip_address(client)
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None) or address
        return any(mapped.version == network.version and mapped in network for network in self._networks)
