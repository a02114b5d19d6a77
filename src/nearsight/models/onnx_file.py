"""ONNX files as models: ``onnx:FILE``, with the model's facts in ``FILE.json``."""

import difflib
import hashlib
import json
from dataclasses import asdict, fields
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from nearsight.errors import InvalidParameterError, UnknownModelError, WeightsError
from nearsight.models.base import ModelEntry
from nearsight.models.onnx_graph import GraphFacts, extract_layer, read_graph_facts
from nearsight.models.runtimes.onnx import OnnxBackend
from nearsight.models.runtimes.variants import OnnxVariants, graph_file
from nearsight.models.spec import ModelSpec

#: Facts of `ModelSpec` that are read from the file itself.
READ_FROM_FILE = {"id", "identity", "weights_sha256", "size_bytes"}
# Required, because a wrong guess would give worse vectors without an error.
_REQUIRED = ("dim", "input_px", "mean", "std", "layer")


def onnx_file(name: str) -> ModelEntry:
    """Return the entry of the model in an ONNX file.

    Parameters
    ----------
    name : str
        Path of the file. ``FILE.json`` beside it contains facts of `ModelSpec`: at least `dim`, `input_px`,
        `mean`, `std` and `layer`, which may be any layer of the graph.

    Raises
    ------
    UnknownModelError
        There is no such file.
    InvalidParameterError
        The facts are missing or wrong; the message contains a template.
    WeightsError
        The file is not an ONNX model, or has no such layer.
    """
    path = Path(name).expanduser().absolute()
    if not path.is_file():
        raise UnknownModelError(f"There is no file {path}; give onnx:FILE with the path of a model.")
    return file_entry(path, f"onnx:{path}")


def file_entry(path: Path, id: str) -> ModelEntry:
    """Return the entry of a file with facts beside it, under any name; see `onnx_file`."""
    facts = read_graph_facts(path)
    facts_by_name = _read_facts(path, facts)
    if facts_by_name["layer"] not in facts.layers:
        near = difflib.get_close_matches(str(facts_by_name["layer"]), facts.layers, n=3)
        hint = (
            f"did you mean {' or '.join(near)}?" if near else f"its outputs are {', '.join(facts.outputs)}."
        )
        raise WeightsError(f"{path} has no layer {facts_by_name['layer']!r}; {hint}")
    try:
        spec = ModelSpec.from_dict({**facts_by_name, **facts_from_file(id, path, facts)})
    except TypeError as error:
        raise InvalidParameterError(f"{_facts_file(path)} has a fact of the wrong type: {error}") from error
    return ModelEntry(
        spec,
        lambda _: open_file(spec, path),
        path.is_file,
        variants=OnnxVariants(spec, partial(graph_file, path)),
    )


def facts_from_file(id: str, path: Path, facts: GraphFacts) -> dict[str, Any]:
    """Return the facts of `ModelSpec` that are read from a file.

    The fingerprint identifies the model by its content, so the path of the file does not matter.
    """
    files = [path, *(path.parent / name for name in facts.data_files)]
    try:
        stats = [file.stat() for file in files]
        sha256 = _sha256(tuple((file, stat.st_mtime_ns) for file, stat in zip(files, stats, strict=True)))
    except OSError as error:
        raise WeightsError(
            f"{path} cannot be read completely ({error}); its weights are in "
            f"{', '.join(facts.data_files) or 'it'}"
        ) from error
    return {
        "id": id,
        "identity": f"onnx-{sha256[:16]}",
        "weights_sha256": sha256,
        "size_bytes": sum(stat.st_size for stat in stats),
        "source": str(path),
    }


def open_file(spec: ModelSpec, path: Path) -> OnnxBackend:
    """Return the backend; only the part of the graph up to `spec.layer` is loaded."""
    facts = read_graph_facts(path)
    if spec.layer in facts.outputs and len(facts.inputs) == 1:
        return OnnxBackend(spec, path)
    return OnnxBackend(spec, extract_layer(path, spec.layer), reload=partial(open_file, spec, path))


@lru_cache(maxsize=64)
def _sha256(files: tuple[tuple[Path, int], ...]) -> str:
    """Return the SHA-256 of all files; the time stamps are part of the key of the cache only."""
    digest = hashlib.sha256()
    for path, _ in files:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _facts_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _read_facts(path: Path, facts: GraphFacts) -> dict[str, Any]:
    facts_file = _facts_file(path)
    try:
        facts_by_name = json.loads(facts_file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _incomplete(path, "is missing", facts) from None
    except (OSError, ValueError) as error:
        raise InvalidParameterError(f"{facts_file} cannot be read as JSON ({error}); correct it") from error
    if not isinstance(facts_by_name, dict):
        raise _incomplete(path, "does not contain a JSON object", facts)
    known = {field.name for field in fields(ModelSpec)} - READ_FROM_FILE
    for key in facts_by_name:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known))}."
            raise InvalidParameterError(f"{facts_file} has an unknown key {key!r}; {hint}")
    if missing := [key for key in _REQUIRED if key not in facts_by_name]:
        raise _incomplete(path, f"lacks {', '.join(missing)}", facts)
    return facts_by_name


def _incomplete(path: Path, problem: str, facts: GraphFacts) -> InvalidParameterError:
    return InvalidParameterError(
        f"{_facts_file(path)} {problem}. It says how images are prepared. Write this and correct it:\n"
        f"{json.dumps(_template(facts), indent=2)}"
    )


def _template(facts: GraphFacts) -> dict[str, Any]:
    """Return plausible facts, with those read from the graph."""
    layer, shape = next(iter(facts.outputs.items()), ("pooled", ()))
    height, width = next((s[2:] for s in facts.inputs.values() if len(s) == 4 and all(s[2:])), (224, 224))
    spec = ModelSpec(
        id="-",
        weights_sha256="-",
        layer=layer,
        dim=next((n for n in reversed(shape) if n), None) or 512,
        input_px=(height or 224, width or 224),
        resize_px=max(height or 224, width or 224),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )
    shown = (*_REQUIRED, "resize_mode", "resize_px", "interpolation", "pooling", "normalize", "license")
    return {key: asdict(spec)[key] for key in shown}
