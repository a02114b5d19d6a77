"""Builds, reads and edits ONNX graphs; the only module that imports `onnx`."""

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
    """Facts that a model file contains about itself.

    Attributes
    ----------
    inputs, outputs : mapping of str to tuple
        Shapes by name; None for an axis that takes any length.
    layers : frozenset of str
        All values that nodes compute, outputs included.
    data_files : tuple of str
        Paths, relative to the model, of files that hold its weights.
    depends_on_batch : bool
        Whether the vector of an item depends on the others of its batch: dynamic quantization takes one scale
        for all of them.
    """

    inputs: Mapping[str, Shape]
    outputs: Mapping[str, Shape]
    layers: frozenset[str]
    data_files: tuple[str, ...]
    depends_on_batch: bool


def make_node(kind: str, inputs: Sequence[str], name: str, **attributes: Any) -> Any:
    """Return a node with one output; node and output have the same name."""
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
    levels: Collection[str] = (),
    halves: Collection[str] = (),
) -> bytes:
    """Return a checked float32 model of these nodes; the same arguments give the same bytes.

    The inputs and outputs named in `integers` are int64, those in `levels` uint8 and those in `halves`
    float16. Weights keep their type.
    """
    from onnx import TensorProto, checker, helper, numpy_helper

    def infos(values: Mapping[str, Sequence[str | int]]) -> list[Any]:
        types = {
            **dict.fromkeys(integers, TensorProto.INT64),
            **dict.fromkeys(levels, TensorProto.UINT8),
            **dict.fromkeys(halves, TensorProto.FLOAT16),
        }
        return [
            helper.make_tensor_value_info(name, types.get(name, TensorProto.FLOAT), shape)
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


def read_graph_facts(model: Path | bytes) -> GraphFacts:
    """Read the facts of a model file, without the weights in files beside it.

    Raises
    ------
    WeightsError
        The file is missing or not an ONNX model.
    """
    content = read_graph_file(model, with_data=False)
    graph = content.graph
    initializer_names = {tensor.name for tensor in graph.initializer}
    files = {
        entry.value
        for tensor in graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return GraphFacts(
        inputs={value.name: _shape(value) for value in graph.input if value.name not in initializer_names},
        outputs={value.name: _shape(value) for value in graph.output},
        layers=frozenset(name for node in graph.node for name in node.output if name),
        data_files=tuple(sorted(files)),
        depends_on_batch=any(_depends_on_batch(each.node) for each in (graph, *content.functions)),
    )


def _depends_on_batch(nodes: Sequence[Any]) -> bool:
    return any(
        node.op_type == "DynamicQuantizeLinear"
        or any(_depends_on_batch(each.node) for a in node.attribute for each in (a.g, *a.graphs))
        for node in nodes
    )


def extract_layer(source: Path | bytes, layer: str) -> bytes:
    """Return the part of a model that computes one layer, as a model of its initializers.

    Nodes and inputs that the layer does not need are dropped, such as the text encoder of a CLIP model.

    Parameters
    ----------
    source : Path or bytes
        The model; weights in files beside it are included, up to 2 GB in all.
    layer : str
        Name of an output of any node.

    Raises
    ------
    WeightsError
        The file is not an ONNX model, no node has such an output, or the result exceeds 2 GB.
    """
    import onnx

    model = read_graph_file(source, with_data=True)
    path = _describe(source)
    graph = model.graph
    nodes, needed = [], {layer}
    # Nodes are stored in topological order.
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            nodes.append(node)
            needed |= _needs(node)
    if not nodes:
        raise WeightsError(f"{path} has no layer {layer!r}. Its layers are {_preview_names(graph)}.")
    inputs = [value for value in graph.input if value.name in needed]
    weights = [tensor for tensor in graph.initializer if tensor.name in needed]
    shapes = {value.name: value for value in (*graph.output, *graph.value_info)}
    output = shapes.get(layer) or onnx.ValueInfoProto(name=layer)
    subgraph = onnx.GraphProto(name=graph.name, node=nodes[::-1], input=inputs, initializer=weights)
    subgraph.output.append(output)
    subgraph.sparse_initializer.extend(t for t in graph.sparse_initializer if t.values.name in needed)
    model.graph.CopyFrom(subgraph)
    try:
        return bytes(model.SerializeToString(deterministic=True))
    except Exception as error:  # protobuf has its initializers tree of exceptions
        raise WeightsError(
            f"{path} is too large to extract {layer!r} ({error}); export it with that layer as an output"
        ) from error


def layer_shapes(source: Path | bytes, input_px: tuple[int, int]) -> dict[str, Shape]:
    """Return the shape of each layer for one image, as far as it can be inferred.

    Parameters
    ----------
    source : Path or bytes
        The model.
    input_px : tuple of int
        Height and width of the image.
    """
    from onnx import shape_inference

    model = read_graph_file(source, with_data=False)
    for value in model.graph.input:
        axes = value.type.tensor_type.shape.dim
        if len(axes) == 4:
            for axis, size in zip(axes, (1, 3, *input_px), strict=True):
                axis.dim_value = size
    # Declared output shapes leave the number of images open and would stop the inference.
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    graph = shape_inference.infer_shapes(model, data_prop=True).graph
    return {value.name: _shape(value) for value in (*graph.value_info, *graph.output) if _shape(value)}


def with_operation_names(source: Path | bytes) -> bytes:
    """Return the model with a name for each operation, marked as prepared for ONNX Runtime's quantizer."""
    from onnx import StringStringEntryProto

    model = read_graph_file(source, with_data=True)
    taken = {node.name for node in model.graph.node}
    for node in model.graph.node:
        if not node.name:
            node.name = _free_name(next(filter(None, node.output)), taken)
    # Without this mark, the quantizer logs a warning.
    model.metadata_props.append(
        StringStringEntryProto(key="onnx.quant.pre_process", value="onnxruntime.quant")
    )
    return bytes(model.SerializeToString(deterministic=True))


def without_shared_weights(source: Path | bytes) -> bytes:
    """Return the model with a copy of each weight that an ``Identity`` operation reuses.

    Exporters store equal weights once. Correcting a shared weight would change all its uses.
    """
    model = read_graph_file(source, with_data=True)
    graph = model.graph
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    outputs = {value.name for value in graph.output}
    nodes = []
    for node in graph.node:
        if node.op_type == "Identity" and node.input[0] in initializers and node.output[0] not in outputs:
            copy = graph.initializer.add()
            copy.CopyFrom(initializers[node.input[0]])
            copy.name = node.output[0]
            initializers[copy.name] = copy
        else:
            nodes.append(type(node).FromString(node.SerializeToString()))
    del graph.node[:]
    graph.node.extend(nodes)
    return bytes(model.SerializeToString(deterministic=True))


def weights(source: Path | bytes) -> dict[str, NDArray[Any]]:
    """Return the graph's initializers by name."""
    from onnx import numpy_helper

    return {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in read_graph_file(source, with_data=True).graph.initializer
    }


def with_weights(source: Path | bytes, changed: Mapping[str, NDArray[Any]]) -> bytes:
    """Return the model with some of its weights replaced."""
    from onnx import numpy_helper

    model = read_graph_file(source, with_data=True)
    for tensor in model.graph.initializer:
        if tensor.name in changed:
            tensor.CopyFrom(numpy_helper.from_array(changed[tensor.name], tensor.name))
    return bytes(model.SerializeToString(deterministic=True))


def with_outputs(source: Path | bytes, names: Collection[str]) -> bytes:
    """Return the model with these values as additional outputs."""
    from onnx import ValueInfoProto

    model = read_graph_file(source, with_data=True)
    there = {value.name for value in model.graph.output}
    model.graph.output.extend(ValueInfoProto(name=name) for name in names if name not in there)
    return bytes(model.SerializeToString(deterministic=True))


def with_nodes(
    source: Path | bytes,
    nodes: Sequence[Any],
    weights: Mapping[str, NDArray[Any]],
    outputs: Mapping[str, int],
) -> bytes:
    """Return the model with nodes and weights added at its end, and these as its outputs.

    Parameters
    ----------
    source : Path or bytes
        The model.
    nodes : sequence
        Results of `make_node`, in the order in which they are computed.
    weights : mapping of str to ndarray
    outputs : mapping of str to int
        Length of each output's vectors.
    """
    from onnx import TensorProto, checker, helper, numpy_helper

    model = read_graph_file(source, with_data=True)
    graph = model.graph
    graph.node.extend(nodes)
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in weights.items())
    del graph.output[:]
    for name, dim in outputs.items():
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", dim]))
    checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def with_free_sizes(source: Path | bytes) -> bytes:
    """Return the model for any number and size of images, without weights among its inputs.

    The runtime fuses layers only if their weights are not inputs.
    """
    model = read_graph_file(source, with_data=True)
    initializer_names = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in initializer_names]
    for value in (*inputs, *model.graph.output):
        axes = value.type.tensor_type.shape.dim
        for i, axis in enumerate(axes):
            if i != 1:
                axis.dim_param = f"{value.name}.{i}"
    nodes_kept = [type(value).FromString(value.SerializeToString()) for value in inputs]
    del model.graph.input[:]
    model.graph.input.extend(nodes_kept)
    # Shapes inferred for one size would be wrong for others.
    del model.graph.value_info[:]
    return bytes(model.SerializeToString(deterministic=True))


def convert_types(source: Path | bytes, convert: Callable[[Any], Any]) -> bytes:
    """Convert the model's types and remove pairs of casts that only lose precision.

    An operation in float32 then reads the output of another one directly, not rounded to float16 in between.
    ONNX Runtime 1.31 writes the cast of a value once for each operation that reads it, always
    under the same name; repetitions are removed.

    Raises
    ------
    Exception
        The result is not a valid model, although the source is one.
    """
    from onnx import TensorProto

    model = read_graph_file(source, with_data=True)
    # The model's own casts may be of whole numbers.
    own_casts = {node.name for node in model.graph.node if node.op_type == "Cast"}
    graph = (model := convert(model)).graph
    _remove_repetitions(graph)
    casts = [node for node in graph.node if node.op_type == "Cast"]
    up = {c.output[0]: c.input[0] for c in casts if _casts_to(c, TensorProto.FLOAT)}
    down = {
        c.output[0]: c.input[0]
        for c in casts
        if _casts_to(c, TensorProto.FLOAT16) and c.name not in own_casts
    }
    for node in graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = down.get(up.get(name, ""), name)
    # The converter appends its casts at the end.
    ordered = _in_order(graph.node)
    del graph.node[:]
    graph.node.extend(ordered)
    if (fault := _fault(model)) is not None and _fault(read_graph_file(source, with_data=True)) is None:
        raise fault
    return bytes(model.SerializeToString(deterministic=True))


def _casts_to(cast: Any, kind: int) -> bool:
    return any(attribute.i == kind for attribute in cast.attribute if attribute.name == "to")


def _remove_repetitions(graph: Any) -> None:
    """Keep one of several equal nodes and of several facts about a value; give each node its own name."""
    nodes: dict[bytes, Any] = {}
    facts: dict[str, Any] = {}
    for node in graph.node:
        nodes.setdefault(node.SerializeToString(deterministic=True), node)
    for value in graph.value_info:
        facts.setdefault(value.name, value)
    kept = [type(node).FromString(node.SerializeToString()) for node in nodes.values()]
    values = [type(value).FromString(value.SerializeToString()) for value in facts.values()]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(kept)
    graph.value_info.extend(values)
    taken: set[str] = set()
    for node in graph.node:
        node.name = _free_name(node.name, taken) if node.name else ""


def _free_name(name: str, taken: set[str]) -> str:
    """Return the name, with a number behind it if it is taken, and take it."""
    free, n = name, 1
    while free in taken:
        n += 1
        free = f"{name}_{n}"
    taken.add(free)
    return free


def _fault(model: Any) -> Exception | None:
    """Return why a model is not valid; None if it is."""
    from onnx import checker

    try:
        checker.check_model(model, full_check=True)
    except Exception as error:  # of the checker, of shape inference, or of protobuf
        return error
    return None


def _describe(source: Path | bytes) -> str:
    return "the model" if isinstance(source, bytes) else str(source)


def read_graph_file(source: Path | bytes, *, with_data: bool) -> Any:
    """Return a model as `onnx` reads it, with or without weights in files beside it."""
    import onnx

    path = _describe(source)
    try:
        if isinstance(source, bytes):
            return onnx.load_model_from_string(source)
        return onnx.load(source, load_external_data=with_data)
    # A damaged file can raise private exceptions of protobuf.
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
    """Return the inputs of a node, including what its loops and branches read from outside."""
    names = set(node.input)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                names |= _needs(inner)
            names.update(value.name for value in graph.output)
    return names


def _in_order(nodes: Sequence[Any]) -> list[Any]:
    """Return copies of nodes in topological order, otherwise in their own order."""
    makers = {name: node for node in nodes for name in node.output}
    ordered: dict[int, Any] = {}

    def visit(node: Any) -> None:
        if id(node) in ordered:
            return
        for name in sorted(_needs(node)):
            if name in makers:
                visit(makers[name])
        ordered[id(node)] = node

    for node in nodes:
        visit(node)
    return [type(node).FromString(node.SerializeToString()) for node in ordered.values()]


def _preview_names(graph: Any, n: int = 8) -> str:
    names = [name for node in graph.node for name in node.output]
    shown = ", ".join(names[-n:])
    return shown if len(names) <= n else f"{len(names)} values, the last of them {shown}"
