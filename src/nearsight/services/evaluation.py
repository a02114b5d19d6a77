"""What doors share about evaluation: which models can be compared, and which classes they learned."""

from collections.abc import Iterable
from pathlib import Path

from nearsight.evaluation import SkippedModel
from nearsight.models import list_models
from nearsight.models.huggingface.hub import fetched_models
from nearsight.models.huggingface.known_models import KNOWN_MODELS
from nearsight.models.model_name import without_centering
from nearsight.training import learned_classes


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
    learned = {}
    for name in models:
        scheme, _, folder = without_centering(name)[0].partition(":")
        if scheme == "dir" and (classes := learned_classes(Path(folder.partition("#")[0]))):
            learned[name] = classes
    return learned
