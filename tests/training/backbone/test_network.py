"""The network in PyTorch against the same weights in ONNX Runtime."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from nearsight.models.registry import find_model  # noqa: E402
from nearsight.models.runtimes.onnx import OnnxNetwork  # noqa: E402
from nearsight.training.backbone.network import EfficientNetLite, arrays  # noqa: E402

LAYER = {"efficientnet-lite0": "block14.add", "efficientnet-lite2": "block21.add"}


@pytest.mark.parametrize("name", LAYER)
def test_changed_weights_give_the_same_vectors_in_onnx(name):
    entry = find_model(name)
    if not entry.available():
        pytest.skip(f"{name} is not installed")
    trainable = entry.trainable
    network = EfficientNetLite(trainable)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1 + 0.02 * torch.randn_like(parameter))
    state = {**trainable.state(), **arrays(network.state_dict())}
    pixels = np.random.default_rng(0).normal(size=(2, 3, *entry.spec.input_px)).astype(np.float32)
    onnx = OnnxNetwork(name, trainable.build(state))
    [input_name] = onnx.inputs
    expected = onnx.run_all(["pooled"], {input_name: pixels})["pooled"]
    with torch.no_grad():
        np.testing.assert_allclose(network(torch.from_numpy(pixels)).numpy(), expected, atol=1e-4)


def test_the_last_block_alone_continues_from_its_input():
    entry = find_model("efficientnet-lite0")
    whole = EfficientNetLite(entry.trainable)
    n_blocks = len(entry.trainable.blocks)
    tail = EfficientNetLite(entry.trainable, n_blocks - 1)
    inputs = []
    whole._blocks[str(n_blocks - 1)].register_forward_pre_hook(lambda _, x: inputs.append(x[0]))
    with torch.no_grad():
        vectors = whole(torch.randn(2, 3, 224, 224))
        assert torch.equal(tail(inputs[0]), vectors)
    assert inputs[0].shape == (2, 192, 7, 7)
    assert set(tail.state_dict()) < set(whole.state_dict())
    assert not any(module.training for module in whole.train().modules())
