"""Compares two duplicates: which of them lost less, and what the other has that the better one lacks."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nearsight.collection import Item
from nearsight.images.quality import ImageQuality, is_compression_of
from nearsight.images.sharpness import N_RINGS

Floats = NDArray[np.float64]

# Loss of detail by blur, in dB: one image lost more than the first, and the other less than the second.
_BLUR_DB, _NO_BLUR_DB = 4.0, 2.5
# Loss of detail in an enlarged image, in dB, and the most that a larger original lacks.
_ENLARGED_DB, _OWN_DETAIL_DB = 1.3, 0.2
# Frequencies below the highest of an image, and the power from which on there is detail.
_UPPER, _DETAIL_POWER = slice(20, 30), 1.0
# The power of photographs falls with the second to fourth power of the frequency; of soft ones, faster.
_SOFT_EXPONENT = 4.5
# A sharpened image has this much more of all details, in dB.
_SHARPENED_DB = 2.5
# Ratio of sides beyond which two images have different sizes.
_SIZE_RATIO = 1.12
# Less than this share of the other's color is none; and the least color that counts.
_NO_COLOR_SHARE, _LEAST_CHROMA, _FAINT_CHROMA, _GRAY_CHROMA = 0.3, 3.0, 1.5, 0.15
# A palette, against so many colors.
_PALETTE_COLORS, _MANY_COLORS = 256, 2000
# Bits of tones that are no coincidence.
_TONE_BITS = 0.15
# Compression that is no coincidence: the ratio, and the difference.
_COMPRESSION_RATIO, _COMPRESSION_STEP = 0.72, 0.04
# Of a larger image, compared with a smaller one: so much goes without a doubt.
_AVERAGED_COMPRESSION = 0.15
# Compression whose traces no further one hides, and the ratio of two that differ.
_CLEAR_COMPRESSION, _CLEAR_RATIO = 0.3, 0.85
# Compression whose blocks show.
_COARSE_COMPRESSION = 0.8
# Above this, a trace of compression is believed to be that of the file itself.
_EDITED_COMPRESSION = 0.1
# Files written within so many seconds were written together.
_SAME_TIME_S = 2.0
_LIGHTNESS = np.array([0.299, 0.587, 0.114])
# Gray levels by which parts of an image may differ after compression.
_LOOK_LEVELS = 8.0
# Noise that was added or removed: the ratio, and the difference in gray levels.
_NOISE_RATIO, _NOISE_STEP = 1.5, 0.6
# The step of the coarsest low frequency at compression 1; below, in steps, noise survives compression.
_LOW_STEP, _SURVIVING_NOISE = 11.0, 0.5
# Share of an image beyond the edges of the other that is not an error of the alignment.
MIN_OUTSIDE = 0.03
# Less detail than this share of the inside's is a border.
_BORDER_DETAIL = 0.35

_FREQUENCIES = (np.arange(N_RINGS) + 0.5) / (2 * N_RINGS)
# Rings that are compared: the lowest hold what is larger than a tile, the highest what decoders invent.
_COMPARED = slice(2, N_RINGS - 2)
_LEAST_POWER = 0.05


@dataclass(frozen=True, slots=True)
class Framing:
    """How the frames of two aligned images lie to each other.

    Attributes
    ----------
    area : float
        The share of the second's area that the first covers, by the alignment; above 1 if the first shows
        more.
    outside : tuple of float
        The share of the first beyond the edges of the second, and of the second beyond those of the first.
    detail : tuple of float
        How strong edges are there, in parts of those inside.
    degrees : float
        Turn off the nearest quarter, 0 to 45.
    is_turned : bool
        Whether one is turned by a quarter or mirrored.
    """

    area: float = 1.0
    outside: tuple[float, float] = (0.0, 0.0)
    detail: tuple[float, float] = (0.0, 0.0)
    degrees: float = 0.0
    is_turned: bool = False

    @property
    def is_same(self) -> bool:
        """Whether both show the same part."""
        return max(self.outside) < MIN_OUTSIDE and self.degrees < 1.5

    def swapped(self) -> "Framing":
        """Return the framing of the same images in the other order."""
        return Framing(1 / self.area, self.outside[::-1], self.detail[::-1], self.degrees, self.is_turned)


@dataclass(frozen=True, slots=True)
class Candidate:
    """An image with what is known of it."""

    item: Item
    quality: ImageQuality | None
    has_overlay: bool = False


@dataclass(frozen=True, slots=True)
class Difference:
    """In what two images differ.

    Attributes
    ----------
    sign : int
        1 if the first is better, -1 if the second is; 0 if nobody can say.
    advantage : str
        What speaks for the better one.
    doubt : str
        What speaks against deleting it, if it is not the one to keep; of sign 0, against deleting either.
    """

    sign: int
    advantage: str
    doubt: str


def differences(
    first: Candidate, second: Candidate, framing: Framing, looks: tuple[Floats, Floats] | None = None
) -> list[Difference]:
    """Compare two images of one content; the most important difference comes first.

    `looks` are small RGB images of the part that both show, (16, 16, 3).
    """
    a, b = first.quality, second.quality
    if a is None or b is None:
        unknown = Difference(0, "", "a file could not be read to measure what it lost")
        return [unknown, *_by_pixels(first, second), *_by_file(first, second)]
    if a.pixels_id == b.pixels_id:
        return [*_by_depth(a, b), *_by_file(first, second)]
    change = None if looks is None else _change(a, b, looks)
    found = [*_by_color(a, b)]
    proofs = [
        framing.is_same and not framing.is_turned and is_compression_of(*pair) for pair in ((b, a), (a, b))
    ]
    if proofs[0] is not proofs[1]:
        found.append(Difference(_sign(proofs[0]), "less compressed", "the other image is less compressed"))
    elif proofs[0] and a.is_lossy is not b.is_lossy and not _explains(*((a, b) if a.is_lossy else (b, a))):
        # They differ by less than the traces of an earlier compression; another one adds to them.
        found.append(
            Difference(_sign(b.is_lossy), "stored without loss", "the other image is stored without loss")
        )
    elif proofs[0]:
        found += _by_clear_traces(a, b)
    else:
        found += [
            *_by_overlay(first, second, framing, change),
            *_by_framing(framing),
            *_by_detail(a, b, framing),
            *(_by_tones(a, b) if framing.is_same else []),
            *_by_noise(a, b, framing),
            *_by_compression(a, b, framing),
        ]
    is_decided = any(one.sign for one in found)
    found += [*_by_look(change), *_by_depth(a, b), *_by_age(first, second)]
    return [*found, *_by_file(first, second, is_decided=is_decided)]


def _by_clear_traces(a: ImageQuality, b: ImageQuality) -> list[Difference]:
    """Compare images of which either may be the compression of the other, by the size of its steps."""
    low, high = sorted((a.compression, b.compression))
    # Had the one of finer steps been stored again, traces as clear as these would show.
    if high < _CLEAR_COMPRESSION or low > _CLEAR_RATIO * high:
        return []
    is_first = a.compression < b.compression
    return [Difference(_sign(is_first), "less compressed", "the other image is less compressed")]


def _explains(lossy: ImageQuality, lossless: ImageQuality) -> bool:
    """Whether the traces of compression in a lossless file are those of the lossy one."""
    return lossless.compression > 0 and lossy.stored_compression >= 0.8 * lossless.compression


def _side_ratio(a: ImageQuality, b: ImageQuality, framing: Framing) -> float:
    """Return the pixels of the second image along what is one pixel of the first."""
    return float(np.sqrt(b.width * b.height * framing.area / (a.width * a.height)))


def _sign(is_first: bool) -> int:
    return 1 if is_first else -1


def _by_color(a: ImageQuality, b: ImageQuality) -> list[Difference]:
    low, high = sorted((a.chroma, b.chroma))
    colored = a if a.chroma > b.chroma else b
    # Color against none; of a gray image exactly none, so that a fainter color counts, too.
    least = _FAINT_CHROMA if low < _GRAY_CHROMA else _LEAST_CHROMA
    if low < _NO_COLOR_SHARE * high and high > least:
        return [
            Difference(_sign(colored is a), "in color", "the other image has color, the kept one has none")
        ]
    if low < _GRAY_CHROMA < high / 4:
        return [Difference(0, "", "one of the images is tinted, or faintly colored")]
    n_low, n_high = sorted((a.n_colors, b.n_colors))
    if n_low <= _PALETTE_COLORS and n_high > _MANY_COLORS and low > 4 * _GRAY_CHROMA:
        return [Difference(_sign(a.n_colors > b.n_colors), "more colors", "the other image has more colors")]
    return []


def _by_tones(a: ImageQuality, b: ImageQuality) -> list[Difference]:
    if abs(a.tones - b.tones) < _TONE_BITS:
        return []
    more, fewer = (a, b) if a.tones > b.tones else (b, a)
    if more.noise > 1.3 * fewer.noise + 0.3:  # noise has tones, too
        return [Difference(0, "", "the tones of the images differ")]
    return [Difference(_sign(more is a), "more tones", "the other image has more tones")]


def _by_detail(a: ImageQuality, b: ImageQuality, framing: Framing) -> list[Difference]:
    # Pixels along one side of the part that both show.
    sides = np.sqrt(a.width * a.height), np.sqrt(b.width * b.height * framing.area)
    if sides[0] > sides[1]:
        swapped = _by_detail(b, a, framing.swapped())
        return [Difference(-one.sign, one.advantage, one.doubt) for one in swapped]
    have_one_size = sides[1] < _SIZE_RATIO * sides[0]
    if not framing.is_same:
        # A border, or what only one shows, has details of its own.
        return [] if have_one_size else _by_enlargement(a, b, sides)
    if not have_one_size:
        return _by_enlargement(a, b, sides)
    doubt = (
        "one of the images is turned or mirrored"
        if framing.is_turned
        else "the pixels differ by more than compression explains"
    )
    return [*_by_blur(a, b), Difference(0, "", doubt)]


def _by_blur(a: ImageQuality, b: ImageQuality) -> list[Difference]:
    """Compare two images of about one size.

    *Method*: detail that falls off toward high frequencies, relative to the other image, was blurred, however
    much it was sharpened afterwards.
    """
    has_detail = np.maximum(a.spectrum, b.spectrum)[_COMPARED] >= _DETAIL_POWER
    if has_detail.sum() < 8:
        return []
    ratio = _ratio_db(a, b, (1.0, 1.0))[has_detail]
    lost_a = float(np.quantile(-ratio, 0.8) + ratio[-6:].mean())
    lost_b = float(np.quantile(ratio, 0.8) - ratio[-6:].mean())
    if max(lost_a, lost_b) < _BLUR_DB or min(lost_a, lost_b) > _NO_BLUR_DB:
        return []
    kept, blurred = (a, b) if lost_b > lost_a else (b, a)
    if kept.compression > max(_COARSE_COMPRESSION, 2 * blurred.compression) or not kept.has_known_loss:
        return []  # the borders of its blocks look like details
    words = f"higher effective resolution: {kept.width} × {kept.height}, the next is blurred"
    return [Difference(_sign(kept is a), words, "the other image has more detail")]


def _by_enlargement(small: ImageQuality, large: ImageQuality, sides: tuple[float, float]) -> list[Difference]:
    """Tell whether the larger image has detail of its own, or was enlarged."""
    lost = enlargement_db(small, large, sides)
    if large.has_repeated_pixels and not small.has_repeated_pixels:
        lost = np.inf
    if lost > _ENLARGED_DB:
        words = f"higher effective resolution: {small.width} × {small.height}, the next seems enlarged"
        return [
            Difference(1, words, "the other image has more detail"),
            Difference(0, "", "the other image has more pixels"),
        ]
    times = f"{(sides[1] / sides[0]) ** 2:.3g} times the pixels of the next"
    words = f"higher effective resolution: {large.width} × {large.height}, {times}"
    found = [Difference(-1, words, "the other image has more detail")]
    if lost > _OWN_DETAIL_DB:
        found.append(Difference(0, "", "the larger image may be enlarged"))
    ratio = _ratio_db(small, large, sides)
    if abs(np.median(ratio[4:]) - np.median(ratio[:2])) > _SHARPENED_DB:
        found.append(Difference(0, "", "one of the images may be sharpened"))
    return found


def enlargement_db(small: ImageQuality, large: ImageQuality, sides: tuple[float, float]) -> float:
    """Return by how many dB the larger image lacks the detail for which the smaller one has no pixels.

    *Method*: the spectrum of the smaller image, over cycles a scene, is continued by a power law from its
    upper frequencies. A larger original goes on like this; an enlarged image falls off, by as much in
    relation to its lower frequencies however much it was sharpened. NaN where the smaller image has no detail
    at its own upper frequencies: then nothing follows.
    """
    if np.median(small.spectrum[_UPPER]) < _DETAIL_POWER:
        return np.nan
    small_at, large_at = (_FREQUENCIES * side for side in sides)
    small_db, large_db = _decibels(small, sides[0]), _decibels(large, sides[1])
    slope, level = np.polyfit(np.log(small_at[_UPPER]), small_db[_UPPER], 1)
    beyond = np.linspace(1.05 * small_at[-1], min(large_at[-2], 1.3 * small_at[-1]), 12)
    extension = _interpolated(beyond, large_at, large_db) - (slope * np.log(beyond) + level)
    return float(np.quantile(_ratio_db(small, large, sides), 0.8) - extension[2:].mean())


def _ratio_db(small: ImageQuality, large: ImageQuality, sides: tuple[float, float]) -> Floats:
    """Return the power of the larger image over that of the smaller one, where both have pixels."""
    small_at, large_at = (_FREQUENCIES * side for side in sides)
    ratio = _interpolated(small_at, large_at, _decibels(large, sides[1])) - _decibels(small, sides[0])
    return ratio[_COMPARED]


def _decibels(image: ImageQuality, side: float) -> Floats:
    decibels: Floats = 10 * np.log10(np.maximum(image.spectrum, _LEAST_POWER) / side**2)
    return decibels


def _interpolated(at: Floats, known_at: Floats, values: Floats) -> Floats:
    interpolated: Floats = np.interp(np.log(at), np.log(known_at), values)
    return interpolated


def _by_framing(framing: Framing) -> list[Difference]:
    if framing.is_same:
        return []
    words = "the images show different parts" if framing.degrees < 1.5 else "one of the images is turned"
    doubt = Difference(0, "", words)
    more = [share >= MIN_OUTSIDE for share in framing.outside]
    if more[0] is more[1]:
        return [doubt]
    wider = more.index(True)
    if framing.detail[wider] < _BORDER_DETAIL:
        return [Difference(-1 if wider == 0 else 1, "no border", "the other image has no border"), doubt]
    return [Difference(1 if wider == 0 else -1, "shows more", "the other image shows more"), doubt]


def _by_noise(a: ImageQuality, b: ImageQuality, framing: Framing) -> list[Difference]:
    clean, noisy = (a, b) if a.noise < b.noise else (b, a)
    ratio = _side_ratio(clean, noisy, framing if clean is a else framing.swapped())
    if ratio < 1 / _SIZE_RATIO:
        return []  # finer than the pixels of the smaller image are details of the larger one
    pairs = (clean.noise, noisy.noise), (clean.coarse_noise, noisy.coarse_noise)
    if any(high < _NOISE_RATIO * low + _NOISE_STEP for low, high in pairs):
        return []
    added = np.sqrt(noisy.coarse_noise**2 - clean.coarse_noise**2)
    if clean.compression * _LOW_STEP * _SURVIVING_NOISE > added:
        return []  # compression took the noise away
    return [
        Difference(_sign(clean is a), "less noise", "the other image has less noise"),
        Difference(0, "", "the noise of the images differs"),
    ]


def _by_overlay(
    first: Candidate, second: Candidate, framing: Framing, change: Floats | None
) -> list[Difference]:
    # Cells are compared by their place, and small images have other edges.
    is_comparable = framing.is_same and not framing.is_turned
    if first.has_overlay is second.has_overlay or not is_comparable or not (first.quality and second.quality):
        return []
    ratio = _side_ratio(first.quality, second.quality, framing)
    if max(ratio, 1 / ratio) >= _SIZE_RATIO or change is None:
        return []
    if np.median(change) > _LOOK_LEVELS / 2 or change.max() < _LOOK_LEVELS:
        return []  # one is sharper, or has more contrast, everywhere
    doubt = "something is drawn over one of the images"
    return [
        Difference(_sign(second.has_overlay), "no overlay", "the other image has no overlay"),
        Difference(0, "", doubt),
    ]


def _by_compression(a: ImageQuality, b: ImageQuality, framing: Framing) -> list[Difference]:
    """Compare images of which neither is the compression of the other."""
    ratio = _side_ratio(a, b, framing)
    if max(ratio, 1 / ratio) >= _SIZE_RATIO:
        # The smaller image averages what compression did to the larger one.
        large, small = (
            (b.compression / ratio**2, a.compression)
            if ratio > 1
            else (a.compression * ratio**2, b.compression)
        )
        if large > small / _COMPRESSION_RATIO + _AVERAGED_COMPRESSION:
            return [Difference(0, "", "the larger image is more compressed")]
        return []
    low, high = sorted((a.compression, b.compression))
    if low >= _COMPRESSION_RATIO * high or high - low < _COMPRESSION_STEP:
        return []
    # Editing removes the traces of compression. Only its own header proves that a file is less compressed.
    less, more = (a, b) if a.compression < b.compression else (b, a)
    if less.stored_compression >= 0.8 * less.compression > _EDITED_COMPRESSION or _is_stored_again(more):
        return [Difference(_sign(less is a), "less compressed", "the other image is less compressed")]
    return [Difference(_sign(more is a), "the others were changed after they were compressed", "")]


def _change(a: ImageQuality, b: ImageQuality, looks: tuple[Floats, Floats]) -> Floats:
    """Return by how many levels each part of the images differs; of the lightness, if one has no color."""
    if min(a.chroma, b.chroma) < 4 * _GRAY_CHROMA:
        looks = looks[0] @ _LIGHTNESS, looks[1] @ _LIGHTNESS
    change: Floats = np.abs(looks[0] - looks[1]).reshape(len(looks[0]) ** 2, -1).max(axis=1)
    return change


def _by_look(change: Floats | None) -> list[Difference]:
    if change is None:
        return []
    if np.quantile(change, 0.9) > _LOOK_LEVELS or change.max() > 4 * _LOOK_LEVELS:
        return [Difference(0, "", "colors or tones differ, or something was drawn over")]
    return []


def _by_age(first: Candidate, second: Candidate) -> list[Difference]:
    """Doubt a larger file that may be enlarged: a newer one, or of soft images any that is not older."""
    small, large = sorted((first, second), key=lambda one: one.item.width * one.item.height)
    n_pixels = [one.item.width * one.item.height for one in (small, large)]
    if n_pixels[1] < _SIZE_RATIO**2 * n_pixels[0] or large.item.camera:
        return []
    if _is_older(small.item, large.item):
        return [Difference(0, "", "the larger file is newer, and does not say its camera")]
    if small.quality and _is_soft(small.quality) and not _is_older(large.item, small.item, 0):
        return [Difference(0, "", "the larger image may be enlarged")]
    return []


def _is_soft(image: ImageQuality) -> bool:
    """Whether an image lacks detail at its own upper frequencies, as soft and enlarged images do.

    Then nobody can tell whether a larger version was made from it.
    """
    power = image.spectrum[_UPPER]
    if np.median(power) < _DETAIL_POWER:
        return True
    slope, _ = np.polyfit(np.log(_FREQUENCIES[_UPPER]), np.log(np.maximum(power, _LEAST_POWER)), 1)
    return bool(slope < -_SOFT_EXPONENT)


def _by_depth(a: ImageQuality, b: ImageQuality) -> list[Difference]:
    found = []
    if a.has_more is not b.has_more:
        words = "has transparency or more than 8 bits"
        found.append(Difference(_sign(a.has_more), words, "the other file " + words))
    if a.pixels_id != b.pixels_id and not (a.has_known_loss and b.has_known_loss):
        if a.is_lossy is not b.is_lossy:
            found.append(Difference(_sign(b.is_lossy), "stored without loss", ""))
        found.append(Difference(0, "", "what formats like WebP or HEIC lost cannot be measured"))
    return found


def _by_file(first: Candidate, second: Candidate, *, is_decided: bool = False) -> list[Difference]:
    a, b = first.item, second.item
    found = []
    if a.taken and b.taken and abs((a.taken - b.taken).total_seconds()) >= 1:
        found.append(Difference(_sign(a.taken < b.taken), "taken first", ""))
        found.append(Difference(0, "", "the images were taken at different times"))
    for name, words in (("taken", "when it was taken"), ("camera", "the camera")):
        known = [getattr(item, name) is not None for item in (a, b)]
        if known[0] is not known[1]:
            found.append(
                Difference(_sign(known[0]), f"its file says {words}", f"only the other file says {words}")
            )
    one, two = first.quality, second.quality
    if one and two:
        stored_again = [_is_stored_again(quality) for quality in (one, two)]
        if stored_again[0] is not stored_again[1]:
            found.append(Difference(_sign(stored_again[1]), "the others were stored again", ""))
        elif one.pixels_id == two.pixels_id and one.is_lossy is not two.is_lossy:
            found.append(Difference(_sign(one.is_lossy), "the others store the same pixels again", ""))
        same_kind = (
            one.pixels_id != two.pixels_id
            and one.image_format == two.image_format
            and (a.width, a.height) == (b.width, b.height)
        )
        if same_kind and a.size_bytes != b.size_bytes:
            more, fewer = sorted((a.size_bytes, b.size_bytes), reverse=True)
            words = f"more bytes in the same format: {more:,}, the next {fewer:,}"
            found.append(Difference(_sign(a.size_bytes > b.size_bytes), words, ""))
            larger, smaller = (a, b) if a.size_bytes > b.size_bytes else (b, a)
            if not (is_decided or one.image_format != "JPEG" or _is_older(larger, smaller) or larger.camera):
                # It speaks for the other file, after its bytes.
                words = "which of the files was stored first is unknown"
                found.append(Difference(_sign(smaller is a), "", words))
    if a.modified and b.modified and a.modified != b.modified:
        words = f"older file, otherwise equal: {min(a.modified, b.modified):%Y-%m-%d %H:%M}"
        found.append(Difference(_sign(a.modified < b.modified), words, ""))
    return found


def _is_older(item: Item, other: Item, by_s: float = _SAME_TIME_S) -> bool:
    if not (item.modified and other.modified):
        return False
    return (other.modified - item.modified).total_seconds() > by_s


def _is_stored_again(quality: ImageQuality) -> bool:
    """Whether the pixels were compressed before, and coarser than the file is."""
    return quality.compression > 0.1 and quality.stored_compression < 0.8 * quality.compression


def _by_pixels(first: Candidate, second: Candidate) -> list[Difference]:
    n_pixels = [one.item.width * one.item.height for one in (first, second)]
    if n_pixels[0] == n_pixels[1]:
        return []
    kept = first.item if n_pixels[0] > n_pixels[1] else second.item
    times = max(n_pixels) / max(1, min(n_pixels))
    words = f"larger: {kept.width} × {kept.height}, {times:.3g} times the pixels of the next"
    return [Difference(_sign(kept is first.item), words, "the other image has more pixels")]
