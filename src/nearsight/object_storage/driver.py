"""What opens a URL: the drivers of fsspec."""

import logging
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, Final

from nearsight.errors import MissingExtraError

# Google's driver logs each error that it raises, with its traceback. Where nobody has set up logging, Python
# would print that above the error that we tell.
logging.getLogger("gcsfs").addHandler(logging.NullHandler())

_EXTRAS: Final = {"gcs": "gcs", "gs": "gcs", "http": "http", "https": "http", "s3": "s3", "s3a": "s3"}


def protocols(url: str) -> list[str]:
    """Return every protocol of a chained URL, lower case.

    Examples
    --------
    >>> protocols("tar://a.jpg::https://example.org/a.tar")
    ['tar', 'https']
    """
    return [link.partition("://")[0].lower() for link in url.split("::") if link]


def url_to_fs(url: str, **options: Any) -> tuple[Any, str]:
    """Return the file system and the path in it that a URL names.

    Parameters
    ----------
    url : str
    **options
        Of the driver, such as ``use_listings_cache=False``.

    Raises
    ------
    MissingExtraError
        Its driver is not installed; the message holds the command that installs it.
    """
    # Imported here, because it takes 140 ms and most collections are local.
    from fsspec.core import url_to_fs as open_url

    try:
        fs, path = open_url(url, **options)
    except ImportError as error:
        extra = next((_EXTRAS[p] for p in protocols(url) if p in _EXTRAS), None)
        remedy = f"pip install 'nearsight[{extra}]'" if extra else str(error)
        raise MissingExtraError(f"{protocols(url)[-1]}:// needs an extra: {remedy}") from error
    return fs, str(path)


def written(info: Mapping[str, Any]) -> object:
    """Return when an object of a listing was written, as the driver tells it; None if it does not."""
    names = ("LastModified", "last_modified", "updated", "mtime", "created")
    return next((info[name] for name in names if info.get(name)), None)


def written_s(info: Mapping[str, Any]) -> float:
    """Return when an object of a listing was written, in seconds since 1970; 0.0 if nobody knows.

    Examples
    --------
    >>> written_s({"updated": "1970-01-01T00:01:00.5Z"}), written_s({"mtime": 60}), written_s({})
    (60.5, 60.0, 0.0)
    """
    moment = written(info)
    if isinstance(moment, str):
        try:
            moment = datetime.fromisoformat(moment.replace("Z", "+00:00"))
        except ValueError:
            return 0.0
    if isinstance(moment, datetime):
        return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
    return float(moment) if isinstance(moment, (int, float)) else 0.0
