"""Jobs about models: compare them, train one, quantize one. What they tell names models by alias."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from nearsight import progress
from nearsight.errors import InvalidParameterError, NearsightError, StorageError
from nearsight.images import Exclusions
from nearsight.services.made_models import MadeModels
from nearsight.services.shown_path import shown_path
from nearsight.text_format import plain

_MOST_LISTED = 1000


def evaluation(args: Mapping[str, Any]) -> dict[str, Any]:
    """Compare models on the labeled images of a folder.

    Where nobody named the models, those that cannot be judged by these images are left out, and told.
    """
    from nearsight.evaluation import SkippedModel, read_labeled_folder
    from nearsight.services.evaluation import (
        evaluated,
        evaluation_document,
        require_unlearned,
        without_learned,
    )

    folder, exclusions = Path(args["folder"]), _exclusions(args)
    # Of two aliases of one model, the first is compared.
    aliases = {name: alias for alias, name in reversed(args["model_names"].items())}
    names = list(reversed(aliases))
    with _public_errors(args, aliases):
        read = read_labeled_folder(folder, exclusions)
        skipped: list[SkippedModel] = []
        if args["skip_failing"]:
            names, skipped = without_learned(read, names)
        labeled = require_unlearned(read, names)
        with evaluated(
            labeled,
            names,
            metric=args["metric"],
            skip_failing=args["skip_failing"],
            device=args.get("device", "auto"),
            cache_dir=_cache_dir(args),
        ) as (result, _):
            document = evaluation_document(replace(result, skipped=[*skipped, *result.skipped]))
    for name in ("leaks", "failed"):
        document[f"n_{name}"] = len(document[name])
        document[name] = document[name][:_MOST_LISTED]
    document["leaks"] = [[shown_path(path, _roots(args)) for path in pair] for pair in document["leaks"]]
    return _with_aliases(document, aliases)


def training(args: Mapping[str, Any]) -> dict[str, Any]:
    """Train a model, and register it under an alias; a job that is resumed goes on after the last epoch."""
    from nearsight.services.training import state_folder, trained
    from nearsight.training import write_model

    made = MadeModels(args["made_models"])
    to_folder = made.folder(args["to"])
    to_folder.parent.mkdir(parents=True, exist_ok=True)
    names = ("depth", "augment", "known_only", "n_views", "dim", "loss", "epochs")
    options = {name: args[name] for name in names if args.get(name) is not None}
    tables: dict[str, Any] = {
        name: Path(args[f"{name}_file"]) for name in ("labels", "pairs") if args.get(f"{name}_file")
    }
    with _public_errors(args, {args["model_name"]: args["model"]}):
        result = trained(
            Path(args["folder"]),
            to_folder,
            **tables,
            exclusions=_exclusions(args),
            model=args["model_name"],
            cache_dir=_cache_dir(args),
            **options,
        )
    write_model(result, to_folder)
    shutil.rmtree(state_folder(to_folder), ignore_errors=True)
    made.add(args["to"], f"dir:{to_folder}")
    document = {**result.to_dict(), "model": args["to"], "n_failed": len(result.failed)}
    document["failed"] = document["failed"][:_MOST_LISTED]
    return _with_aliases(document, {result.base.id: args["model"], args["model_name"]: args["model"]})


def quantization(args: Mapping[str, Any]) -> dict[str, Any]:
    """Make an int8 variant of a model, measure it, and register it under an alias."""
    from nearsight.models.precision.int8_calibration import calibrate
    from nearsight.services.documents import int8_document

    made = MadeModels(args["made_models"])
    made.folder(args["to"])
    # Its steps are not known before.
    with progress.bar("calibrating") as bar, _public_errors(args, {args["model_name"]: args["model"]}):

        def tell(_: str) -> None:
            bar.update()

        calibrated = calibrate(
            args["model_name"],
            args["folder"],
            exclusions=_exclusions(args),
            cache_dir=_cache_dir(args),
            progress=tell,
        )
    made.add(args["to"], calibrated.model)
    return {**int8_document(calibrated), "model": args["to"]}


def _with_aliases(document: Mapping[str, Any], aliases: Mapping[str, str]) -> dict[str, Any]:
    """Return a document with aliases in place of the names of models, which may hold paths.

    What names files and classes stays as it is.
    """
    kept = {name: document[name] for name in ("failed", "leaks", "classes") if name in document}
    text = json.dumps(plain({**document, **dict.fromkeys(kept)}), ensure_ascii=False)
    for name in sorted(aliases, key=len, reverse=True):
        text = text.replace(json.dumps(name, ensure_ascii=False)[1:-1], aliases[name])
    result: dict[str, Any] = json.loads(text)
    return {**result, **plain(kept)}


@contextmanager
def _public_errors(args: Mapping[str, Any], names: Mapping[str, str]) -> Iterator[None]:
    """Name folders, tables and models in errors of the block as the client does.

    Parameters
    ----------
    args : mapping
        Of the job.
    names : mapping of str to str
        Alias by name of a model.
    """
    known = dict(names)
    for name, key in (("folder", "folder"), ("labels_file", "labels"), ("pairs_file", "pairs")):
        if args.get(name):
            known[args[name]] = args["shown"][key]
    try:
        yield
    except StorageError:
        raise
    except NearsightError as error:
        text = str(error)
        for name in sorted(known, key=len, reverse=True):
            text = text.replace(name, known[name])
        raise InvalidParameterError(text) from error


def _exclusions(args: Mapping[str, Any]) -> Exclusions:
    return Exclusions(tuple(args.get("exclude") or ()), include_hidden=bool(args.get("include_hidden")))


def _cache_dir(args: Mapping[str, Any]) -> Path | None:
    return None if args.get("cache_dir") is None else Path(args["cache_dir"])


def _roots(args: Mapping[str, Any]) -> dict[str, Path]:
    return {alias: Path(place) for alias, place in args["roots"].items()}
