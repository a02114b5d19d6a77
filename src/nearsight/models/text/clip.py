"""Text encoders of CLIP, SigLIP and similar models, in a folder of the Hugging Face ONNX layout."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearsight.errors import WeightsError
from nearsight.models.onnx_graph import extract_layer, read_graph_facts
from nearsight.models.pooling import unit_length
from nearsight.models.runtimes.onnx import OnnxNetwork
from nearsight.models.spec import ModelSpec
from nearsight.models.text.tokenizer import Tokenizer

# In order of preference: the projection to the space of images; SigLIP's pooler is that already.
_OUTPUTS = ("text_embeds", "pooler_output")
# CLIP's logits are 100 times the cosine (Radford et al. 2021, section 2.4).
_LOGIT_SCALE = 100.0
_BATCH_SIZE = 32


class ClipTextEncoder:
    """Embeds texts in the space of the model's image vectors.

    Parameters
    ----------
    spec : ModelSpec
        The facts of the model.
    path : Path
        The graph of the text encoder, alone or with the image encoder.
    folder : Path
        Folder of ``tokenizer.json``, ``tokenizer_config.json`` and ``config.json``.

    Raises
    ------
    MissingExtraError
        `tokenizers` is not installed.
    WeightsError
        A file is missing or damaged, or text and image vectors have different lengths.
    """

    shares_space = True
    prompt = "a photo of a {}"

    def __init__(self, spec: ModelSpec, path: Path, folder: Path) -> None:
        self.spec = spec
        facts = read_graph_facts(path)
        output = next((name for name in _OUTPUTS if name in facts.outputs), None)
        if output is None:
            raise WeightsError(
                f"{path} has the outputs {', '.join(facts.outputs)}; it must have one of "
                f"{', '.join(_OUTPUTS)}. Export it with one of them"
            )
        self._output = output
        self._batch_size = 1 if facts.depends_on_batch else _BATCH_SIZE
        is_text_only = len(facts.outputs) <= 2 and "pixel_values" not in facts.inputs
        self._network = OnnxNetwork(
            f"the text encoder of {spec.id}", path if is_text_only else extract_layer(path, output)
        )
        config = _read(folder / "config.json")
        self._tokenizer = _tokenizer(folder, config)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the (n, dim) vectors of texts, unit length; texts are truncated to the model's context."""
        vectors = np.empty((len(texts), self.spec.dim), np.float32)
        for start in range(0, len(texts), self._batch_size):
            ids, mask = self._tokenizer.encode(texts[start : start + self._batch_size])
            values = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
            inputs = {name: values[name] for name in self._network.inputs if name in values}
            batch = self._network.run(self._output, inputs)
            if batch.shape != (len(ids), self.spec.dim):
                raise WeightsError(
                    f"{self._network.name} returns vectors of shape {batch.shape}, but image vectors have "
                    f"{self.spec.dim} numbers; the two files belong to different models"
                )
            vectors[start : start + len(ids)] = batch
        if not np.isfinite(vectors).all():
            raise WeightsError(
                f"{self._network.name} computed numbers that are not finite; download its file again"
            )
        return unit_length(vectors)

    def to_text_space(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the image vectors unchanged."""
        return X

    def to_image_space(self, queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the text vectors unchanged."""
        return queries

    def logits(self, X: NDArray[np.float32], queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (n, m) log-odds that texts describe images, up to a constant per image."""
        result: NDArray[np.float32] = _LOGIT_SCALE * (X @ queries.T)
        return result


def _tokenizer(folder: Path, config: Mapping[str, Any]) -> Tokenizer:
    """Return the tokenizer, with padding and truncation as in the training of the model."""
    path = folder / "tokenizer.json"
    tokenizer_config = _read(folder / "tokenizer_config.json", required=False)
    text = {**config, **(config.get("text_config") or {})}
    context = text.get("max_position_embeddings") or 77
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error}); download it again") from error
    # SigLIP was trained on texts of one length and takes no mask.
    has_fixed_length = str(config.get("model_type", "")).startswith("siglip")
    max_tokens = min(context, int(tokenizer_config.get("model_max_length") or context))
    return Tokenizer(
        data,
        max_tokens=max_tokens,
        pad=_token_text(tokenizer_config.get("pad_token")),
        pad_to_max=has_fixed_length,
    )


def _token_text(token: Any) -> str | None:
    """Return the text of a special token, which may be a string or an object with properties."""
    text = token.get("content") if isinstance(token, Mapping) else token
    return text if isinstance(text, str) else None


def _read(path: Path, *, required: bool = True) -> dict[str, Any]:
    if not required and not path.is_file():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read as JSON ({error}); download it again") from error
    if not isinstance(data, dict):
        raise WeightsError(f"{path} does not contain a JSON object; download it again")
    return data
