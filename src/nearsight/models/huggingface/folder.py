"""Model folders in the Hugging Face ONNX layout: ``dir:PATH[#PRECISION]``.

The model is ``onnx/vision_model.onnx``, else ``onnx/model.onnx``, else the same in the root.
``preprocessor_config.json`` describes the preprocessing, ``config.json`` the family of the model. The ending
of a file name selects a quantized file: ``dir:clip#quantized`` loads ``onnx/vision_model_quantized.onnx``.
A folder that nearsight's training wrote has ``model.onnx.json`` instead, with the facts of `ModelSpec`.
"""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from nearsight.errors import UnknownModelError, WeightsError
from nearsight.models.base import Backend, ModelEntry, TextEncoder
from nearsight.models.huggingface.image_processor import preprocessing
from nearsight.models.huggingface.model_card import CARD, read_card
from nearsight.models.onnx_file import facts_from_file, file_entry, open_file
from nearsight.models.onnx_graph import GraphFacts, Shape, read_graph_facts
from nearsight.models.precision.parity import require_parity, warn_uncompared
from nearsight.models.runtimes.onnx import OnnxBackend
from nearsight.models.runtimes.variants import OnnxVariants, graph_file
from nearsight.models.spec import ModelSpec
from nearsight.models.text.clip import ClipTextEncoder

#: Precision in the fingerprint by the ending of the file name.
PRECISIONS = {
    "fp16": "float16",
    "quantized": "quantized",
    "int8": "int8",
    "uint8": "uint8",
    "q4": "q4",
    "q4f16": "q4f16",
    "bnb4": "bnb4",
}
#: Small files beside the weights: preprocessing of images and texts, and the model card.
SIDE_FILES = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    CARD,
)

#: Files of a model that nearsight trained.
MODEL_FILE, FACTS_FILE = "model.onnx", "model.onnx.json"

_STEMS = ("onnx/vision_model", "onnx/model", "vision_model", "model")
# In order of preference: the projection trained for comparison, pooled features, all tokens.
_OUTPUTS = ("image_embeds", "pooler_output", "last_hidden_state")
# Checkpoints of these families often lack the pooler; exporters then fill it with random numbers.
_UNTRAINED_POOLER = {"vit", "deit", "vit_msn", "vit_mae"}
_FIRST_TOKEN = {"clip", "clip_vision_model", "dinov2", "dinov2_with_registers", "dinov3_vit", "ijepa"}


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A folder in the Hugging Face ONNX layout.

    Attributes
    ----------
    path : Path
        The folder.
    precision : str
        A key of `PRECISIONS`, or empty for full precision.
    """

    path: Path
    precision: str = ""

    @classmethod
    def all_in(cls, path: Path) -> "list[ModelFolder]":
        """Return the folder once for each precision that it has a file for."""
        names = {file.relative_to(path).as_posix() for file in path.rglob("*.onnx")}
        endings = {"": "", **{precision: f"_{precision}" for precision in PRECISIONS}}
        return [
            cls(path, precision)
            for precision, ending in endings.items()
            if any(f"{stem}{ending}.onnx" in names for stem in _STEMS)
        ]

    @property
    def image_model(self) -> Path:
        """The file of the image encoder."""
        names = {file.relative_to(self.path).as_posix() for file in self.path.rglob("*.onnx")}
        return self.path / select_image_model(names, self.precision, str(self.path))

    @property
    def text_model(self) -> Path | None:
        """The file of the text encoder in the same precision, if there is one."""
        file = self.path / text_file(self.precision)
        files = (file, self.path / file.name)
        return next((file for file in files if file.is_file()), None)

    @property
    def tokenizer(self) -> Path | None:
        """The file of the tokenizer, if there is one."""
        file = self.path / "tokenizer.json"
        return file if file.is_file() else None

    def config(self, name: str = "config.json") -> dict[str, Any]:
        """Return the content of a JSON file in the folder.

        Raises
        ------
        WeightsError
            The file is missing or damaged.
        """
        file = self.path / name
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise WeightsError(
                f"{self.path} has no {name}, which describes the model; copy it from the model's source, "
                "or use onnx:FILE with your own facts."
            ) from None
        except (OSError, ValueError) as error:
            raise WeightsError(f"{file} cannot be read as JSON ({error}); download it again") from error
        if not isinstance(data, dict):
            raise WeightsError(f"{file} does not contain a JSON object; download it again")
        return data

    def preprocessing(self) -> dict[str, Any]:
        """Return the facts of `ModelSpec` about preprocessing."""
        # Newer versions have one file for images and texts.
        if (
            not (self.path / "preprocessor_config.json").is_file()
            and (self.path / "processor_config.json").is_file()
        ):
            return preprocessing(self.config("processor_config.json").get("image_processor") or {})
        return preprocessing(self.config("preprocessor_config.json"))

    def entry(self, id: str) -> ModelEntry:
        """Return the entry for the registry.

        Parameters
        ----------
        id : str
            Name of the model.
        """
        path = self.image_model
        facts = read_graph_facts(path)
        config = self.config()
        layer, pooling = _output(config, facts, path)
        spec = ModelSpec(
            **{
                **facts_from_file(id, path, facts),
                **self.preprocessing(),
                **read_card(self.path / CARD),
                "dim": _dim(config, layer, facts.outputs[layer], path),
                "layer": layer,
                # Decoding at reduced size lowered the cosine to the reference's vector from 0.9999 to 0.98.
                "draft": False,
                "pooling": pooling,
                "matryoshka_dims": _matryoshka_dims(config),
                "precision": PRECISIONS.get(self.precision, "float32"),
            }
        )
        return ModelEntry(
            spec,
            partial(self._load, spec, path),
            path.is_file,
            load_text_encoder=self.text_loader(spec),
            variants=OnnxVariants(spec, partial(graph_file, path)),
        )

    def _load(self, spec: ModelSpec, path: Path, cache_dir: Path) -> Backend:
        backend = open_file(spec, path)
        if self.precision:
            # A file of another precision has its own fingerprint, but must be similar to the full model.
            exact = self._exact(spec)
            if exact is None:
                warn_uncompared(spec, self._comparison_hint(spec), cache_dir)
            else:
                require_parity(backend, exact, cache_dir)
        return backend

    def _exact(self, spec: ModelSpec) -> OnnxBackend | None:
        """Return the model in full precision, if its file is complete and has the same layer."""
        full = ModelFolder(self.path)
        if full not in ModelFolder.all_in(self.path):
            return None
        file = full.image_model
        if not all((file.parent / name).is_file() for name in read_graph_facts(file).data_files):
            return None
        exact = full.entry(split_precision(spec.id)[0]).spec
        if (exact.layer, exact.pooling, exact.dim) != (spec.layer, spec.pooling, spec.dim):
            return None
        return open_file(exact, file)

    def _comparison_hint(self, spec: ModelSpec) -> str:
        base = split_precision(spec.id)[0]
        if base.startswith("hub:"):
            return f"download the full model to compare both: nearsight models {base}"
        return f"put the full model into {self.path} to compare both"

    def text_loader(self, spec: ModelSpec) -> Callable[[Path, ModelSpec], TextEncoder] | None:
        """Return the function that loads the text encoder; None if there is none."""
        # Only the projection and SigLIP's pooler are trained to compare images with texts.
        if self.tokenizer is None or spec.layer not in ("image_embeds", "pooler_output"):
            return None
        path = self.text_model or self.image_model
        if self.text_model is None and "text_embeds" not in read_graph_facts(path).outputs:
            return None
        return lambda _, variant_spec: ClipTextEncoder(variant_spec, path, self.path)


def folder(name: str) -> ModelEntry:
    """Return the entry of the model in a folder.

    Parameters
    ----------
    name : str
        ``PATH`` or ``PATH#PRECISION``.

    Raises
    ------
    UnknownModelError
        There is no such folder, or no such model in it.
    WeightsError
        Something in the folder is missing, damaged or of an unknown kind.
    """
    folder_name, precision = split_precision(name)
    path = Path(folder_name).expanduser().absolute()
    if not path.is_dir():
        raise UnknownModelError(
            f"There is no folder {path}; give dir:PATH with the path of a model's folder."
        )
    if not precision and (path / FACTS_FILE).is_file():
        return file_entry(path / MODEL_FILE, f"dir:{path}")
    return ModelFolder(path, precision).entry(f"dir:{path}{f'#{precision}' if precision else ''}")


def split_precision(name: str) -> tuple[str, str]:
    """Split ``PATH#PRECISION``; a ``#`` before anything but a known precision belongs to the path."""
    base, sign, precision = name.rpartition("#")
    return (base, precision) if sign and precision in PRECISIONS else (name, "")


def text_file(precision: str) -> str:
    """Return the path of the text encoder in a folder."""
    return f"onnx/text_model{f'_{precision}' if precision else ''}.onnx"


def select_image_model(names: Collection[str], precision: str, source: str) -> str:
    """Return the name of the image encoder among a folder's files.

    Raises
    ------
    UnknownModelError
        There is none in that precision; the message lists the others.
    """
    ending = f"_{precision}" if precision else ""
    for stem in _STEMS:
        if f"{stem}{ending}.onnx" in names:
            return f"{stem}{ending}.onnx"
    others = [f"#{p}" for p in PRECISIONS if any(f"{stem}_{p}.onnx" in names for stem in _STEMS)]
    if any(f"{stem}.onnx" in names for stem in _STEMS):
        hint = f"remove #{precision} for full precision"
    else:
        hint = f"add {' or '.join(others)} to the name" if others else "export the model to ONNX"
    raise UnknownModelError(f"{source} has no {' or '.join(f'{s}{ending}.onnx' for s in _STEMS)}; {hint}.")


def _output(config: Mapping[str, Any], facts: GraphFacts, path: Path) -> tuple[str, str]:
    """Return the output that gives the vector, and its pooling."""
    family = str(config.get("model_type", ""))
    order = _OUTPUTS if family not in _UNTRAINED_POOLER else ("image_embeds", "last_hidden_state")
    layer = next((name for name in order if name in facts.outputs), None)
    if layer is None:
        raise WeightsError(
            f"{path} has the outputs {', '.join(facts.outputs)}; it must have one of {', '.join(order)}. "
            f"Or give a layer in {path.name}.json and use onnx:{path}"
        )
    first = family in _UNTRAINED_POOLER | _FIRST_TOKEN and layer == "last_hidden_state"
    return layer, "cls" if first else "mean"


def _dim(config: Mapping[str, Any], layer: str, shape: Shape, path: Path) -> int:
    """Return the length of the vectors, from the graph or from the configuration."""
    dim = shape[1] if len(shape) == 4 else (shape[-1] if shape else None)
    vision = {**config, **(config.get("vision_config") or {})}
    if dim is None and layer == "image_embeds":
        dim = config.get("projection_dim") or vision.get("projection_dim")
    elif dim is None:
        dim = vision.get("hidden_size") or (vision.get("hidden_sizes") or [None])[-1]
    if not isinstance(dim, int):
        raise WeightsError(
            f"Neither {path} nor config.json has the length of {layer}; give it as dim in {path.name}.json "
            f"and use onnx:{path}"
        )
    return dim


def _matryoshka_dims(config: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the lengths for truncation in the configuration."""
    lengths = config.get("matryoshka_dimensions")
    return tuple(n for n in lengths if isinstance(n, int) and n > 0) if isinstance(lengths, list) else ()
