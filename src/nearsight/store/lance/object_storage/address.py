"""The URI of a collection in a bucket."""

import hashlib
import json
import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit

from nearsight.errors import InvalidParameterError
from nearsight.object_storage.bucket import Bucket
from nearsight.settings import environment

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}")
_OPTIONS = {"s3": {"endpoint", "region"}, "gs": set[str]()}
_FORMS = {"s3": "s3://BUCKET/FOLDER", "gs": "gs://BUCKET/FOLDER"}
# What a server that is not AWS is told where nobody names a region.
_ANY_REGION = "us-east-1"


@dataclass(frozen=True, slots=True)
class ObjectAddress:
    """A folder of a bucket.

    Attributes
    ----------
    scheme : str
        "s3" or "gs".
    bucket, folder : str
    endpoint : str
        URL of a server that is not AWS or Google; empty for those.
    region : str
        Empty where the SDK finds it.
    """

    scheme: str
    bucket: str
    folder: str
    endpoint: str = ""
    region: str = ""

    @property
    def path(self) -> str:
        """Bucket and folder."""
        return f"{self.bucket}/{self.folder}"

    @property
    def url(self) -> str:
        """What LanceDB opens."""
        return f"{self.scheme}://{self.path}"

    @property
    def shown(self) -> str:
        """What people are shown, and what opens this collection again."""
        named = {"endpoint": self.endpoint, "region": self.region} if self.scheme == "s3" else {}
        options = urlencode({name: value for name, value in named.items() if value}, safe=":/")
        return f"{self.url}?{options}" if options else self.url

    @property
    def label(self) -> str:
        """A name for files of this collection that no other collection has."""
        name = re.sub(r"[^A-Za-z0-9_-]", "-", self.folder)[-40:].strip("-")
        return f"{name}-{hashlib.sha256(self.shown.encode()).hexdigest()[:12]}"


def parse_address(uri: str) -> ObjectAddress:
    """Return the address that a URI names.

    ``AWS_ENDPOINT_URL_S3``, ``AWS_ENDPOINT_URL``, ``AWS_REGION`` and ``AWS_DEFAULT_REGION`` count where the
    URI names neither endpoint nor region; ``STORAGE_EMULATOR_HOST`` counts for ``gs://``, as for the SDK.
    Credentials come from where the SDKs look for them.

    Raises
    ------
    InvalidParameterError
        The URI lacks the bucket or the folder, or holds a password or an unknown option.

    Examples
    --------
    >>> address = parse_address("s3://photos/shop/2026?endpoint=http://127.0.0.1:9000")
    >>> address.bucket, address.folder, address.shown
    ('photos', 'shop/2026', 's3://photos/shop/2026?endpoint=http://127.0.0.1:9000&region=us-east-1')
    """
    parts = urlsplit(uri)
    form = _FORMS[parts.scheme]
    if "@" in parts.netloc:
        raise InvalidParameterError(
            f"{parts.scheme}:// URIs hold no credentials, because they are written into logs; set the"
            f" variables or files that the SDK reads, and write {form}"
        )
    bucket, folder = parts.netloc, parts.path.strip("/")
    shown = f"{parts.scheme}://{bucket}/{folder}"
    if not _BUCKET.fullmatch(bucket):
        raise InvalidParameterError(f"{shown} names no bucket; write {form}")
    if not folder or any(part in ("", ".", "..") for part in folder.split("/")):
        raise InvalidParameterError(f"{shown} names no folder of the bucket; write {form}")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := sorted(options.keys() - _OPTIONS[parts.scheme]):
        known = sorted(_OPTIONS[parts.scheme]) or "none"
        raise InvalidParameterError(f"{shown}: unknown options {unknown}; there are {known}")
    if parts.scheme == "gs":
        return ObjectAddress("gs", bucket, folder, _variable("STORAGE_EMULATOR_HOST").rstrip("/"))
    endpoint = options.get("endpoint") or _variable("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    if endpoint and not re.fullmatch(r"https?://[^/@?#]+/?", endpoint):
        raise InvalidParameterError(f"{shown}: the endpoint must be a URL such as https://s3.example.org")
    region = options.get("region") or _variable("AWS_REGION", "AWS_DEFAULT_REGION")
    return ObjectAddress(
        "s3", bucket, folder, endpoint.rstrip("/"), region or (_ANY_REGION if endpoint else "")
    )


def open_bucket(address: ObjectAddress) -> Bucket:
    """Return the objects in the folder of an address.

    Raises
    ------
    MissingExtraError
        The driver is not installed.
    """
    if address.scheme != "s3":
        return Bucket(address.url, shown=address.shown)
    region = {"region_name": address.region or None}
    return Bucket(
        address.url, shown=address.shown, endpoint_url=address.endpoint or None, client_kwargs=region
    )


def storage_options(address: ObjectAddress) -> dict[str, str]:
    """Return what LanceDB has to know, besides what it finds itself."""
    options = {"aws_endpoint": address.endpoint, "aws_region": address.region}
    if address.scheme == "gs":
        # Of an account for a server that is not Google's, this is all that counts.
        account = {"gcs_base_url": address.endpoint, "disable_oauth": True}
        nobody = dict.fromkeys(("client_email", "private_key", "private_key_id"), "")
        options = {"google_service_account_key": json.dumps(account | nobody) if address.endpoint else ""}
    if address.endpoint.startswith("http://"):
        options["allow_http"] = "true"
    return {option: value for option, value in options.items() if value}


def _variable(*names: str) -> str:
    return next((value for value in map(environment().get, names) if value), "")
