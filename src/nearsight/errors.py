"""Every error nearsight raises, and the record of one failed image.

::

    NearsightError
    ├── ImageError (ValueError)                 one image cannot be used
    ├── InvalidParameterError (ValueError)      an argument outside its range
    ├── UnknownModelError (KeyError)            no model of that name
    ├── MissingExtraError (ImportError)         an optional package is not installed
    ├── WeightsError (RuntimeError)             weights are missing, damaged or not the expected ones
    ├── ParityError (RuntimeError)              a fast way of running a model strays too far
    ├── DeviceError (RuntimeError)              a device that is not there, or cannot run this model
    ├── CalibrationError (ValueError)           data that cannot promise what is asked
    ├── FingerprintMismatchError (ValueError)   vectors of another model or preprocessing
    ├── CollectionNotFoundError (FileNotFoundError)
    ├── NotACollectionError (ValueError)        the directory holds something else
    ├── DetectorFileError (ValueError)          a file that holds no sound detector
    ├── NewerFormatError (RuntimeError)         written by a newer nearsight
    ├── UnknownIdError (KeyError)               no such row
    ├── FilterError (ValueError)                a `where` expression that is not understood
    ├── MetadataError (ValueError)              user metadata of a wrong name or type
    ├── VectorError (ValueError)                vectors, rows or a k that no store can work with
    ├── UnsupportedMachineError (RuntimeError)  the processor cannot run what is installed
    └── StorageError (OSError)                  the disk is full, read-only or gone

Each message names the value, the rule it broke and the way out.
"""

from dataclasses import dataclass


class NearsightError(Exception):
    """Root of everything nearsight raises on purpose."""

    # KeyError would print the message in quotes; OSError would print the errno tuple.
    def __str__(self) -> str:
        return str(self.args[0]) if self.args else self.__class__.__name__


class ImageError(NearsightError, ValueError):
    """One image cannot be used.

    Parameters
    ----------
    path : str
        The image, as it was given.
    reason : str
        What is wrong with it, for a person.
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
    """No model of that name is registered."""


class MissingExtraError(NearsightError, ImportError):
    """An optional package is needed; the message holds the install command."""


class WeightsError(NearsightError, RuntimeError):
    """Weights are missing, damaged, or not the ones the model was published with."""


class ParityError(NearsightError, RuntimeError):
    """A fast way of running a model gives other vectors than the exact one."""


class CalibrationError(NearsightError, ValueError):
    """The examples cannot promise the rate that is asked for, or their scores are no numbers."""


class DeviceError(NearsightError, RuntimeError):
    """A device is not there, or cannot run the model; the message says what to install."""


class FingerprintMismatchError(NearsightError, ValueError):
    """Vectors made by another model or preprocessing: they cannot be compared."""


class CollectionNotFoundError(NearsightError, FileNotFoundError):
    """There is no collection at that place."""


class NotACollectionError(NearsightError, ValueError):
    """The directory exists and holds something that is not a collection."""


class DetectorFileError(NearsightError, ValueError):
    """A file that is missing, damaged, or holds no fitted detector."""


class NewerFormatError(NearsightError, RuntimeError):
    """The collection was written by a newer version of nearsight."""


class UnknownIdError(NearsightError, KeyError):
    """The collection has no row of that id."""


class FilterError(NearsightError, ValueError):
    """A ``where`` expression that is not understood or names an unknown field."""


class MetadataError(NearsightError, ValueError):
    """User metadata whose name or type does not fit the collection."""


class VectorError(NearsightError, ValueError):
    """Vectors, rows or a number of neighbors that no store can work with."""


class UnsupportedMachineError(NearsightError, RuntimeError):
    """The processor lacks instructions that an installed package needs."""


class StorageError(NearsightError, OSError):
    """The collection's storage refused: full, read-only, or gone."""


@dataclass(frozen=True, slots=True)
class ImageFailure:
    """One image that could not be used, and why.

    Attributes
    ----------
    path : str
        The image, as it was given (absolute where a folder was walked).
    reason : str
        What is wrong with it, for a person.
    """

    path: str
    reason: str
