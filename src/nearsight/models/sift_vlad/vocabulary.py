"""What a VLAD model has learned, as arrays and facts in one file without pickle."""

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

# Grows when an older nearsight could no longer read what is written.
FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """Every choice that changes a vector.

    Attributes
    ----------
    size_px : int
        Images are shrunk to this on the longer side.
    max_features : int
        Keypoints taken of an image.
    power : float
        Exponent, in 0..1 without 0, that every component's size is raised to.
    intra_normalize : bool
        Whether each word's part is brought to unit length before that.
    version : int
        Of the code that goes from pixels to the vector; grows when it gives another vector.
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
    """Visual words, an optional projection, and how they are to be used.

    Attributes
    ----------
    words : ndarray of shape (n_words, 128), float32
        Centers of RootSIFT descriptors.
    method : Method
        How vectors are made with them.
    mean, projection : ndarray of shape (n_words * 128,) and (n_words * 128, dim), float32, or None
        Taken off the VLAD vector, and multiplied with what remains.
    learned_from : str
        For people.
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
        """The arrays there are, by name."""
        found = {"words": self.words, "mean": self.mean, "projection": self.projection}
        return {name: array for name, array in found.items() if array is not None}

    @cached_property
    def sha256(self) -> str:
        """Hash of everything that changes a vector, whatever file it lies in."""
        hasher = hashlib.sha256(json.dumps(self.method.to_dict(), sort_keys=True).encode())
        for name, array in self.arrays.items():
            hasher.update(f"{name}{array.shape}".encode())
            hasher.update(np.ascontiguousarray(array, "<f4").tobytes())
        return hasher.hexdigest()

    def save(self, path: Path) -> None:
        """Write one ``.npz``: the arrays, and the facts as JSON. It appears whole or not at all.

        Raises
        ------
        StorageError
            The disk is full or cannot be written to.
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
        """Read what `save` wrote.

        Raises
        ------
        WeightsError
            The file is missing, is something else, or is damaged.
        NewerFormatError
            A newer nearsight wrote it.
        """
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
                facts = json.loads(str(archive["facts"]))
                arrays = {name: archive[name] for name in archive.files if name != "facts"}
        except FileNotFoundError:
            raise WeightsError(
                f"There is no vocabulary at {path}. Learn one with: fit_sift_vlad(IMAGES).save({str(path)!r})"
            ) from None
        # numpy raises whatever it stumbles over; a lone array is no archive.
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            EOFError,
            zipfile.BadZipFile,
        ) as error:
            raise _damaged(path, f"it is no vocabulary ({error or type(error).__name__})") from error
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
            raise _damaged(path, f"a part is missing or foreign: {error}") from error
        return vocabulary


def _damaged(path: Path, why: str) -> WeightsError:
    return WeightsError(f"{path} cannot be used: {why}. Restore the file, or learn a vocabulary anew.")
