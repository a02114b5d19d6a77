"""Decoders that leave pixels in the memory of a device; the only module that imports nvImageCodec."""

import os
from collections.abc import Sequence
from typing import Any, Protocol

from nearsight.models.runtimes.devices import split_device
from nearsight.models.runtimes.onnx_session import DeviceArray
from nearsight.processor import n_cores

# Parts of a JPEG are decoded on the processor, whose cores have other work.
_MAX_THREADS = 4


class JpegDecoder(Protocol):
    """Decodes JPEGs; used by one thread at a time.

    Attributes
    ----------
    version : str
        Of what decides on the pixels.
    """

    version: str

    def decode(self, files: Sequence[bytes]) -> Sequence[DeviceArray | None]:
        """Return the pixels of each file, uint8 (height, width, 3) in RGB, not turned by EXIF.

        None in place of a file that cannot be decoded. The pixels may still be written when this returns.
        """
        ...


class NvImageCodec:
    """NVIDIA's decoder: by the JPEG engine of a GPU, by its cores, or with ``cpu`` by libjpeg-turbo.

    Its upsampling is libjpeg's by default; levels differ by one at most.

    Parameters
    ----------
    device : str
        ``cuda``, ``cuda:1``, or ``cpu``.
    """

    def __init__(self, device: str) -> None:
        # It would write each file that it cannot decode to stderr.
        os.environ.setdefault("PYNVIMGCODEC_VERBOSITY", "0")
        from nvidia import nvimgcodec

        self._codec = nvimgcodec
        self.version = f"nvimgcodec{nvimgcodec.__version__}"
        name, number = split_device(device)
        n_threads = max(1, min(_MAX_THREADS, n_cores() // 4))
        if name == "cpu":
            backends = [nvimgcodec.Backend(nvimgcodec.BackendKind.CPU_ONLY)]
            number = nvimgcodec.NVIMGCODEC_DEVICE_CPU_ONLY
        else:
            # Without the decoders of the processor: what the GPU cannot decode goes to ours.
            kinds = nvimgcodec.BackendKind
            backends = [
                nvimgcodec.Backend(kind) for kind in (kinds.HW_GPU_ONLY, kinds.GPU_ONLY, kinds.HYBRID_CPU_GPU)
            ]
        self._decoder = nvimgcodec.Decoder(device_id=number, max_num_cpu_threads=n_threads, backends=backends)
        self._params = nvimgcodec.DecodeParams(
            apply_exif_orientation=False,
            color_spec=nvimgcodec.ColorSpec.SRGB,
            sample_format=nvimgcodec.SampleFormat.I_RGB,
        )

    def decode(self, files: Sequence[bytes]) -> Sequence[DeviceArray | None]:
        """Return the pixels of each file; see `JpegDecoder`."""
        streams = [self._stream(data) for data in files]
        readable = [stream for stream in streams if stream is not None]
        decoded = iter(self._decoder.decode(readable, params=self._params) if readable else ())
        return [None if stream is None else _array(next(decoded)) for stream in streams]

    def _stream(self, data: bytes) -> Any:
        try:
            return self._codec.CodeStream(data)
        # What it raises is not documented.
        except Exception:
            return None


def _array(image: Any) -> DeviceArray | None:
    if image is None:
        return None
    on_host = image.buffer_kind == image.buffer_kind.STRIDED_HOST
    facts = image.__array_interface__ if on_host else image.__cuda_array_interface__
    shape = tuple(facts["shape"])
    _, width, n_channels = shape
    strides = facts.get("strides")
    is_dense = strides is None or tuple(strides) == (width * n_channels, n_channels, 1)
    if n_channels != 3 or not is_dense or facts["typestr"] != "|u1":
        return None
    return DeviceArray(facts["data"][0], shape, "uint8", image)
