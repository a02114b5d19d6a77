"""Decodes, resizes and embeds JPEGs in the memory of an NVIDIA GPU.

The bytes of a file go to the GPU, and a vector comes back. The pixels are those of Pillow's full decoding:
the decoder's upsampling is that of libjpeg, and the resizing that of Pillow, to one level each. What else
makes an image ours stays on the processor: what a file is, whether it is whole, which way is up, and colors.
"""

import importlib.util
import io
import itertools
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from time import perf_counter
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nearsight import processor
from nearsight.errors import DeviceError, ImageError, InvalidParameterError
from nearsight.images import Exif, Limits, decode, thumbnail
from nearsight.images.jpeg_header import PlainJpeg, plain_jpeg
from nearsight.images.tiff_tags import ORIENTATION
from nearsight.models import resize_matrices
from nearsight.models.precision.parity import EQUIVALENT_COSINE, Parity, measure_parity
from nearsight.models.resize_matrices import CORNERS, FIRST, IMAGE, REDUCED, RESIZED, SECOND, ResizeMatrices
from nearsight.models.runtimes.batching import DynamicBatcher
from nearsight.models.runtimes.devices import split_device
from nearsight.models.runtimes.jpeg_decoders import JpegDecoder, NvImageCodec
from nearsight.models.runtimes.missing_blocks import Color, cut_files, fill_color, shows_last_block
from nearsight.models.runtimes.onnx import OnnxDeviceBackend
from nearsight.models.runtimes.onnx_session import (
    BoundGraph,
    DeviceArray,
    DeviceMemory,
    offered_devices,
    open_on_device,
)
from nearsight.models.runtimes.work_split import WorkSplit
from nearsight.models.spec import ModelSpec

#: What to install for it, beside a build of ONNX Runtime with CUDA.
PACKAGES: Final = "nvidia-nvimgcodec-cu13 nvidia-nvjpeg"
BATCH_SIZES: Final = (1, 8, 32, 64)
# One batch is decoded while another one is resized and embedded.
_N_SLOTS = 2
# Images that are resized by one call of the runtime.
_N_TOGETHER = 8
# Smaller images have no corner to look at, and cost next to nothing.
_MIN_SIDE_PX = 16
# Sizes of images whose matrices stay on the device; 6 MB each at 12 megapixels.
_N_SIZES = 64
_THUMBNAIL_SIDE_PX = 256


def is_installed() -> bool:
    """Whether nvImageCodec is installed; imports nothing of it."""
    try:
        return importlib.util.find_spec("nvidia.nvimgcodec") is not None
    except ModuleNotFoundError:
        return False


def is_usable(device: str) -> bool:
    """Whether a model on the requested device gets its JPEGs from a GPU.

    Parameters
    ----------
    device : str
        See `devices.DEVICES`.

    Raises
    ------
    InvalidParameterError
        There is no device of that name.
    """
    name, _ = split_device(device)
    return (
        name in ("auto", "cuda")
        and is_installed()
        and processor.has_nvidia_gpu()
        and "cuda" in offered_devices()
    )


@dataclass(frozen=True, slots=True)
class EncodedJpeg:
    """A file that the GPU may decode: its bytes and its header."""

    data: bytes
    header: PlainJpeg


@dataclass(frozen=True, slots=True)
class EmbeddedJpeg:
    """What came back from the GPU.

    Attributes
    ----------
    vector : ndarray of float32, shape (dim,)
    width, height : int
        Of the upright image, in pixels.
    exif : Exif
    thumbnail : bytes or None
        JPEG.
    """

    vector: NDArray[np.float32]
    width: int
    height: int
    exif: Exif
    thumbnail: bytes | None


@dataclass(frozen=True, slots=True)
class _Result:
    vector: NDArray[np.float32]
    reduced: NDArray[np.uint8] | None
    is_certain: bool


class GpuDecoder:
    """Turns JPEGs into vectors on a GPU, as far as it can and is not busy.

    Several threads use it; it fills batches with what they have ready.

    Parameters
    ----------
    backend : OnnxDeviceBackend
        A model that decodes in full, on an NVIDIA GPU.
    open_decoder : callable
        Returns a decoder; called once for each batch that is under way.
    cache_dir : Path
        For what is compiled for the device.

    Raises
    ------
    InvalidParameterError
        The model decodes at reduced size, or resizes in a way that is not known here.
    DeviceError
        The device cannot run the graphs.
    """

    def __init__(
        self, backend: OnnxDeviceBackend, open_decoder: Callable[[], JpegDecoder], cache_dir: Path
    ) -> None:
        spec, memory = backend.spec, backend.memory
        if spec.draft or memory is None or not resize_matrices.can_resize(spec):
            raise InvalidParameterError(f"a GPU cannot decode for {spec.id}: it decodes in full size only")
        self._backend, self._memory = backend, memory
        self._slots: SimpleQueue[_DecodingSlot] = SimpleQueue()
        sizes = tuple(size for size in BATCH_SIZES if size in backend.batch_sizes)
        self._graphs = _Graphs(spec, backend.device, memory, cache_dir)
        for _ in range(_N_SLOTS):
            self._slots.put(slot := _DecodingSlot(open_decoder(), memory, spec, sizes))
            self.version = slot.decoder.version
        self._batches: DynamicBatcher[_Result | None] = DynamicBatcher(self._run, sizes, n_slots=_N_SLOTS)
        self.split = WorkSplit(_N_SLOTS)
        self._pool = ThreadPoolExecutor(_N_SLOTS, thread_name_prefix="nearsight-gpu")
        self._is_broken = False
        self._fill = self._probe(slot)

    def _probe(self, slot: "_DecodingSlot") -> Color | None:
        """Return what the decoder shows for missing blocks; see `fill_color`."""
        corners: list[NDArray[np.uint8] | None] = []
        files = cut_files()
        for data, image in zip(files, slot.decoder.decode(files), strict=True):
            self._memory.wait()
            header = plain_jpeg(data)
            plan = self._graphs.plan(header, image) if header is not None and image is not None else None
            into = slot.levels(1).part(0, 1)
            corners.append(None if plan is None else self._graphs.resize([(image, plan)], into)[0])
        return fill_color(corners)

    def choose(self, files: Sequence[bytes], limits: Limits) -> list[EncodedJpeg | None]:
        """Return the files that the GPU should decode; None for those that the calling thread should decode.

        Parameters
        ----------
        files : sequence of bytes
            Of any format.
        limits : Limits
        """
        chosen: list[EncodedJpeg | None] = []
        kept_px = 0
        for data in files:
            header = None if self._is_broken else plain_jpeg(data, limits)
            if header is None or min(header.width, header.height) < _MIN_SIDE_PX:
                chosen.append(None)
                continue
            n_pixels = header.width * header.height
            is_taken = self.split.take(n_pixels, kept_px)
            chosen.append(EncodedJpeg(data, header) if is_taken else None)
            kept_px += 0 if is_taken else n_pixels
        return chosen

    def submit(
        self, jpegs: Sequence[EncodedJpeg], *, thumbnails: bool = False
    ) -> Callable[[], list[EmbeddedJpeg | None]]:
        """Begin to embed files that `choose` has returned.

        Parameters
        ----------
        jpegs : sequence of EncodedJpeg
        thumbnails : bool
            Whether to make a thumbnail of each, about as `images.thumbnail` does.

        Returns
        -------
        callable
            Waits for the results: None for each file that only the processor can judge.
        """
        wait = self._batches.submit([(jpeg, thumbnails) for jpeg in jpegs], self._pool)

        def results() -> list[EmbeddedJpeg | None]:
            return [_finished(jpeg, result) for jpeg, result in zip(jpegs, wait(), strict=True)]

        return results

    def _run(self, requests: list[tuple[EncodedJpeg, bool]]) -> list[_Result | None]:
        started = perf_counter()
        slot = self._slots.get()
        try:
            return self._embed(requests, slot)
        # Of a driver, a full memory, a network: the processor decodes these images, and those to come.
        except Exception as error:
            if not self._is_broken:
                self._is_broken = True
                warnings.warn(f"the GPU stopped decoding, the processor goes on: {error}", stacklevel=2)
            return [None] * len(requests)
        finally:
            self._slots.put(slot)
            n_pixels = sum(jpeg.header.width * jpeg.header.height for jpeg, _ in requests)
            self.split.has_run(n_pixels, perf_counter() - started)

    def _embed(self, requests: list[tuple[EncodedJpeg, bool]], slot: "_DecodingSlot") -> list[_Result | None]:
        images = slot.decoder.decode([jpeg.data for jpeg, _ in requests])
        self._memory.wait()
        results: list[_Result | None] = [None] * len(requests)
        # Those of one kind together; images that were not decoded are left out.
        plans = [
            None if image is None else self._graphs.plan(jpeg.header, image)
            for (jpeg, _), image in zip(requests, images, strict=True)
        ]
        order = [i for turned in (False, True) for i, p in enumerate(plans) if p and p.transposed == turned]
        if not order:
            return results
        levels = slot.levels(len(order))
        corners: list[NDArray[np.uint8]] = []
        for at, group in _groups(order, plans):
            into = levels.part(at, len(group))
            corners += list(self._graphs.resize([(images[i], plans[i]) for i in group], into))
        vectors = self._backend.embed_on_device(levels, len(order))
        reduced = self._reduced(requests, images, order)
        for i, vector, corner in zip(order, vectors, corners, strict=True):
            is_certain = shows_last_block(corner, requests[i][0].header, self._fill)
            results[i] = _Result(vector, reduced.get(i), is_certain)
        return results

    def _reduced(
        self, requests: list[tuple[EncodedJpeg, bool]], images: Sequence[DeviceArray | None], order: list[int]
    ) -> dict[int, NDArray[np.uint8]]:
        """Return small versions of the images of which a thumbnail is asked for."""
        wanted = [i for i in order if requests[i][1]]
        plans = {i: self._graphs.reduction(requests[i][0].header) for i in wanted}
        wanted.sort(key=lambda i: plans[i].transposed)
        reduced: dict[int, NDArray[np.uint8]] = {}
        for _, group in _groups(wanted, plans):
            pixels = self._graphs.reduce([(images[i], plans[i]) for i in group])
            reduced.update(zip(group, pixels, strict=True))
        return reduced


@dataclass(frozen=True, slots=True)
class _Plan:
    """Matrices on the device."""

    first: DeviceArray
    second: DeviceArray
    transposed: bool


class _DecodingSlot:
    """A decoder, and the memory of a batch of resized images."""

    def __init__(
        self, decoder: JpegDecoder, memory: DeviceMemory, spec: ModelSpec, sizes: Sequence[int]
    ) -> None:
        self.decoder = decoder
        self._levels = {size: memory.allocate((size, *spec.input_px, 3), np.uint8) for size in sizes}

    def levels(self, n: int) -> DeviceArray:
        """Return the memory of the smallest batch with room for `n` images."""
        return self._levels[min(size for size in self._levels if size >= n)]


class _Graphs:
    """The networks that resize, and their matrices, on a device."""

    def __init__(self, spec: ModelSpec, device: str, memory: DeviceMemory, cache_dir: Path) -> None:
        self._spec, self._memory = spec, memory
        self._open = partial(_open_graph, spec, device, memory, cache_dir)
        self._graphs: dict[tuple[bool, bool, int], BoundGraph] = {}
        self._plans: OrderedDict[tuple[Any, ...], _Plan] = OrderedDict()
        self._lock = threading.Lock()
        # Opened at once: what cannot run here must be known before the first image.
        self._graph(reduces=False, transposed=False, n_images=1)

    def plan(self, header: PlainJpeg, image: DeviceArray) -> _Plan | None:
        """Return how an image is resized; None if the decoder gave another one than the header promises."""
        if image.shape != (header.height, header.width, 3):
            return None
        place = header.width, header.height, header.exif.orientation
        return self._on_device(place, lambda: resize_matrices.resize_matrices(*place, self._spec))

    def reduction(self, header: PlainJpeg) -> _Plan:
        """Return how an image becomes a thumbnail."""
        block_px = max(1, int(max(header.width, header.height) / _THUMBNAIL_SIDE_PX + 0.5))
        place = header.width, header.height, header.exif.orientation, block_px
        return self._on_device(place, lambda: resize_matrices.reduction_matrices(*place))

    def resize(
        self, images: Sequence[tuple[DeviceArray | None, _Plan | None]], into: DeviceArray
    ) -> NDArray[np.uint8]:
        """Resize images into a batch; return their corners."""
        graph = self._graph(reduces=False, transposed=_kind(images), n_images=len(images))
        [corners] = graph.run(_inputs(images), {RESIZED: into}, to_host=[CORNERS])
        return corners

    def reduce(self, images: Sequence[tuple[DeviceArray | None, _Plan | None]]) -> list[NDArray[np.uint8]]:
        """Return images reduced to blocks."""
        graph = self._graph(reduces=True, transposed=_kind(images), n_images=len(images))
        return graph.run(_inputs(images), to_host=[f"{REDUCED}{i}" for i in range(len(images))])

    def _graph(self, *, reduces: bool, transposed: bool, n_images: int) -> BoundGraph:
        key = reduces, transposed, n_images
        with self._lock:
            if key not in self._graphs:
                write = resize_matrices.reduction_graph if reduces else resize_matrices.resize_graph
                self._graphs[key] = self._open(write(transposed=transposed, n_images=n_images))
            return self._graphs[key]

    def _on_device(self, key: tuple[Any, ...], compute: Callable[[], ResizeMatrices]) -> _Plan:
        with self._lock:
            if key not in self._plans:
                matrices = compute()
                self._plans[key] = _Plan(
                    self._memory.upload(matrices.first),
                    self._memory.upload(matrices.second),
                    matrices.transposed,
                )
            self._plans.move_to_end(key)
            # A batch that runs keeps the matrices that it uses.
            if len(self._plans) > 2 * _N_SIZES:
                self._plans.popitem(last=False)
            return self._plans[key]


def _open_graph(
    spec: ModelSpec, device: str, memory: DeviceMemory, cache_dir: Path, graph: bytes
) -> BoundGraph:
    return BoundGraph(open_on_device(spec, graph, device, cache_dir), memory)


def _groups(order: Sequence[int], plans: Any) -> "list[tuple[int, list[int]]]":
    """Return runs of one kind, of `_N_TOGETHER` or one image each, with their place in the order."""
    groups: list[tuple[int, list[int]]] = []
    at = 0
    while at < len(order):
        together = list(order[at : at + _N_TOGETHER])
        if len(together) < _N_TOGETHER or len({plans[i].transposed for i in together}) > 1:
            together = together[:1]
        groups.append((at, together))
        at += len(together)
    return groups


def _kind(images: Sequence[tuple[DeviceArray | None, _Plan | None]]) -> bool:
    return any(plan.transposed for _, plan in images if plan)


def _inputs(images: Sequence[tuple[DeviceArray | None, _Plan | None]]) -> dict[str, DeviceArray]:
    return {
        f"{name}{i}": value
        for i, (image, plan) in enumerate(images)
        if image is not None and plan is not None
        for name, value in ((IMAGE, image), (FIRST, plan.first), (SECOND, plan.second))
    }


def _finished(jpeg: EncodedJpeg, result: _Result | None) -> EmbeddedJpeg | None:
    if result is None or not (result.is_certain or _is_whole(jpeg.data)):
        return None
    small = None if result.reduced is None else _thumbnail(result.reduced)
    return EmbeddedJpeg(result.vector, *jpeg.header.upright_size, jpeg.header.exif, small)


def _is_whole(data: bytes) -> bool:
    """Whether our decoder reaches the end of a file, at an eighth of its size."""
    try:
        decode(data, min_side_px=1)
    except ImageError:
        return False
    return True


def _thumbnail(pixels: NDArray[np.uint8]) -> bytes:
    # It is small already; it is only compressed.
    return thumbnail(Image.fromarray(pixels), side_px=max(pixels.shape))


def decoder_for(backend: Any, cache_dir: Path) -> GpuDecoder | None:
    """Return what decodes for a model on a GPU; None where the processor decodes.

    At the first use on a machine, the GPU's vectors of JPEGs are compared with those of Pillow's decoding. If
    their cosine is below 0.9999, the processor decodes. A model keeps its decoder for the next job.

    Parameters
    ----------
    backend : Backend
    cache_dir : Path
        Directory for measurements and compiled models.
    """
    if not isinstance(backend, OnnxDeviceBackend) or backend.spec.draft or not is_usable(backend.device):
        return None
    if not resize_matrices.can_resize(backend.spec):
        return None
    if "decoder" not in backend.opened:
        backend.opened["decoder"] = _opened_decoder(backend, cache_dir)
    decoder: GpuDecoder | None = backend.opened["decoder"]
    return decoder


def _opened_decoder(backend: OnnxDeviceBackend, cache_dir: Path) -> GpuDecoder | None:
    try:
        decoder = GpuDecoder(backend, partial(NvImageCodec, backend.device), cache_dir)
        parity = decoder_parity(decoder, backend, cache_dir)
    # Of nvImageCodec, of the driver, or of the runtime.
    except Exception as error:
        warnings.warn(f"the GPU does not decode, the processor does: {error}", stacklevel=2)
        return None
    if parity.smallest < EQUIVALENT_COSINE:
        warnings.warn(f"the GPU does not decode for {backend.spec.id}: {parity}", stacklevel=2)
        return None
    return decoder


def decoder_parity(decoder: GpuDecoder, backend: OnnxDeviceBackend, cache_dir: Path) -> Parity:
    """Return how similar the vectors of JPEGs decoded on the GPU are to those of Pillow's decoding."""
    on_gpu = _JpegModel(backend, decoder)
    runtime = f"jpeg-{backend.device}-{decoder.version}"
    parity, _ = measure_parity(on_gpu, _JpegModel(backend), cache_dir, runtime=runtime)
    return parity


class _JpegModel:
    """A model of images that have been JPEGs of many kinds, decoded on a GPU or by Pillow."""

    def __init__(self, backend: OnnxDeviceBackend, decoder: GpuDecoder | None = None) -> None:
        self.spec, self.decode_px = backend.spec, None
        self._backend, self._decoder = backend, decoder
        self._numbers = itertools.count()

    def prepare(self, image: Image.Image) -> bytes:
        """Write an image as a JPEG; the next one in another way."""
        n = next(self._numbers)
        image = image.resize((300 + 37 * (n % 20), 280 + 53 * (n % 11)))
        exif = Image.Exif()
        exif[ORIENTATION] = n % 8 + 1
        file = io.BytesIO()
        mode = "L" if n % 7 == 6 else "RGB"
        options: dict[str, Any] = {} if mode == "L" else {"subsampling": n % 3}
        image.convert(mode).save(
            file, "JPEG", quality=75 + n % 20, progressive=n % 5 == 4, exif=exif.tobytes(), **options
        )
        return file.getvalue()

    def embed(self, prepared: Sequence[bytes]) -> NDArray[np.float32]:
        """Return the vectors of JPEGs."""
        if self._decoder is None:
            return self._backend.embed([self._backend.prepare(decode(data).image) for data in prepared])
        jpegs = [jpeg for jpeg in self._decoder.choose(prepared, Limits()) if jpeg is not None]
        results = self._decoder.submit(jpegs)()
        if len(results) < len(prepared) or None in results:
            raise DeviceError("it refuses JPEGs that it should decode")
        return np.stack([result.vector for result in results if result is not None])
