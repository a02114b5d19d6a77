"""What doors share about evaluation: which models can be compared, and what they learned."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from nearsight.errors import InvalidParameterError
from nearsight.evaluation import LabeledFolder, SkippedModel
from nearsight.models import list_models
from nearsight.models.huggingface.hub import fetched_models
from nearsight.models.huggingface.known_models import KNOWN_MODELS
from nearsight.models.model_name import without_centering
from nearsight.training import content_digest, learned_classes, learned_images


def installed_models() -> tuple[list[str], list[SkippedModel]]:
    """Return the models that can be compared without a download, and the known ones that cannot, with why."""
    names, skipped = [], []
    for entry in list_models():
        if entry.available():
            names.append(entry.spec.id)
        else:
            remedy = f": {entry.install}" if entry.install else ""
            skipped.append(SkippedModel(entry.spec.id, f"not installed{remedy}"))
    fetched = [entry.spec.id for entry in fetched_models()]
    for model in KNOWN_MODELS:
        if downloaded := [name for name in fetched if name.startswith(model.source)]:
            names += downloaded[:1]
        else:
            skipped.append(
                SkippedModel(
                    model.name, f"not downloaded; --model {model.name} downloads it ({model.license})"
                )
            )
    return names, skipped


def learned_by(models: Iterable[str]) -> dict[str, frozenset[str]]:
    """Return the classes that trained models learned, by name of the model; others are left out.

    Parameters
    ----------
    models : iterable of str
        Names of models; those of folders, ``dir:PATH``, may say what they learned.
    """
    return {name: classes for name, folder in _folders(models) if (classes := learned_classes(folder))}


def require_unlearned(folder: LabeledFolder, models: Iterable[str]) -> LabeledFolder:
    """Return the folder with only such queries as no trained model learned from.

    Where a model learned from some of the images, it finds them too well. So these are the gallery, and the
    others of the queries are searched among them.

    Parameters
    ----------
    folder : LabeledFolder
    models : iterable of str
        See `learned_by`.

    Raises
    ------
    InvalidParameterError
        No query is left.
    """
    names = [name for name, _ in _folders(models)]
    digests = frozenset[str]().union(*(learned_images(directory) for _, directory in _folders(models)))
    if not digests:
        return folder
    is_learned = [_is_one_of(path, digests) for path in folder.paths]
    is_query = [not folder.has_split or split == "test" for split in folder.splits]
    if not any(learned and query for learned, query in zip(is_learned, is_query, strict=True)):
        return folder
    splits = [
        "test" if query and not learned else "train"
        for learned, query in zip(is_learned, is_query, strict=True)
    ]
    if "test" not in splits:
        raise InvalidParameterError(
            f"{' or '.join(names)} learned from each image that would be searched for, so these cannot judge"
            " it. Put a part of each class into a folder test, train again, and compare the models then"
        )
    return replace(folder, splits=splits)


def _is_one_of(path: str, digests: frozenset[str]) -> bool:
    try:
        return content_digest(path) in digests
    except OSError:
        return False  # Whoever embeds it says so.


def _folders(models: Iterable[str]) -> list[tuple[str, Path]]:
    """Return the names that stand for folders, and the folders."""
    found = []
    for name in models:
        scheme, _, folder = without_centering(name)[0].partition(":")
        if scheme == "dir":
            found.append((name, Path(folder.partition("#")[0])))
    return found
