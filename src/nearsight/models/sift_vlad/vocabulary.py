"""The fitted vocabulary of a SIFT VLAD model, as arrays and JSON in one file without pickle."""

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearsight.artifacts import exported
from nearsight.errors import NewerFormatError, WeightsError

# Increased when older versions of nearsight cannot read new files.
FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """All settings that determine a vector.

    Attributes
    ----------
    size_px : int
        Length to which the longer side is shrunk, in pixels.
    max_features : int
        Maximum number of keypoints per image.
    power : float
        Exponent of the absolute value of each component, greater than 0 and at most 1.
    intra_normalize : bool
        Whether each word's part is scaled to unit length before that.
    version : int
        Version of the code from pixels to the vector; increased when vectors change.
    """

    size_px: int
    max_features: int
    power: float
    intra_normalize: bool
    version: int = 1

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for a file, under the names that files and fingerprints have always used."""
        return {_NAMES_ON_DISK.get(name, name): value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Method":
        """Read what `to_dict` wrote."""
        fields_by_name = {on_disk: name for name, on_disk in _NAMES_ON_DISK.items()}
        return cls(**{fields_by_name.get(name, name): value for name, value in data.items()})


_NAMES_ON_DISK = {"intra_normalize": "intra_normalise"}


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Visual words, the settings of the vectors, and an optional projection.

    Attributes
    ----------
    words : ndarray of shape (n_words, 128), float32
        Centers of RootSIFT descriptors.
    method : Method
        Settings of the vectors.
    mean, projection : ndarray of shape (n_words * 128,) and (n_words * 128, dim), float32, or None
        Subtracted from the VLAD vector, and multiplied with the difference.
    learned_from : str
        Information for users.
    """

    words: NDArray[np.float32]
    method: Method
    mean: NDArray[np.float32] | None = None
    projection: NDArray[np.float32] | None = None
    learned_from: str = ""

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        return self.words.size if self.projection is None else self.projection.shape[1]

    @property
    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """The arrays that are not None, by name."""
        arrays = {"words": self.words, "mean": self.mean, "projection": self.projection}
        return {name: array for name, array in arrays.items() if array is not None}

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of everything that determines a vector; it does not depend on the file."""
        hasher = hashlib.sha256(json.dumps(self.method.to_dict(), sort_keys=True).encode())
        for name, array in self.arrays.items():
            hasher.update(f"{name}{array.shape}".encode())
            hasher.update(np.ascontiguousarray(array, "<f4").tobytes())
        return hasher.hexdigest()

    def save(self, path: Path) -> None:
        """Write the arrays, and the facts as JSON, to one ``.npz`` file, atomically.

        Raises
        ------
        StorageError
            The file cannot be written, for example because the disk is full.
        """
        facts = {
            "format": FORMAT,
            "method": self.method.to_dict(),
            "learnt_from": self.learned_from,
            "sha256": self.sha256,
        }
        with exported(path) as file:
            np.savez_compressed(file, allow_pickle=False, facts=np.array(json.dumps(facts)), **self.arrays)

    @classmethod
    def load(cls, path: Path) -> "Vocabulary":
        """Read the result of `save`.

        Raises
        ------
        WeightsError
            The file is missing, damaged or not a vocabulary.
        NewerFormatError
            The file was written by a newer nearsight.
        """
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
                facts = json.loads(str(archive["facts"]))
                arrays = {name: archive[name] for name in archive.files if name != "facts"}
        except FileNotFoundError:
            raise WeightsError(
                f"There is no vocabulary at {path}. Fit one with: fit_sift_vlad(IMAGES).save({str(path)!r})"
            ) from None
        # numpy raises many exceptions for damaged files.
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            EOFError,
            zipfile.BadZipFile,
        ) as error:
            raise _damaged(path, f"it is not a vocabulary ({error or type(error).__name__})") from error
        return cls._parse(path, facts, arrays)

    @classmethod
    def _parse(cls, path: Path, facts: Any, arrays: dict[str, NDArray[np.float32]]) -> "Vocabulary":
        if not isinstance(facts, dict) or not isinstance(facts.get("format"), int):
            raise _damaged(path, "its facts are not those of a vocabulary")
        if facts["format"] > FORMAT:
            raise NewerFormatError(
                f"{path} has vocabulary format {facts['format']}; this nearsight reads up to {FORMAT}: "
                "pip install --upgrade nearsight"
            )
        try:
            vocabulary = cls(
                method=Method.from_dict(facts["method"]), learned_from=facts["learnt_from"], **arrays
            )
            if vocabulary.sha256 != facts["sha256"]:
                raise _damaged(path, f"its content has SHA-256 {vocabulary.sha256}, not {facts['sha256']}")
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise _damaged(path, f"a part is missing or unknown: {error}") from error
        return vocabulary


def _damaged(path: Path, why: str) -> WeightsError:
    return WeightsError(f"{path} cannot be used: {why}. Restore the file, or fit a new vocabulary.")
