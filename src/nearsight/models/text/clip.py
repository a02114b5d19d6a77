"""The text tower of CLIP, SigLIP and their like, in a folder of the Hugging Face ONNX layout."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearsight.errors import WeightsError
from nearsight.models.onnx_graph import inspect, tap
from nearsight.models.pooling import unit
from nearsight.models.runtimes.onnx import Network
from nearsight.models.spec import ModelSpec
from nearsight.models.text.tokenizer import Tokenizer

# Best first: the projection into the space of images; SigLIP's pooler is one already.
_OUTPUTS = ("text_embeds", "pooler_output")
# CLIP was trained with logits of 100 times the cosine (Radford et al. 2021, section 2.4).
_SHARPNESS = 100.0
_BATCH = 32


class ClipText:
    """Texts into the space of an image tower's vectors.

    Parameters
    ----------
    spec : ModelSpec
        The image tower.
    path : Path
        The graph with the text tower, alone or beside the image tower.
    folder : Path
        Where ``tokenizer.json``, ``tokenizer_config.json`` and ``config.json`` lie.

    Raises
    ------
    MissingExtraError
        `tokenizers` is not installed.
    WeightsError
        A file is missing, damaged, or gives vectors of another length than the image tower.
    """

    is_shared = True
    prompt = "a photo of a {}"

    def __init__(self, spec: ModelSpec, path: Path, folder: Path) -> None:
        self.spec = spec
        facts = inspect(path)
        output = next((name for name in _OUTPUTS if name in facts.outputs), None)
        if output is None:
            raise WeightsError(
                f"{path} gives {', '.join(facts.outputs)}, not {' or '.join(_OUTPUTS)}; export it with one "
                "of them"
            )
        self._output = output
        alone = len(facts.outputs) <= 2 and "pixel_values" not in facts.inputs
        self._network = Network(f"the text tower of {spec.id}", path if alone else tap(path, output))
        config = _read(folder / "config.json")
        self._tokenizer = _tokenizer(folder, config)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the (n, dim) vectors of texts, unit length; what is beyond the context is not read."""
        vectors = np.empty((len(texts), self.spec.dim), np.float32)
        for at in range(0, len(texts), _BATCH):
            ids, mask = self._tokenizer.encode(texts[at : at + _BATCH])
            given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
            wanted = {name: given[name] for name in self._network.inputs if name in given}
            found = self._network.run(self._output, wanted)
            if found.shape != (len(ids), self.spec.dim):
                raise WeightsError(
                    f"{self._network.name} gives vectors of shape {found.shape}, but those of images have "
                    f"{self.spec.dim} numbers; the two files are not of one model"
                )
            vectors[at : at + len(ids)] = found
        if not np.isfinite(vectors).all():
            raise WeightsError(f"{self._network.name} gave numbers that are not finite; fetch its file again")
        return unit(vectors)

    def project(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return image vectors as they are."""
        return X

    def aim(self, queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return text vectors as they are."""
        return queries

    def logits(self, X: NDArray[np.float32], queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (n, m) log-odds, up to a constant an image, that texts name images."""
        result: NDArray[np.float32] = _SHARPNESS * (X @ queries.T)
        return result


def _tokenizer(folder: Path, config: Mapping[str, Any]) -> Tokenizer:
    """Return the tokenizer, filling up and cutting as the model was trained to read."""
    path = folder / "tokenizer.json"
    beside = _read(folder / "tokenizer_config.json", needed=False)
    text = {**config, **(config.get("text_config") or {})}
    context = text.get("max_position_embeddings") or 77
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error}); fetch it again") from error
    # SigLIP was trained on texts of one length and takes no mask.
    is_full = str(config.get("model_type", "")).startswith("siglip")
    longest = min(context, int(beside.get("model_max_length") or context))
    return Tokenizer(data, max_tokens=longest, pad=_word(beside.get("pad_token")), to_full_length=is_full)


def _word(token: Any) -> str | None:
    """Return a special token's text: it may stand alone, or in an object with its properties."""
    found = token.get("content") if isinstance(token, Mapping) else token
    return found if isinstance(found, str) else None


def _read(path: Path, *, needed: bool = True) -> dict[str, Any]:
    if not needed and not path.is_file():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read as JSON ({error}); fetch it again") from error
    if not isinstance(data, dict):
        raise WeightsError(f"{path} holds no JSON object; fetch it again")
    return data
