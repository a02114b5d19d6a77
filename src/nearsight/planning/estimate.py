"""What a collection takes, by formulas; each line says where its number comes from."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from nearsight.errors import InvalidParameterError
from nearsight.planning.measure import Sample

Basis = Literal["measured", "scaled", "published"]

# JPEGs that a core decodes in a second, by megapixels: 640x480, 1600x1200, 4000x3000, with reduced decoding.
_DECODED = ((0.3, 178.0), (2.0, 90.0), (12.0, 30.0))
_DECODED_RULE = "178, 90 and 30 for JPEGs of 0.3, 2 and 12 megapixels"
# Images per second of a network in float16 on one H100.
_EMBEDDED = {"efficientnet-lite0": 21_500.0, "clip-vit-base-patch32": 33_000.0}
_EMBEDDED_BY_LARGE_NETWORK = 2_500.0
# Of a run: the slowest process, the last units, the start.
_EFFICIENCY = 0.85
# Four bits of each number, and what a row needs besides, that of the ids in order among it.
_INDEX_BITS, _INDEX_ROW_BYTES = 4, 77
_ROW_BYTES = 300
_THUMBNAIL_BYTES = 10_000
# The index of 1,000,000 x 512 took 133 and 111 s, and that of 100,000 x 512 took 13.8 and 10.0 s, in two
# hours of a machine that others share: n ** 0.985 of the first. Of 100,000 rows of 256, 512 and 1,280
# numbers, a fixed time and one for each number: 0.36 and 0.64 of that of 512.
_INDEX_SECONDS, _INDEX_ROWS, _INDEX_EXPONENT, _INDEX_DIM, _INDEX_FIXED = 121.0, 1e6, 0.985, 512, 0.36
# Cores of a server that searches take at most.
_USED_SHARE = 0.6
_GRAPH_LINKS = 16
_MIN_INDEXED_ROWS, _MAX_GRAPH_ROWS, _MAX_ROWS_OF_A_SERVER = 50_000, 20_000_000, 100_000_000
# Of 100,000 and 1,000,000 x 512, on idle cores, by `benchmarks.plan`: 4.6 and 4.9 ms in one hour, 2.65 and
# 3.2 ms in another.
_SEARCH_S_ON_DISK = 0.0037
# In memory, each search takes a fixed time: checks, the rows of ten matches, and their objects. Besides, up
# to ten million numbers of vectors are all compared, one after another; of more, those of the centers and of
# nine partitions around them, which lie apart. Lines through six sizes, 3,000 x 384 to 400,000 x 512.
_COMPARED_WHOLE = 10_000_000
_WHOLE_S, _WHOLE_S_PER_NUMBER = 0.40e-3, 0.063e-9
_PARTS_S, _PARTS_S_PER_NUMBER = 0.30e-3, 0.16e-9
_PARTITIONS, _MAX_PARTS_NUMBERS = 9, 10_000_000
# Thirty candidates are compared exactly; of vectors that are not held, each is read from the file.
_READS_S = 0.07e-3
# Vectors of so many numbers in all are held as they are; of more, only their codes are, of a byte a
# number, and vectors are read from the disk (see `store.memory.plan`).
_MAX_HELD_NUMBERS = 64_000_000
_PROCESS_BYTES = 0.16e9
# Of a process that searches on the disk, besides the index, which it holds in the end.
_DISK_PROCESS_BYTES = 0.22e9
# In PostgreSQL: a row with its path, twice, and its indexes; what a vector takes besides, and a link.
_PG_PAGE_BYTES, _PG_ROW_BYTES, _PG_VECTOR_BYTES, _PG_LINK_BYTES = 8192, 570, 52, 21
# What is held of a row besides: the scale of its code and the reciprocal of its length; id, times, sizes, and
# a path of 40 bytes, twice.
_CODE_BYTES, _HELD_ROW_BYTES = 8, 160
# Partitions: centers for each root of the rows, and what is held of one besides its code.
_CENTERS_PER_ROOT, _CENTER_BYTES = 2, 12


@dataclass(frozen=True, slots=True)
class Needs:
    """What is asked for.

    Attributes
    ----------
    images : int
    dim : int
        Length of a vector.
    model : str
    megapixels : float
        Of an image.
    storage : {"float32", "float16"}
    machines, cores, gpus : int
        Machines that embed, and what each has.
    queries_per_second : float
    price : float or None
        Of a machine for an hour.
    """

    images: int
    dim: int
    model: str = "efficientnet-lite0"
    megapixels: float = 2.0
    storage: str = "float32"
    machines: int = 1
    cores: int = 16
    gpus: int = 0
    queries_per_second: float = 0.0
    price: float | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """A number of the plan.

    Attributes
    ----------
    name, unit : str
    value : float or str
    basis : {"measured", "scaled", "published"}
        Measured on this machine and these images; scaled from a measurement by `rule`; or told by others.
    rule : str
    """

    name: str
    value: float | str
    unit: str
    basis: Basis
    rule: str


def estimate(needs: Needs, sample: Sample) -> list[Line]:
    """Return what a collection takes.

    Parameters
    ----------
    needs : Needs
    sample : Sample
        What `measure` has measured; an empty one leaves everything to the formulas.

    Raises
    ------
    InvalidParameterError
        A number is not positive; or there are 0 GPUs, and nobody has measured the network on a core.

    Examples
    --------
    >>> needs = Needs(images=1_000_000, dim=512, gpus=1)
    >>> [line] = [line for line in estimate(needs, Sample()) if line.name == "index"]
    >>> line.value, line.unit, line.basis
    (0.333, 'GB', 'scaled')
    """
    for name in ("images", "dim", "megapixels", "machines", "cores"):
        if getattr(needs, name) <= 0:
            raise InvalidParameterError(f"{name} is {getattr(needs, name)}; it must be more than 0")
    return [*_embedding(needs, sample), *_disk(needs, sample), *_search(needs)]


def _embedding(needs: Needs, sample: Sample) -> list[Line]:
    decode, decode_line = _decoding(needs, sample)
    lines = [decode_line]
    if needs.gpus:
        network = _EMBEDDED.get(needs.model.partition("#")[0], _EMBEDDED_BY_LARGE_NETWORK)
        whose = "" if network in _EMBEDDED.values() else ", of CLIP ViT-L/14"
        rate = min(needs.cores * decode, needs.gpus * network)
        lines.append(
            _line("network", network, "images/s per GPU", "published", f"float16 on one H100{whose}")
        )
        rule = f"{_EFFICIENCY} x the lesser of cores x decoding and GPUs x network"
    elif sample.network_per_core is not None:
        network = sample.network_per_core
        rate = needs.cores / (1 / decode + 1 / network)
        lines.append(
            _line("network", network, "images/s per core", "measured", "on one core of this machine")
        )
        rule = f"{_EFFICIENCY} x cores / (1 / decoding + 1 / network)"
    else:
        raise InvalidParameterError(
            "the plan has no GPU, and no core of this machine was measured; set gpus, or measure first"
        )
    rate *= _EFFICIENCY
    hours = needs.images / (rate * needs.machines) / 3600
    lines += [
        _line("embedding rate", rate, "images/s per machine", "scaled", rule),
        _line("embedding", hours, "hours", "scaled", f"images / ({needs.machines} machines x rate)"),
        _line("machine hours", hours * needs.machines, "machine hours", "scaled", "hours x machines"),
    ]
    if needs.gpus:
        lines.append(_line("GPUs", needs.gpus * needs.machines, "", "scaled", "GPUs x machines"))
    if needs.price is not None:
        lines.append(
            _line("cost", hours * needs.machines * needs.price, "money", "scaled", "machine hours x price")
        )
    if sample.n_images:
        lines.append(
            _line(
                "failures",
                sample.max_failure_rate * needs.images,
                "images at most",
                "scaled",
                f"Wilson's upper limit (95 %) of {sample.n_failed} in {sample.n_images}",
            )
        )
    return lines


def _decoding(needs: Needs, sample: Sample) -> tuple[float, Line]:
    basis: Basis = "scaled"
    rate, rule = _decoded(needs.megapixels), f"{_DECODED_RULE}, between them in proportion"
    if (measured := sample.decoded_per_core) is not None:
        size = sample.megapixels or needs.megapixels
        if size == needs.megapixels:
            rate, basis, rule = measured, "measured", "on these images"
        else:  # those to come are larger or smaller than those that were measured
            rate *= measured / _decoded(size)
            rule = f"{measured:.4g} of these images of {size:.2g} megapixels, as of {_DECODED_RULE}"
    return rate, _line("decoding", rate, "images/s per core", basis, rule)


def _decoded(megapixels: float) -> float:
    """Return how many JPEGs of a size a core decodes in a second.

    Examples
    --------
    >>> [round(_decoded(size)) for size in (0.1, 2.0, 12.0, 48.0)]
    [178, 90, 30, 13]
    """
    sizes, rates = np.log(np.array(_DECODED)).T
    # np.interp would hold the ends; larger images take longer in proportion.
    slope = (rates[-1] - rates[-2]) / (sizes[-1] - sizes[-2])
    size = math.log(megapixels)
    beyond = max(0.0, size - float(sizes[-1])) * float(slope)
    return math.exp(float(np.interp(size, sizes, rates)) + beyond)


def _disk(needs: Needs, sample: Sample) -> list[Line]:
    n, n_bytes = needs.images, 2 if needs.storage == "float16" else 4
    thumbnail = sample.thumbnail_bytes or _THUMBNAIL_BYTES
    measured = "of these images" if sample.thumbnail_bytes else "on photographs"
    lines = [
        _gigabytes("vectors", n * needs.dim * n_bytes, f"n x d x {n_bytes} bytes"),
        _gigabytes("thumbnails", n * thumbnail, f"n x {thumbnail / 1000:.1f} kB, the mean {measured}"),
        _gigabytes("paths, sizes, dates", n * _ROW_BYTES, f"n x {_ROW_BYTES} bytes"),
    ]
    if n >= _MIN_INDEXED_ROWS:
        length = _INDEX_FIXED + (1 - _INDEX_FIXED) * needs.dim / _INDEX_DIM
        minutes = _INDEX_SECONDS * (n / _INDEX_ROWS) ** _INDEX_EXPONENT * length / 60
        rule = "n^0.985 x (44 s + 77 s x d / 512) for each million"
        lines += [
            _gigabytes("index", _index_bytes(n, needs.dim), f"n x (d x 4 bits + {_INDEX_ROW_BYTES} bytes)"),
            _line("index build", minutes, "minutes of a core", "scaled", rule),
        ]
    return lines


def _search(needs: Needs) -> list[Line]:
    n, d = needs.images, needs.dim
    in_memory = n <= _MAX_GRAPH_ROWS
    if n < _MIN_INDEXED_ROWS:
        choice = "none: exact search"
    elif in_memory:
        choice = "IVF_RQ of 4 bits on disk, and a byte a number in partitions in memory for a server"
    elif n <= _MAX_ROWS_OF_A_SERVER:
        choice = "IVF_RQ of 4 bits on disk"
    else:
        choice = "beyond what one machine builds: a vector database in several parts"
    lines = [
        _line("index type", choice, "", "scaled", "exact below 50,000 images; in memory up to 20 million"),
        _gigabytes("memory, search on disk", _DISK_PROCESS_BYTES + _index_bytes(n, d), "0.22 GB + the index"),
    ]
    if in_memory:
        lines.append(_memory(n, d))
    lines.append(_postgres(n, d, 2 if needs.storage == "float16" else 4))
    on_disk = _SEARCH_S_ON_DISK
    held, held_rule = _search_in_memory(n, d)
    rule = "that of 100,000 to 1,000,000 x 512; of more, a smaller share is searched"
    lines.append(_line("search on disk", 1000 * on_disk, "ms of a core", "scaled", rule))
    if in_memory:
        lines.append(_line("search in memory", 1000 * held, "ms of a core", "scaled", held_rule))
    if needs.queries_per_second:
        seconds = held if in_memory else on_disk
        replicas = math.ceil(needs.queries_per_second * seconds / (needs.cores * _USED_SHARE)) + 1
        rule = f"queries/s x {seconds * 1000:.2g} ms / ({needs.cores} cores x {_USED_SHARE}), + 1 to spare"
        lines.append(_line("search servers", replicas, "", "scaled", rule))
    return lines


def _search_in_memory(n: int, d: int) -> tuple[float, str]:
    """Return the seconds of a search in memory, and the rule.

    Examples
    --------
    >>> [round(1000 * _search_in_memory(n, 512)[0], 2) for n in (10_000, 100_000, 1_000_000)]
    [0.72, 0.47, 0.9]
    """
    if n * d <= _COMPARED_WHOLE:
        return _WHOLE_S + _WHOLE_S_PER_NUMBER * n * d, "0.4 ms, and 0.063 ns for each of n x d numbers"
    rows_of_one = math.sqrt(n) / _CENTERS_PER_ROOT
    centers = _CENTERS_PER_ROOT * math.sqrt(n) * d
    seconds = _PARTS_S + _PARTS_S_PER_NUMBER * (
        centers + min(_PARTITIONS * rows_of_one * d, _MAX_PARTS_NUMBERS)
    )
    rule = "0.3 ms, and 0.16 ns for each of 6.5 x root of n x d numbers, where vectors lie in clusters"
    if n * d > _MAX_HELD_NUMBERS:
        return seconds + _READS_S, f"{rule}; 0.07 ms to read vectors from the file"
    return seconds, rule


def _index_bytes(n: int, d: int) -> float:
    """Return the size of the index; of few rows there is none."""
    return n * (d * _INDEX_BITS / 8 + _INDEX_ROW_BYTES) if n >= _MIN_INDEXED_ROWS else 0.0


def _postgres(n: int, d: int, number_bytes: int) -> Line:
    vector = _paged(number_bytes * d + _PG_VECTOR_BYTES)
    node = _paged(2 * d + _PG_LINK_BYTES * _GRAPH_LINKS)
    rule = (
        f"n x ({_PG_ROW_BYTES} bytes + vector, node of the graph), of {number_bytes} d + {_PG_VECTOR_BYTES}"
        f" and 2 d + {_PG_LINK_BYTES * _GRAPH_LINKS} bytes, as many as a page of 8 kB holds whole"
    )
    return _gigabytes("Postgres, table and index", n * (_PG_ROW_BYTES + vector + node), rule)


def _paged(n_bytes: int) -> float:
    """Return what something takes of pages that hold it whole, or that it alone takes.

    >>> [round(_paged(n_bytes)) for n_bytes in (1000, 3124, 5000, 9000)]
    [1024, 4096, 8192, 16384]
    """
    n_of_a_page = _PG_PAGE_BYTES // n_bytes
    return _PG_PAGE_BYTES / n_of_a_page if n_of_a_page else _PG_PAGE_BYTES * -(-n_bytes // _PG_PAGE_BYTES)


def _memory(n: int, d: int) -> Line:
    numbers, held = ("5 d", "vectors, bytes of them") if n * d <= _MAX_HELD_NUMBERS else ("d", "their bytes")
    rule = (
        f"0.16 GB + n x ({numbers} + 168 bytes) + 2 x root of n x (d + 12): {held}, rows, partitions; where"
        " vectors do not lie in clusters, a graph takes n x 1.2 x (d + 144) more"
    )
    return _gigabytes("memory, search in memory", _PROCESS_BYTES + held_bytes(n, d), rule)


def held_bytes(n: int, d: int) -> float:
    """Return the bytes of n rows with vectors of d numbers that searches in memory hold, in partitions.

    Examples
    --------
    >>> round(held_bytes(1_000_000, 512) / 1e9, 3)
    0.681
    """
    row_bytes = d + _CODE_BYTES + _HELD_ROW_BYTES + (4 * d if n * d <= _MAX_HELD_NUMBERS else 0)
    return n * row_bytes + _CENTERS_PER_ROOT * math.sqrt(n) * (d + _CENTER_BYTES)


def _gigabytes(name: str, n_bytes: float, rule: str) -> Line:
    return _line(name, n_bytes / 1e9, "GB", "scaled", rule)


def _line(name: str, value: float | str, unit: str, basis: Basis, rule: str) -> Line:
    return Line(name, value if isinstance(value, str) else float(f"{value:.4g}"), unit, basis, rule)
