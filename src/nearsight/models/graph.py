"""ONNX graphs: built node by node, looked into, and tapped at any layer."""

from collections.abc import Collection, Mapping, Sequence
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


def serialise(
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


def inspect(path: Path) -> GraphFacts:
    """Read what a model file says of itself; weights in files beside it are not read.

    Raises
    ------
    WeightsError
        The file is missing or is no ONNX model.
    """
    graph = _read(path, with_data=False).graph
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


def tap(path: Path, layer: str) -> bytes:
    """Return the part of a model that computes one layer, as a model of its own.

    What the layer does not need is left out, inputs too: of a file with two towers, one remains.

    Parameters
    ----------
    path : Path
        The model; weights beside it are taken in, to at most 2 GB in all.
    layer : str
        The name of a value: an output of any node.

    Raises
    ------
    WeightsError
        The file is no ONNX model, no node has such an output, or it is larger than a message can be.
    """
    import onnx

    model = _read(path, with_data=True)
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


def _read(path: Path, *, with_data: bool) -> Any:
    import onnx

    try:
        return onnx.load(path, load_external_data=with_data)
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


def _some(graph: Any, n: int = 8) -> str:
    names = [name for node in graph.node for name in node.output]
    shown = ", ".join(names[-n:])
    return shown if len(names) <= n else f"{len(names)} values, the last of them {shown}"
