"""Compares two duplicates: which of them lost less, and what the other has that the better one lacks."""

import numpy as np
from numpy.typing import NDArray

from nearsight.analyses.image_difference import (
    MIN_OUTSIDE,
    SIZE_RATIO,
    Candidate,
    Framing,
    ImageDifference,
    side_ratio,
    sign_of,
)
from nearsight.analyses.resolution_comparison import AddedDetailOf, by_detail, has_own_detail, is_soft
from nearsight.collection import Item
from nearsight.images.quality import ImageQuality, is_compression_of

Floats = NDArray[np.float64]

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
# Less detail than this share of the inside's is a border.
_BORDER_DETAIL = 0.35


def differences(
    first: Candidate,
    second: Candidate,
    framing: Framing,
    looks: tuple[Floats, Floats] | None = None,
    added_detail: AddedDetailOf | None = None,
) -> list[ImageDifference]:
    """Compare two images of one content; the most important difference comes first.

    Parameters
    ----------
    first, second : Candidate
    framing : Framing
    looks : tuple of ndarray of shape (16, 16, 3), optional
        Small RGB images of the part that both show.
    added_detail : callable, optional
        Decodes the two images, and returns what the larger one adds to the smaller one. It is called where
        their spectra leave a doubt.
    """
    a, b = first.quality, second.quality
    if a is None or b is None:
        unknown = ImageDifference(0, "", "a file could not be read to measure what it lost")
        return [unknown, *_by_pixels(first, second), *_by_file(first, second)]
    if a.pixels_id == b.pixels_id:
        return [*_by_depth(a, b), *_by_file(first, second)]
    change = None if looks is None else _change(a, b, looks)
    found = [*_by_color(a, b)]
    proofs = [
        framing.is_same and not framing.is_turned and is_compression_of(*pair) for pair in ((b, a), (a, b))
    ]
    if proofs[0] is not proofs[1]:
        found.append(
            ImageDifference(sign_of(proofs[0]), "less compressed", "the other image is less compressed")
        )
    elif proofs[0] and a.is_lossy is not b.is_lossy and not _explains(*((a, b) if a.is_lossy else (b, a))):
        # They differ by less than the traces of an earlier compression; another one adds to them.
        found.append(
            ImageDifference(
                sign_of(b.is_lossy), "stored without loss", "the other image is stored without loss"
            )
        )
    elif proofs[0]:
        found += _by_clear_traces(a, b)
    else:
        found += [
            *_by_overlay(first, second, framing, change),
            *_by_framing(framing),
            *by_detail(first, second, framing, added_detail),
            *(_by_tones(a, b) if framing.is_same else []),
            *_by_noise(a, b, framing),
            *_by_compression(first, second, framing),
        ]
    is_decided = any(one.sign for one in found)
    found += [*_by_look(change), *_by_depth(a, b), *_by_age(first, second, framing, added_detail)]
    return [*found, *_by_file(first, second, is_decided=is_decided)]


def _by_clear_traces(a: ImageQuality, b: ImageQuality) -> list[ImageDifference]:
    """Compare images of which either may be the compression of the other, by the size of its steps."""
    low, high = sorted((a.compression, b.compression))
    # Had the one of finer steps been stored again, traces as clear as these would show.
    if high < _CLEAR_COMPRESSION or low > _CLEAR_RATIO * high:
        return []
    is_first = a.compression < b.compression
    return [ImageDifference(sign_of(is_first), "less compressed", "the other image is less compressed")]


def _explains(lossy: ImageQuality, lossless: ImageQuality) -> bool:
    """Whether the traces of compression in a lossless file are those of the lossy one."""
    return lossless.compression > 0 and lossy.stored_compression >= 0.8 * lossless.compression


def _by_color(a: ImageQuality, b: ImageQuality) -> list[ImageDifference]:
    low, high = sorted((a.chroma, b.chroma))
    colored = a if a.chroma > b.chroma else b
    # Color against none; of a gray image exactly none, so that a fainter color counts, too.
    least = _FAINT_CHROMA if low < _GRAY_CHROMA else _LEAST_CHROMA
    if low < _NO_COLOR_SHARE * high and high > least:
        return [
            ImageDifference(
                sign_of(colored is a), "in color", "the other image has color, the kept one has none"
            )
        ]
    if low < _GRAY_CHROMA < high / 4:
        return [ImageDifference(0, "", "one of the images is tinted, or faintly colored")]
    n_low, n_high = sorted((a.n_colors, b.n_colors))
    if n_low <= _PALETTE_COLORS and n_high > _MANY_COLORS and low > 4 * _GRAY_CHROMA:
        return [
            ImageDifference(
                sign_of(a.n_colors > b.n_colors), "more colors", "the other image has more colors"
            )
        ]
    return []


def _by_tones(a: ImageQuality, b: ImageQuality) -> list[ImageDifference]:
    if abs(a.tones - b.tones) < _TONE_BITS:
        return []
    more, fewer = (a, b) if a.tones > b.tones else (b, a)
    if more.noise > 1.3 * fewer.noise + 0.3:  # noise has tones, too
        return [ImageDifference(0, "", "the tones of the images differ")]
    return [ImageDifference(sign_of(more is a), "more tones", "the other image has more tones")]


def _by_framing(framing: Framing) -> list[ImageDifference]:
    if framing.is_same:
        return []
    words = "the images show different parts" if framing.degrees < 1.5 else "one of the images is turned"
    doubt = ImageDifference(0, "", words)
    more = [share >= MIN_OUTSIDE for share in framing.outside]
    if more[0] is more[1]:
        return [doubt]
    wider = more.index(True)
    if framing.detail[wider] < _BORDER_DETAIL:
        return [ImageDifference(-1 if wider == 0 else 1, "no border", "the other image has no border"), doubt]
    return [ImageDifference(1 if wider == 0 else -1, "shows more", "the other image shows more"), doubt]


def _by_noise(a: ImageQuality, b: ImageQuality, framing: Framing) -> list[ImageDifference]:
    clean, noisy = (a, b) if a.noise < b.noise else (b, a)
    ratio = side_ratio(clean, noisy, framing if clean is a else framing.swapped())
    if ratio < 1 / SIZE_RATIO:
        return []  # finer than the pixels of the smaller image are details of the larger one
    pairs = (clean.noise, noisy.noise), (clean.coarse_noise, noisy.coarse_noise)
    if any(high < _NOISE_RATIO * low + _NOISE_STEP for low, high in pairs):
        return []
    added = np.sqrt(noisy.coarse_noise**2 - clean.coarse_noise**2)
    if clean.compression * _LOW_STEP * _SURVIVING_NOISE > added:
        return []  # compression took the noise away
    return [
        ImageDifference(sign_of(clean is a), "less noise", "the other image has less noise"),
        ImageDifference(0, "", "the noise of the images differs"),
    ]


def _by_overlay(
    first: Candidate, second: Candidate, framing: Framing, change: Floats | None
) -> list[ImageDifference]:
    # Cells are compared by their place, and small images have other edges.
    is_comparable = framing.is_same and not framing.is_turned
    if first.has_overlay is second.has_overlay or not is_comparable or not (first.quality and second.quality):
        return []
    ratio = side_ratio(first.quality, second.quality, framing)
    if max(ratio, 1 / ratio) >= SIZE_RATIO or change is None:
        return []
    if np.median(change) > _LOOK_LEVELS / 2 or change.max() < _LOOK_LEVELS:
        return []  # one is sharper, or has more contrast, everywhere
    doubt = "something is drawn over one of the images"
    return [
        ImageDifference(sign_of(second.has_overlay), "no overlay", "the other image has no overlay"),
        ImageDifference(0, "", doubt),
    ]


def _by_compression(first: Candidate, second: Candidate, framing: Framing) -> list[ImageDifference]:
    """Compare images of which neither is the compression of the other."""
    a, b = first.quality, second.quality
    if a is None or b is None:
        return []
    ratio = side_ratio(a, b, framing)
    if max(ratio, 1 / ratio) >= SIZE_RATIO:
        # The smaller image averages what compression did to the larger one.
        large, small = (
            (b.compression / ratio**2, a.compression)
            if ratio > 1
            else (a.compression * ratio**2, b.compression)
        )
        if large > small / _COMPRESSION_RATIO + _AVERAGED_COMPRESSION:
            return [ImageDifference(0, "", "the larger image is more compressed")]
        return []
    low, high = sorted((a.compression, b.compression))
    if low >= _COMPRESSION_RATIO * high or high - low < _COMPRESSION_STEP:
        return []
    # Editing removes the traces of compression. Only its own header proves that a file is less compressed.
    less, more = (a, b) if a.compression < b.compression else (b, a)
    if less.stored_compression >= 0.8 * less.compression > _EDITED_COMPRESSION or _is_stored_again(more):
        return [ImageDifference(sign_of(less is a), "less compressed", "the other image is less compressed")]
    cameras = [one.item.camera for one in ((first, second) if less is a else (second, first))]
    if cameras[0] and not cameras[1]:
        return []  # editing adds no camera
    return [ImageDifference(sign_of(more is a), "the others were changed after they were compressed", "")]


def _change(a: ImageQuality, b: ImageQuality, looks: tuple[Floats, Floats]) -> Floats:
    """Return by how many levels each part of the images differs; of the lightness, if one has no color."""
    if min(a.chroma, b.chroma) < 4 * _GRAY_CHROMA:
        looks = looks[0] @ _LIGHTNESS, looks[1] @ _LIGHTNESS
    change: Floats = np.abs(looks[0] - looks[1]).reshape(len(looks[0]) ** 2, -1).max(axis=1)
    return change


def _by_look(change: Floats | None) -> list[ImageDifference]:
    if change is None:
        return []
    if np.quantile(change, 0.9) > _LOOK_LEVELS or change.max() > 4 * _LOOK_LEVELS:
        return [ImageDifference(0, "", "colors or tones differ, or something was drawn over")]
    return []


def _by_age(
    first: Candidate, second: Candidate, framing: Framing, added_detail: AddedDetailOf | None
) -> list[ImageDifference]:
    """Doubt a larger file that may be enlarged: a newer one, or of soft images any that is not older."""
    small, large = sorted((first, second), key=lambda one: one.item.width * one.item.height)
    n_pixels = [one.item.width * one.item.height for one in (small, large)]
    if n_pixels[1] < SIZE_RATIO**2 * n_pixels[0] or large.item.camera:
        return []
    if _is_older(small.item, large.item):
        return [ImageDifference(0, "", "the larger file is newer, and does not say its camera")]
    may_be_enlarged = small.quality and is_soft(small.quality) and not _is_older(large.item, small.item, 0)
    if may_be_enlarged and not has_own_detail(framing, added_detail):
        return [ImageDifference(0, "", "the larger image may be enlarged")]
    return []


def _by_depth(a: ImageQuality, b: ImageQuality) -> list[ImageDifference]:
    found = []
    if a.has_more is not b.has_more:
        words = "has transparency or more than 8 bits"
        found.append(ImageDifference(sign_of(a.has_more), words, "the other file " + words))
    if a.pixels_id != b.pixels_id and not (a.has_known_loss and b.has_known_loss):
        if a.is_lossy is not b.is_lossy:
            found.append(ImageDifference(sign_of(b.is_lossy), "stored without loss", ""))
        found.append(ImageDifference(0, "", "what formats like WebP or HEIC lost cannot be measured"))
    return found


def _by_file(first: Candidate, second: Candidate, *, is_decided: bool = False) -> list[ImageDifference]:
    a, b = first.item, second.item
    found = []
    if a.taken and b.taken and abs((a.taken - b.taken).total_seconds()) >= 1:
        found.append(ImageDifference(sign_of(a.taken < b.taken), "taken first", ""))
        found.append(ImageDifference(0, "", "the images were taken at different times"))
    for name, words in (("taken", "when it was taken"), ("camera", "the camera")):
        known = [getattr(item, name) is not None for item in (a, b)]
        if known[0] is not known[1]:
            found.append(
                ImageDifference(
                    sign_of(known[0]), f"its file says {words}", f"only the other file says {words}"
                )
            )
    one, two = first.quality, second.quality
    if one and two:
        stored_again = [_is_stored_again(quality) for quality in (one, two)]
        if stored_again[0] is not stored_again[1]:
            found.append(ImageDifference(sign_of(stored_again[1]), "the others were stored again", ""))
        elif one.pixels_id == two.pixels_id and one.is_lossy is not two.is_lossy:
            found.append(ImageDifference(sign_of(one.is_lossy), "the others store the same pixels again", ""))
        same_kind = (
            one.pixels_id != two.pixels_id
            and one.image_format == two.image_format
            and (a.width, a.height) == (b.width, b.height)
        )
        if same_kind and a.size_bytes != b.size_bytes:
            more, fewer = sorted((a.size_bytes, b.size_bytes), reverse=True)
            words = f"more bytes in the same format: {more:,}, the next {fewer:,}"
            found.append(ImageDifference(sign_of(a.size_bytes > b.size_bytes), words, ""))
            larger, smaller = (a, b) if a.size_bytes > b.size_bytes else (b, a)
            if not (is_decided or one.image_format != "JPEG" or _is_older(larger, smaller) or larger.camera):
                # It speaks for the other file, after its bytes.
                words = "which of the files was stored first is unknown"
                found.append(ImageDifference(sign_of(smaller is a), "", words))
    if a.modified and b.modified and a.modified != b.modified:
        words = f"older file, otherwise equal: {min(a.modified, b.modified):%Y-%m-%d %H:%M}"
        found.append(ImageDifference(sign_of(a.modified < b.modified), words, ""))
    return found


def _is_older(item: Item, other: Item, by_s: float = _SAME_TIME_S) -> bool:
    if not (item.modified and other.modified):
        return False
    return (other.modified - item.modified).total_seconds() > by_s


def _is_stored_again(quality: ImageQuality) -> bool:
    """Whether the pixels were compressed before, and coarser than the file is."""
    return quality.compression > 0.1 and quality.stored_compression < 0.8 * quality.compression


def _by_pixels(first: Candidate, second: Candidate) -> list[ImageDifference]:
    n_pixels = [one.item.width * one.item.height for one in (first, second)]
    if n_pixels[0] == n_pixels[1]:
        return []
    kept = first.item if n_pixels[0] > n_pixels[1] else second.item
    times = max(n_pixels) / max(1, min(n_pixels))
    words = f"larger: {kept.width} × {kept.height}, {times:.3g} times the pixels of the next"
    return [ImageDifference(sign_of(kept is first.item), words, "the other image has more pixels")]
