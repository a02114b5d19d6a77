"""The errors that nearsight raises, and the record of an image that cannot be read.

::

    NearsightError
    ├── ImageError (ValueError)                 one image cannot be read
    ├── InvalidParameterError (ValueError)      an argument is outside its range
    ├── UnknownModelError (KeyError)            no model has that name
    ├── MissingExtraError (ImportError)         an optional package is not installed
    ├── WeightsError (RuntimeError)             weights are missing, damaged or different
    ├── ParityError (RuntimeError)              a faster variant of a model gives other vectors
    ├── DeviceError (RuntimeError)              a device is missing, or cannot run the model
    ├── CalibrationError (ValueError)           the data do not suffice for the rate asked for
    ├── FingerprintMismatchError (ValueError)   vectors of another model or preprocessing
    ├── CollectionNotFoundError (FileNotFoundError)
    ├── NotACollectionError (ValueError)        the directory is not a collection
    ├── CopyDifferenceError (ValueError)        a copy of a collection is not as the original
    ├── DetectorFileError (ValueError)          a detector's file is missing, damaged or different
    ├── NewerFormatError (RuntimeError)         written by a newer nearsight
    ├── UnknownIdError (KeyError)               no image has that id
    ├── FilterError (ValueError)                a `where` expression is not valid
    ├── MetadataError (ValueError)              metadata of a wrong name or type
    ├── VectorError (ValueError)                vectors, rows or a k that a store cannot take
    ├── RowsRefusedError (ValueError)           rows that the engine of a store cannot hold, by id
    ├── ServiceError (RuntimeError)             a service refuses a request, or cannot be reached
    ├── UnsupportedMachineError (RuntimeError)  the processor cannot run an installed package
    ├── UnitInputError (OSError)                the images of a unit of a job cannot be listed
    ├── ChangedInputError (ValueError)          they are not those that were planned
    └── StorageError (OSError)                  the disk is full, read-only or gone

Each message names the value, the rule that it breaks, and the remedy.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class NearsightError(Exception):
    """The base class of all errors that nearsight raises."""

    # KeyError would print the message in quotes; OSError would print the errno tuple.
    def __str__(self) -> str:
        return str(self.args[0]) if self.args else self.__class__.__name__


class ImageError(NearsightError, ValueError):
    """One image cannot be read.

    Parameters
    ----------
    path : str
        The image as it was named.
    reason : str
        Why it cannot be read, for people.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type["ImageError"], tuple[str, str]]:
        return type(self), (self.path, self.reason)


class InvalidParameterError(NearsightError, ValueError):
    """An argument is outside its range."""


class UnknownModelError(NearsightError, KeyError):
    """No model has that name; the message lists similar names."""


class MissingExtraError(NearsightError, ImportError):
    """An optional package is needed; the message holds the install command."""


class WeightsError(NearsightError, RuntimeError):
    """Weights are missing, damaged, or differ from those that the model was published with."""


class ParityError(NearsightError, RuntimeError):
    """A faster variant of a model gives vectors that differ too much from those in float32."""


class CalibrationError(NearsightError, ValueError):
    """The examples do not suffice for the rate that is asked for, or their scores are not finite."""


class DeviceError(NearsightError, RuntimeError):
    """A device is missing, or cannot run the model; the message says what to install."""


class FingerprintMismatchError(NearsightError, ValueError):
    """The vectors come from another model or preprocessing, and cannot be compared."""


class CollectionNotFoundError(NearsightError, FileNotFoundError):
    """There is no collection there; `Collection.create` creates one.

    Parameters
    ----------
    message : str
    uri : str
        Where one could be created; empty if there is another remedy.
    """

    def __init__(self, message: str, uri: str = "") -> None:
        super().__init__(message)
        self.uri = uri

    def __reduce__(self) -> tuple[type["CollectionNotFoundError"], tuple[str, str]]:
        return type(self), (self.args[0], self.uri)


class NotACollectionError(NearsightError, ValueError):
    """The directory exists, and is not a collection."""


class DetectorFileError(NearsightError, ValueError):
    """A detector's file is missing, damaged, or holds something else."""


class NewerFormatError(NearsightError, RuntimeError):
    """A newer version of nearsight wrote the collection or file; upgrade nearsight."""


class UnknownIdError(NearsightError, KeyError):
    """No image has that id, or several ids begin with it."""


class FilterError(NearsightError, ValueError):
    """A ``where`` expression is not valid, or names an unknown field."""


class MetadataError(NearsightError, ValueError):
    """Metadata has a name or type that does not fit the collection."""


class VectorError(NearsightError, ValueError):
    """Vectors, rows or a number of neighbors that a store cannot take."""


class RowsRefusedError(NearsightError, ValueError):
    """An engine cannot hold some of the rows; nothing of the call was written.

    Attributes
    ----------
    reasons : dict of str to str
        By id: the rule that the row breaks, and the remedy.
    """

    def __init__(self, message: str, reasons: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.reasons = dict(reasons or {})

    def __reduce__(self) -> tuple[type["RowsRefusedError"], tuple[str, dict[str, str]]]:
        return type(self), (self.args[0], self.reasons)


class UnsupportedMachineError(NearsightError, RuntimeError):
    """The processor lacks instructions that an installed package needs."""


class ServiceError(NearsightError, RuntimeError):
    """A service refuses a request, or cannot be reached.

    Parameters
    ----------
    message : str
    status : int
        Of HTTP; 0 if there was no answer.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status

    def __reduce__(self) -> tuple[type["ServiceError"], tuple[str, int]]:
        return type(self), (self.args[0], self.status)


class StorageError(NearsightError, OSError):
    """The storage cannot be written or read: it is full, read-only or gone."""


class UnitInputError(NearsightError, OSError):
    """The images of a unit of a job cannot be listed on this machine."""


class ChangedInputError(NearsightError, ValueError):
    """The images of a unit of a job are not those that were planned: its shard or table has changed."""


class CopyDifferenceError(NearsightError, ValueError):
    """A copy of a collection is not as the original.

    Attributes
    ----------
    differences : dict
        ``missing``, ``different`` and ``surplus``: numbers of images; ``first``: what is the matter with the
        first of them.
    """

    def __init__(self, message: str, differences: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.differences = differences or {}

    def __reduce__(self) -> tuple[type["CopyDifferenceError"], tuple[str, dict[str, Any]]]:
        return type(self), (self.args[0], self.differences)


@dataclass(frozen=True, slots=True)
class ImageFailure:
    """An image that could not be read, and the reason.

    Attributes
    ----------
    path : str
        The image as it was named; absolute if a folder was searched.
    reason : str
        Why it could not be read, for people.
    """

    path: str
    reason: str
