"""Writes a trained model as a folder that ``dir:FOLDER`` opens: network, facts, card, curve."""

import glob
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from nearsight._version import __version__
from nearsight.artifacts import remedy
from nearsight.errors import InvalidParameterError, ParityError, StorageError
from nearsight.images.path_encoding import decode_path
from nearsight.models.huggingface.folder import FACTS_FILE, MODEL_FILE
from nearsight.models.onnx_file import READ_FROM_FILE
from nearsight.models.runtimes.onnx import OnnxBackend
from nearsight.models.spec import ModelSpec
from nearsight.models.synthetic_images import synthetic_images
from nearsight.training.network_features import TRAINED
from nearsight.training.results import Training

#: What a training did, as JSON.
RECORD = "training.json"
#: SHA-256 of each file that the model learned from, one a line.
LEARNED = "learned-images.txt"
CARD = "README.md"

_MAX_DIFFERENCE = 1e-4
_N_COMPARED = 8


def write_model(training: Training, directory: Path, extra: Mapping[str, str] | None = None) -> None:
    """Write a trained model, whole or not at all.

    Parameters
    ----------
    training : Training
    directory : Path
        A new or empty folder, or one with a model that was trained before, which is replaced.
    extra : mapping of str to str, optional
        Further text files by name; the card shows those that end in ``.svg``.

    Raises
    ------
    InvalidParameterError
        The folder holds something else.
    ParityError
        The written network computes other vectors than the training.
    StorageError
        The disk refuses.
    """
    require_free(directory)
    extra = extra or {}
    graph = training.network.with_map(training.map)
    spec = trained_spec(training)
    _require_parity(training, spec, graph)
    facts = {name: value for name, value in asdict(spec).items() if name not in READ_FROM_FILE}
    record = {"nearsight": __version__, **training.to_dict()}
    files = {
        MODEL_FILE: graph,
        FACTS_FILE: json.dumps(facts, indent=2).encode() + b"\n",
        RECORD: json.dumps(record, indent=2).encode() + b"\n",
        CARD: card(training, [name for name in extra if name.endswith(".svg")]).encode(),
        LEARNED: "".join(f"{digest}\n" for digest in sorted(set(training.learned))).encode(),
        **{name: text.encode() for name, text in extra.items()},
    }
    try:
        _replace_folder(directory, files)
    except OSError as error:
        raise StorageError(
            f"{directory} could not be written: {error.strerror or error}; {remedy(error)}"
        ) from error


def learned_classes(directory: Path) -> frozenset[str]:
    """Return the classes that a trained model learned, by name.

    Parameters
    ----------
    directory : Path

    Returns
    -------
    frozenset of str
        Empty where the folder does not say: it holds no trained model, one of pairs, or one that an earlier
        version of nearsight wrote.
    """
    try:
        record = json.loads((directory / RECORD).read_bytes())
    except (OSError, ValueError):
        return frozenset()
    classes = record.get("classes") if isinstance(record, dict) else None
    return frozenset(map(str, classes)) if isinstance(classes, list) else frozenset()


def learned_images(directory: Path) -> frozenset[str]:
    """Return `content_digest` of the images that a trained model learned from; empty as `learned_classes` is.

    Parameters
    ----------
    directory : Path
    """
    try:
        return frozenset((directory / LEARNED).read_text("ascii").split())
    except (OSError, ValueError):
        return frozenset()


def content_digest(path: str) -> str:
    """Return the SHA-256 of a file, by which an image is known again wherever it lies."""
    return hashlib.sha256(Path(decode_path(path)).read_bytes()).hexdigest()


def require_free(directory: Path) -> None:
    """Raise if a folder holds anything but a trained model, or could not be written.

    Raises
    ------
    InvalidParameterError
        It does, or it is a file, or lies below one, or below a folder that may not be written.
    """
    if directory.exists() and not directory.is_dir():
        raise InvalidParameterError(f"{directory} is a file; give the name of a new folder")
    if directory.is_dir() and any(directory.iterdir()) and not (directory / RECORD).is_file():
        raise InvalidParameterError(
            f"{directory} is not empty and holds no trained model; give the name of a new folder"
        )
    # Known before a training of hours: the model is written into this folder, or makes those above it.
    above = next(parent for parent in directory.absolute().parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise InvalidParameterError(
            f"{directory} cannot be written, because {above} is"
            f" {'not writable' if above.is_dir() else 'a file'}; choose a directory that you may write to"
        )


def trained_spec(training: Training) -> ModelSpec:
    """Return the facts of the trained model; its license is that of the pretrained one."""
    base = training.base
    figure = training.figures["recall@1"]
    return replace(
        base,
        dim=training.dim,
        layer=TRAINED,
        pooling="mean",
        normalize=True,
        training_data=f"{base.training_data or base.id}; then {training.n_fitted:,} labeled images",
        accuracy=f"recall@1 {figure.trained.value:.3f} on {training.n_test:,} of its own test images",
        matryoshka_dims=(),
    )


def card(training: Training, charts: Sequence[str] = ()) -> str:
    """Return the model card in Markdown, its header as Hugging Face hubs read it.

    Parameters
    ----------
    training : Training
    charts : sequence of str
        Files beside the card that it shows.
    """
    rows = "\n".join(
        f"| {name} | {f.pretrained.value:.3f} | {f.trained.value:.3f} | "
        f"{f.difference.value:+.3f} [{f.difference.low:+.3f}, {f.difference.high:+.3f}] |"
        for name, f in training.figures.items()
    )
    setting = training.setting.setting
    things = "things" if training.holds_pairs else "classes"
    layers_line = f"\n- {training.layers_sentence}" if training.layers else ""
    layers = ", ".join(training.network.layers) if setting.uses_layers else "none"
    stretch = "only between classes" if np.isinf(setting.stretch) else f"{1 + setting.stretch:g} times"
    network = f"the network of {training.base.id}, unchanged, and a linear map"
    if training.depth != "head":
        network = f"the network of {training.base.id}, trained further, and a linear map"
    saved = (
        "The test images are a folder of their own; the model never saw them."
        if training.has_test_split
        else f"The model never saw the test images, {training.test_split}."
        if training.depth != "head"
        else "The figures are of a model that was fitted without the test images; this one was fitted on all."
    )
    curves = "".join(f"\n![Recall@1 by {Path(name).stem}]({name})\n" for name in charts)
    return f"""---
license: {training.base.license}
base_model: {training.base.id}
library_name: nearsight
pipeline_tag: image-feature-extraction
---

# A model trained from {training.base.id}

{training.verdict}

{training.unseen_sentence}

| {training.n_test:,} test images | pretrained | trained | difference [95 %] |
|---|---|---|---|
{rows}

{saved}

## How it was made

- Vectors of {training.dim} numbers: {network}.{layers_line}
- {training.n_fitted:,} images of {training.n_classes:,} {things}, {training.n_views} views each
  (`{training.augmentation}`). Hash of the data: `{training.data_sha256}`.
- Whitened within classes with a shrinkage of {setting.shrinkage:g}; directions between classes stretched:
  {stretch}. Inner layers beside the model's vector: {layers}.
- Settings were chosen on images that were left out, near-duplicates always on one side.
{curves}
The license is that of {training.base.id} ({training.base.source or "built in"}). Whether the labeled images
restrict the use of the model is for you to know.
"""


def _require_parity(training: Training, spec: ModelSpec, graph: bytes) -> None:
    """Compare the written network with the features and the map that were measured."""
    features, written = training.network.backend(), OnnxBackend(spec, graph)
    images = [features.prepare(image) for image in synthetic_images(_N_COMPARED, seed=0)]
    expected = training.map.apply(features.embed(images))
    expected /= np.maximum(np.linalg.norm(expected, axis=1, keepdims=True), 1e-30)
    difference = float(np.abs(written.embed(images) - expected).max())
    if not difference <= _MAX_DIFFERENCE:
        raise ParityError(
            f"the written network's vectors differ by {difference:.1e} from those that were measured; at "
            f"most {_MAX_DIFFERENCE:.0e} is allowed. Train again with other images or another model"
        )


def _replace_folder(directory: Path, files: Mapping[str, bytes]) -> None:
    """Write files into a new folder and put it in the place of the old one."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    mark = secrets.token_hex(4)
    new, old = (directory.with_name(f".{directory.name}.{mark}.{kind}") for kind in ("new", "old"))
    try:
        new.mkdir()
        for name, content in files.items():
            with open(new / name, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        if directory.exists():
            directory.rename(old)
        try:
            new.rename(directory)
        except OSError:
            if old.exists():
                old.rename(directory)
            raise
        # The old one, and what processes that were killed here have left.
        for kind in ("new", "old"):
            for left in directory.parent.glob(f".{glob.escape(directory.name)}.{'[0-9a-f]' * 8}.{kind}"):
                shutil.rmtree(left, ignore_errors=True)
    finally:
        shutil.rmtree(new, ignore_errors=True)
