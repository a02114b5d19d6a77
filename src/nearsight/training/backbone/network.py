"""EfficientNet-Lite in PyTorch, whole or from one of its blocks on, with the weights' own names."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from nearsight.models.base import TrainableNetwork
from nearsight.models.weights.efficientnet_lite import BATCH_NORM_EPSILON, same_padding


class _Convolution(nn.Conv2d):
    """A convolution without bias, padded as TensorFlow does."""

    def __init__(self, weight: NDArray[Any], stride: int = 1) -> None:
        n_out, n_in, size_px, _ = weight.shape
        # A depthwise convolution has one input channel per filter.
        groups = n_out if n_in == 1 else 1
        super().__init__(
            n_in * groups,
            n_out,
            size_px,
            stride,
            padding=size_px // 2 if stride == 1 else 0,
            groups=groups,
            bias=False,
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.stride[0] > 1:
            top, bottom = same_padding(x.shape[2], self.kernel_size[0], self.stride[0])
            left, right = same_padding(x.shape[3], self.kernel_size[1], self.stride[1])
            x = functional.pad(x, (left, right, top, bottom))
        return super().forward(x)


class _Block(nn.Module):
    """An inverted residual block, with the input added if the shapes match."""

    def __init__(self, state: Mapping[str, NDArray[Any]], name: str, stride: int) -> None:
        super().__init__()
        self._expand_conv = None
        if f"{name}._expand_conv.weight" in state:
            self._expand_conv = _Convolution(state[f"{name}._expand_conv.weight"])
            self._bn0 = _norm(self._expand_conv)
        self._depthwise_conv = _Convolution(state[f"{name}._depthwise_conv.weight"], stride)
        self._bn1 = _norm(self._depthwise_conv)
        self._project_conv = _Convolution(state[f"{name}._project_conv.weight"])
        self._bn2 = _norm(self._project_conv)
        self._stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inside = x
        if self._expand_conv is not None:
            inside = functional.relu6(self._bn0(self._expand_conv(inside)))
        inside = functional.relu6(self._bn1(self._depthwise_conv(inside)))
        inside = self._bn2(self._project_conv(inside))
        return inside + x if self._stride == 1 and inside.shape[1] == x.shape[1] else inside


class EfficientNetLite(nn.Module):
    """The network up to its pooled vector, from the input image or from a block's input on.

    Statistics of the batch normalizations stay as they are, so that small batches do no harm and the vector
    of an image does not depend on others; their gains and shifts are trained.

    Parameters
    ----------
    trainable : TrainableNetwork
    first_block : int
        The first block of the module; 0 for the whole network.
    state : mapping of str to ndarray, optional
        Weights, if not the pretrained ones.
    """

    def __init__(
        self,
        trainable: TrainableNetwork,
        first_block: int = 0,
        state: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        super().__init__()
        state = trainable.state() if state is None else state
        shapes: Sequence[tuple[int, int]] = trainable.blocks
        if first_block == 0:
            self._conv_stem = _Convolution(state["_conv_stem.weight"], stride=2)
            self._bn0 = _norm(self._conv_stem)
        self.first_block = first_block
        # Numbered as in the whole network.
        self._blocks = nn.ModuleDict(
            {
                str(i): _Block(state, f"_blocks.{i}", stride)
                for i, (_, stride) in enumerate(shapes)
                if i >= first_block
            }
        )
        self._conv_head = _Convolution(state["_conv_head.weight"])
        self._bn1 = _norm(self._conv_head)
        self.dim = len(state["_conv_head.weight"])
        own = self.state_dict().keys()
        self.load_state_dict({name: torch.from_numpy(np.array(state[name])) for name in own})
        self.eval()

    def train(self, mode: bool = True) -> "EfficientNetLite":
        """Stay in evaluation mode, which is the one in which statistics are kept."""
        super().train(False)
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (n, dim) vectors of (n, 3, H, W) normalized pixels, or of a block's (n, c, h, w) inputs."""
        return self.pooled(self.last_maps(x))

    def last_maps(self, x: torch.Tensor) -> torch.Tensor:
        """Return the feature maps of the last block, (n, c, h, w)."""
        if self.first_block == 0:
            x = functional.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks.values():
            x = block(x)
        return x

    def pooled(self, last_maps: torch.Tensor) -> torch.Tensor:
        """Return the vectors of the last block's feature maps."""
        return functional.relu6(self._bn1(self._conv_head(last_maps))).mean(dim=(2, 3))


def arrays(state: Mapping[str, torch.Tensor]) -> dict[str, NDArray[Any]]:
    """Return a state dict as arrays on the processor."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in state.items()}


def _norm(convolution: nn.Conv2d) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(convolution.out_channels, eps=BATCH_NORM_EPSILON)
