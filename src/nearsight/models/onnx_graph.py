"""ONNX graphs: built node by node, looked into, and tapped at any layer."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from nearsight.errors import WeightsError

# ONNX Runtime 1.20, the oldest supported, reads these.
_OPSET = 17
_IR_VERSION = 8

Shape = tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class GraphFacts:
    """What a model file says of itself.

    Attributes
    ----------
    inputs, outputs : mapping of str to tuple
        Shapes by name; None for an axis that takes any length.
    layers : frozenset of str
        Every value a node computes, outputs included.
    data_files : tuple of str
        Files beside the model that hold its weights, as paths relative to it.
    """

    inputs: Mapping[str, Shape]
    outputs: Mapping[str, Shape]
    layers: frozenset[str]
    data_files: tuple[str, ...]


def make_node(kind: str, inputs: Sequence[str], name: str, **attributes: Any) -> Any:
    """Return a node that computes one value, both of the same name."""
    from onnx import helper

    return helper.make_node(kind, inputs, [name], name=name, **attributes)


def serialize(
    name: str,
    nodes: Sequence[Any],
    weights: Mapping[str, NDArray[Any]],
    *,
    inputs: Mapping[str, Sequence[str | int]],
    outputs: Mapping[str, Sequence[str | int]],
    integers: Collection[str] = (),
) -> bytes:
    """Return a checked float32 model of these nodes; the same bytes for the same arguments.

    The inputs named in `integers` are int64, and weights keep the type they have.
    """
    from onnx import TensorProto, checker, helper, numpy_helper

    def infos(values: Mapping[str, Sequence[str | int]]) -> list[Any]:
        return [
            helper.make_tensor_value_info(
                name, TensorProto.INT64 if name in integers else TensorProto.FLOAT, shape
            )
            for name, shape in values.items()
        ]

    initializers = [numpy_helper.from_array(value, key) for key, value in weights.items()]
    model = helper.make_model(
        helper.make_graph(nodes, name, infos(inputs), infos(outputs), initializers),
        producer_name="nearsight",
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
    )
    checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def inspect(model: Path | bytes) -> GraphFacts:
    """Read what a model file says of itself; weights in files beside it are not read.

    Raises
    ------
    WeightsError
        The file is missing or is no ONNX model.
    """
    graph = _read(model, with_data=False).graph
    held = {tensor.name for tensor in graph.initializer}
    files = {
        entry.value
        for tensor in graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return GraphFacts(
        inputs={value.name: _shape(value) for value in graph.input if value.name not in held},
        outputs={value.name: _shape(value) for value in graph.output},
        layers=frozenset(name for node in graph.node for name in node.output if name),
        data_files=tuple(sorted(files)),
    )


def tap(source: Path | bytes, layer: str) -> bytes:
    """Return the part of a model that computes one layer, as a model of its own.

    What the layer does not need is left out, inputs too: of a file with two towers, one remains.

    Parameters
    ----------
    source : Path or bytes
        The model; weights beside it are taken in, to at most 2 GB in all.
    layer : str
        The name of a value: an output of any node.

    Raises
    ------
    WeightsError
        The file is no ONNX model, no node has such an output, or it is larger than a message can be.
    """
    import onnx

    model = _read(source, with_data=True)
    path = _named(source)
    graph = model.graph
    nodes, wanted = [], {layer}
    # Nodes are stored in an order in which each follows what it needs.
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            nodes.append(node)
            wanted |= _needs(node)
    if not nodes:
        raise WeightsError(f"{path} has no layer {layer!r}. Its nodes give {_some(graph)}.")
    inputs = [value for value in graph.input if value.name in wanted]
    weights = [tensor for tensor in graph.initializer if tensor.name in wanted]
    shapes = {value.name: value for value in (*graph.output, *graph.value_info)}
    output = shapes.get(layer) or onnx.ValueInfoProto(name=layer)
    tapped = onnx.GraphProto(name=graph.name, node=nodes[::-1], input=inputs, initializer=weights)
    tapped.output.append(output)
    tapped.sparse_initializer.extend(t for t in graph.sparse_initializer if t.values.name in wanted)
    model.graph.CopyFrom(tapped)
    try:
        return bytes(model.SerializeToString(deterministic=True))
    except Exception as error:  # protobuf has its own tree of exceptions
        raise WeightsError(
            f"{path} is too large to be cut at {layer!r} ({error}); export that layer as an output instead"
        ) from error


def layer_shapes(source: Path | bytes, input_px: tuple[int, int]) -> dict[str, Shape]:
    """Return the shape of every layer whose shape follows from one image at the input.

    Parameters
    ----------
    source : Path or bytes
        The model.
    input_px : tuple of int
        Height and width of that image.
    """
    from onnx import shape_inference

    model = _read(source, with_data=False)
    for value in model.graph.input:
        axes = value.type.tensor_type.shape.dim
        if len(axes) == 4:
            for axis, size in zip(axes, (1, 3, *input_px), strict=True):
                axis.dim_value = size
    # Declared for any number of images, these would hide what follows from one.
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    graph = shape_inference.infer_shapes(model, data_prop=True).graph
    return {value.name: _shape(value) for value in (*graph.value_info, *graph.output) if _shape(value)}


def sums(source: Path | bytes) -> list[str]:
    """Return the values that are sums of two values of the graph, in order: where residual blocks end."""
    graph = _read(source, with_data=False).graph
    held = {tensor.name for tensor in graph.initializer}
    return [
        node.output[0]
        for node in graph.node
        if node.op_type == "Add" and not held & set(node.input) and node.output[0]
    ]


@dataclass(frozen=True, slots=True)
class Convolution:
    """One convolution of a graph.

    Attributes
    ----------
    name, reads : str
        Of the node, and of the value it reads.
    weight, bias : str
        Of its parameters; `bias` is empty where it has none of its own.
    groups : int
    """

    name: str
    reads: str
    weight: str
    bias: str
    groups: int


def convolutions(source: Path | bytes) -> list[Convolution]:
    """Return the convolutions whose weights are held in the graph for them alone, in order."""
    graph = _read(source, with_data=False).graph
    # Exporters let parameters of equal value share one place.
    uses = Counter(name for node in graph.node for name in node.input)
    own = {tensor.name for tensor in graph.initializer if uses[tensor.name] == 1}
    return [
        Convolution(
            node.name,
            node.input[0],
            node.input[1],
            next((name for name in node.input[2:] if name in own), ""),
            next((a.i for a in node.attribute if a.name == "group"), 1),
        )
        for node in graph.node
        if node.op_type == "Conv" and node.input[1] in own
    ]


def named_operations(source: Path | bytes) -> list[tuple[str, str]]:
    """Return name and kind of each node, in order."""
    return [(node.name, node.op_type) for node in _read(source, with_data=False).graph.node]


def chained(source: Path | bytes, kinds: Collection[str], between: Collection[str]) -> list[str]:
    """Return the operations of some kinds, and those `between` that work on nothing but what they give."""
    graph = _read(source, with_data=False).graph
    held = {tensor.name for tensor in graph.initializer}
    held |= {node.output[0] for node in graph.node if node.op_type == "Constant"}
    given: set[str] = set()
    found = []
    for node in graph.node:
        worked_on = set(node.input) - held
        if node.op_type in kinds or (node.op_type in between and worked_on and worked_on <= given):
            given.update(node.output)
            found.append(node.name)
    return found


def named(source: Path | bytes) -> bytes:
    """Return the model with a name for each operation, marked as ready for ONNX Runtime's quantizer."""
    from onnx import StringStringEntryProto

    model = _read(source, with_data=True)
    for node in model.graph.node:
        node.name = node.name or next(filter(None, node.output))
    # Without it, the quantizer writes a warning through the root logger.
    model.metadata_props.append(
        StringStringEntryProto(key="onnx.quant.pre_process", value="onnxruntime.quant")
    )
    return bytes(model.SerializeToString(deterministic=True))


def unshared(source: Path | bytes) -> bytes:
    """Return the model with a copy of a weight wherever an exporter let an operation pass on another's.

    Weights of equal value are stored once then, and what corrects one of them would change them all.
    """
    model = _read(source, with_data=True)
    graph = model.graph
    held = {tensor.name: tensor for tensor in graph.initializer}
    given = {value.name for value in graph.output}
    kept = []
    for node in graph.node:
        if node.op_type == "Identity" and node.input[0] in held and node.output[0] not in given:
            copy = graph.initializer.add()
            copy.CopyFrom(held[node.input[0]])
            copy.name = node.output[0]
            held[copy.name] = copy
        else:
            kept.append(type(node).FromString(node.SerializeToString()))
    del graph.node[:]
    graph.node.extend(kept)
    return bytes(model.SerializeToString(deterministic=True))


def weights(source: Path | bytes) -> dict[str, NDArray[Any]]:
    """Return what the graph holds, by name."""
    from onnx import numpy_helper

    return {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in _read(source, with_data=True).graph.initializer
    }


def with_weights(source: Path | bytes, changed: Mapping[str, NDArray[Any]]) -> bytes:
    """Return the model with some of its weights replaced."""
    from onnx import numpy_helper

    model = _read(source, with_data=True)
    for tensor in model.graph.initializer:
        if tensor.name in changed:
            tensor.CopyFrom(numpy_helper.from_array(changed[tensor.name], tensor.name))
    return bytes(model.SerializeToString(deterministic=True))


def with_outputs(source: Path | bytes, names: Collection[str]) -> bytes:
    """Return the model giving these values as well."""
    from onnx import ValueInfoProto

    model = _read(source, with_data=True)
    there = {value.name for value in model.graph.output}
    model.graph.output.extend(ValueInfoProto(name=name) for name in names if name not in there)
    return bytes(model.SerializeToString(deterministic=True))


def with_free_sizes(source: Path | bytes) -> bytes:
    """Return the model for images of any number and size; its weights no longer count as inputs.

    The runtime merges layers only where it knows that the weights cannot change.
    """
    model = _read(source, with_data=True)
    held = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in held]
    for value in (*inputs, *model.graph.output):
        axes = value.type.tensor_type.shape.dim
        for i, axis in enumerate(axes):
            if i != 1:
                axis.dim_param = f"{value.name}.{i}"
    kept = [type(value).FromString(value.SerializeToString()) for value in inputs]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    # Shapes told for one size would be wrong for others.
    del model.graph.value_info[:]
    return bytes(model.SerializeToString(deterministic=True))


def converted(source: Path | bytes, convert: Callable[[Any], Any]) -> bytes:
    """Return what a converter of types makes of the model, without pairs of casts that only lose bits.

    Where an operation left in float32 follows another, it reads what that one gave, not what was rounded
    to float16 in between.
    """
    from onnx import TensorProto

    graph = (model := convert(_read(source, with_data=True))).graph
    casts = [node for node in graph.node if node.op_type == "Cast"]
    up = {c.output[0]: c.input[0] for c in casts if any(a.i == TensorProto.FLOAT for a in c.attribute)}
    # Those of the converter, which names them so; others may come from whole numbers.
    down = {c.output[0]: c.input[0] for c in casts if c.name.endswith("_cast_to_fp16_node")}
    for node in graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = down.get(up.get(name, ""), name)
    # The converter puts all its casts last.
    ordered = _in_order(graph.node)
    del graph.node[:]
    graph.node.extend(ordered)
    return bytes(model.SerializeToString(deterministic=True))


def operations(source: Path | bytes) -> list[str]:
    """Return the kind of each node, in order."""
    return [node.op_type for node in _read(source, with_data=False).graph.node]


def _named(source: Path | bytes) -> str:
    return "the model" if isinstance(source, bytes) else str(source)


def _read(source: Path | bytes, *, with_data: bool) -> Any:
    import onnx

    path = _named(source)
    try:
        if isinstance(source, bytes):
            return onnx.load_model_from_string(source)
        return onnx.load(source, load_external_data=with_data)
    # A damaged file can raise protobuf's errors, which are no public names.
    except Exception as error:
        raise WeightsError(
            f"{path} cannot be read as an ONNX model ({type(error).__name__}: {error}); "
            "fetch or export it again"
        ) from error


def _shape(value: Any) -> Shape:
    return tuple(
        axis.dim_value if axis.HasField("dim_value") else None for axis in value.type.tensor_type.shape.dim
    )


def _needs(node: Any) -> set[str]:
    """Return what a node reads, with what the bodies of its loops and branches read from outside."""
    names = set(node.input)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                names |= _needs(inner)
            names.update(value.name for value in graph.output)
    return names


def _in_order(nodes: Sequence[Any]) -> list[Any]:
    """Return copies of nodes, each after those that give what it needs; as they are, as far as that goes."""
    makers = {name: node for node in nodes for name in node.output}
    ordered: dict[int, Any] = {}

    def place(node: Any) -> None:
        if id(node) in ordered:
            return
        for name in sorted(_needs(node)):
            if name in makers:
                place(makers[name])
        ordered[id(node)] = node

    for node in nodes:
        place(node)
    return [type(node).FromString(node.SerializeToString()) for node in ordered.values()]


def _some(graph: Any, n: int = 8) -> str:
    names = [name for node in graph.node for name in node.output]
    shown = ", ".join(names[-n:])
    return shown if len(names) <= n else f"{len(names)} values, the last of them {shown}"


def is_kept(name: str, keep: Sequence[str]) -> bool:
    """Whether an operation is one of those named, or a part of one.

    Examples
    --------
    >>> [is_kept(name, ["block1"]) for name in ("block1", "block1.project", "block1/Add", "block11")]
    [True, True, True, False]
    """
    return any(name == start or name.startswith((f"{start}.", f"{start}/")) for start in keep)
