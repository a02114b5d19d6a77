"""Find images and decode them."""

from nearsight.images.decode import DecodedImage, content_id, decode, exif_of, may_show_more, thumbnail
from nearsight.images.discovery import (
    count,
    covers,
    excluded_from,
    exists,
    find,
    no_image_text,
    require_any,
    roots,
)
from nearsight.images.exclusions import Exclusions
from nearsight.images.in_memory import InMemoryImage
from nearsight.images.limits import DECODER_RULES, DRAFT_FACTOR, EXTENSIONS, Limits, Stat
from nearsight.images.metadata import Exif
from nearsight.images.path_encoding import decode_path, encode_path
from nearsight.images.sources import FileSource, ImageSource, MemorySource

__all__ = [
    "DECODER_RULES",
    "DRAFT_FACTOR",
    "EXTENSIONS",
    "DecodedImage",
    "Exclusions",
    "Exif",
    "FileSource",
    "ImageSource",
    "InMemoryImage",
    "Limits",
    "MemorySource",
    "Stat",
    "content_id",
    "count",
    "covers",
    "decode",
    "decode_path",
    "encode_path",
    "excluded_from",
    "exif_of",
    "exists",
    "find",
    "may_show_more",
    "no_image_text",
    "require_any",
    "roots",
    "thumbnail",
]
