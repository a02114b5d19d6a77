"""Reads the structure of ONNX graphs: which operations follow each other."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from nearsight.models.onnx_graph import read_graph_file

_ACTIVATIONS = {"Clip", "Relu", "LeakyRelu", "HardSwish", "Sigmoid", "HardSigmoid", "Gelu", "Erf", "Elu"}


def residual_sums(source: Path | bytes) -> list[str]:
    """Return the outputs of additions of two computed values, in order: the ends of residual blocks."""
    graph = read_graph_file(source, with_data=False).graph
    initializer_names = {tensor.name for tensor in graph.initializer}
    return [
        node.output[0]
        for node in graph.node
        if node.op_type == "Add" and not initializer_names & set(node.input) and node.output[0]
    ]


def linear_outputs(source: Path | bytes) -> list[str]:
    """Return outputs of convolutions and of additions of two computed values, in order.

    Convolutions that an activation follows are left out: their values are cut off at 0.
    """
    graph = read_graph_file(source, with_data=False).graph
    initializer_names = {tensor.name for tensor in graph.initializer}
    activated = {name for node in graph.node if node.op_type in _ACTIVATIONS for name in node.input[:1]}
    return [
        node.output[0]
        for node in graph.node
        if (node.op_type == "Conv" and node.output[0] not in activated)
        or (node.op_type == "Add" and not initializer_names & set(node.input))
    ]


@dataclass(frozen=True, slots=True)
class Convolution:
    """One convolution of a graph.

    Attributes
    ----------
    name, input : str
        Names of the node and of its input.
    weight, bias : str
        Names of its parameters; `bias` is empty if there is none that belongs to this node alone.
    groups : int
    """

    name: str
    input: str
    weight: str
    bias: str
    groups: int


def convolutions(source: Path | bytes) -> list[Convolution]:
    """Return the convolutions whose weights no other node uses, in order."""
    graph = read_graph_file(source, with_data=False).graph
    # Exporters store parameters of equal value once.
    uses = Counter(name for node in graph.node for name in node.input)
    initializers = {tensor.name for tensor in graph.initializer if uses[tensor.name] == 1}
    return [
        Convolution(
            node.name,
            node.input[0],
            node.input[1],
            next((name for name in node.input[2:] if name in initializers), ""),
            next((a.i for a in node.attribute if a.name == "group"), 1),
        )
        for node in graph.node
        if node.op_type == "Conv" and node.input[1] in initializers
    ]


def named_operations(source: Path | bytes) -> list[tuple[str, str]]:
    """Return name and kind of each node, in order."""
    return [(node.name, node.op_type) for node in read_graph_file(source, with_data=False).graph.node]


def chained_operations(source: Path | bytes, kinds: Collection[str], between: Collection[str]) -> list[str]:
    """Return operations of some kinds, and those in `between` whose computed inputs all come from them."""
    graph = read_graph_file(source, with_data=False).graph
    initializer_names = {tensor.name for tensor in graph.initializer}
    initializer_names |= {node.output[0] for node in graph.node if node.op_type == "Constant"}
    chain_outputs: set[str] = set()
    operations_in_chain = []
    for node in graph.node:
        computed_inputs = set(node.input) - initializer_names
        is_between = node.op_type in between and computed_inputs and computed_inputs <= chain_outputs
        if node.op_type in kinds or is_between:
            chain_outputs.update(node.output)
            operations_in_chain.append(node.name)
    return operations_in_chain


def operations(source: Path | bytes) -> list[str]:
    """Return the type of each node, in order."""
    return [node.op_type for node in read_graph_file(source, with_data=False).graph.node]


def is_excluded(name: str, operations: Sequence[str]) -> bool:
    """Whether an operation, or the block that it belongs to, is in a list.

    Examples
    --------
    >>> [is_excluded(name, ["block1"]) for name in ("block1", "block1.project", "block1/Add", "block11")]
    [True, True, True, False]
    """
    return any(name == start or name.startswith((f"{start}.", f"{start}/")) for start in operations)
