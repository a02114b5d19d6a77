"""What a client can ask for about models and the machine; see `nearsight.client.operations`.

Folders and tables are those of the server, ``ROOT/below/it``, and models are named by alias. It needs a key
with the scope ``admin``.
"""

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from nearsight.client.job_operations import job_result
from nearsight.client.requests import Operation, Request


def evaluate(
    client: object,
    folder: str,
    models: Sequence[str] = (),
    *,
    metric: str = "map@10",
    exclude: Sequence[str] = (),
) -> Operation[dict[str, Any]]:
    """Compare models on labeled images of the server.

    Parameters
    ----------
    folder : str
        One folder of images a class, perhaps in folders train and test.
    models : sequence of str
        By default all of the service; those that cannot be judged by these images are ``skipped`` then.
    metric : str
        The one that decides.
    exclude : sequence of str
        Patterns in the syntax of gitignore.

    Returns
    -------
    dict
        As ``nearsight eval --json`` prints it.
    """
    body = {"folder": folder, "models": list(models), "metric": metric, "exclude": list(exclude)}
    return (yield from _result("eval", body))


def train(
    client: object,
    folder: str,
    to: str,
    *,
    model: str | None = None,
    labels: str | None = None,
    pairs: str | None = None,
    depth: str = "auto",
    loss: str | None = None,
    epochs: int | None = None,
    augment: str = "photos",
    views: int | None = None,
    dim: int | None = None,
    known_only: bool = False,
    exclude: Sequence[str] = (),
) -> Operation[dict[str, Any]]:
    """Train a model on labeled images of the server; `to` is a model of the service then.

    Parameters
    ----------
    folder : str
        One folder of images a class, perhaps in folders train and test.
    to : str
        The new model's alias: up to 64 letters, digits, - and _.
    model : str, optional
        The pretrained model; by default the default one.
    labels, pairs : str, optional
        A table of the server with the columns path and label, or first and second, instead.
    depth, loss, epochs, augment, views, dim, known_only
        As the options of ``nearsight train``.
    exclude : sequence of str
        Patterns in the syntax of gitignore.

    Returns
    -------
    dict
        As ``nearsight train --json`` prints it.
    """
    body = {
        "folder": folder,
        "to": to,
        "model": model,
        "labels": labels,
        "pairs": pairs,
        "depth": depth,
        "loss": loss,
        "epochs": epochs,
        "augment": augment,
        "views": views,
        "dim": dim,
        "known_only": known_only,
        "exclude": list(exclude),
    }
    return (yield from _result("train", body))


def quantize(
    client: object, folder: str, to: str, *, model: str | None = None, exclude: Sequence[str] = ()
) -> Operation[dict[str, Any]]:
    """Make an int8 variant of a model, and measure it; `to` is a model of the service then.

    Parameters
    ----------
    folder : str
        Images of the server like those to be embedded, at least 32.
    to, model, exclude
        See `train`.

    Returns
    -------
    dict
        As ``nearsight models quantize --json`` prints it.
    """
    body = {"folder": folder, "to": to, "model": model, "exclude": list(exclude)}
    return (yield from _result("quantize", body))


def download(client: object, alias: str, folder: str | Path) -> Operation[None]:
    """Write a model that the service trained into a folder of this machine; ``dir:FOLDER`` names it then."""
    content = (yield Request("GET", f"/v1/models/{quote(alias, safe='')}/archive")).content
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        archive.extractall(folder)


def delete(client: object, alias: str) -> Operation[None]:
    """Delete a model that the service trained or quantized."""
    yield Request("DELETE", f"/v1/models/{quote(alias, safe='')}")


def plan(
    client: object, /, images: int, folder: str | None = None, **options: Any
) -> Operation[dict[str, Any]]:
    """Estimate what a collection takes on the server's machine, or on others.

    Parameters
    ----------
    images : int
    folder : str, optional
        Images of the server to measure, for half a minute.
    **options
        ``megapixels``, ``model``, ``dim``, ``storage``, ``machines``, ``cores``, ``gpus``,
        ``queries_per_second`` and ``price``, as the options of ``nearsight plan``.

    Returns
    -------
    dict
        As ``nearsight plan --json`` prints it.
    """
    body = {"images": images, "folder": folder, **options}
    document: dict[str, Any] = (yield Request("POST", "/v1/plan", json=body)).json()
    return document


def doctor(client: object, collection: str | None = None) -> Operation[list[dict[str, str]]]:
    """Check the machine of the service, the installation and, if it is named, a collection.

    Returns
    -------
    list of dict
        ``name``, ``status`` (ok, warn or fail), ``detail`` and ``fix`` of each check.
    """
    params = {} if collection is None else {"collection": collection}
    checks: list[dict[str, str]] = (yield Request("GET", "/v1/doctor", params=params)).json()["checks"]
    return checks


def _result(kind: str, body: dict[str, Any]) -> Operation[dict[str, Any]]:
    sent = {name: value for name, value in body.items() if value is not None}
    return (yield from job_result(Request("POST", f"/v1/{kind}", json=sent)))
