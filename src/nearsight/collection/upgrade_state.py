"""How far the upgrade of a collection came: one small document beside the manifest, replaced whole."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from nearsight.collection import manifest
from nearsight.errors import StorageError
from nearsight.store import Location, locate

STATE = "upgrade.json"
#: The file of the bridge from old to new vectors.
BRIDGE = "bridge.npz"
Phase = Literal["sampling", "shadow", "verifying", "ready", "switched"]


@dataclass(frozen=True, slots=True)
class UpgradeState:
    """How far an upgrade came.

    Attributes
    ----------
    phase : {"sampling", "shadow", "verifying", "ready", "switched"}
        A sample is being embedded; all rows are being written; they are being compared; the collection can
        change; it did.
    model : str
        The name that loads the new model.
    fingerprint : str
        Digest of its fingerprint.
    store, previous_store : str
        Names of the stores of the new and of the old rows.
    previous : mapping
        The old manifest's document.
    dropped, estimated : int
        Images whose files are gone and that were left out, and those whose vectors are estimates.
    image_seconds : float
        Time for one image, measured on the sample; 0 if it is not known.
    rolled_back : bool
        Whether the old model was brought back, or is about to be.
    left_out : sequence of str
        Once the collection changed: ids of the old rows that have no new one.
    deleting : bool
        Whether the rows that the collection does not answer from are being deleted. What is left of them
        after a crash is good for nothing.
    """

    phase: Phase
    model: str
    fingerprint: str
    store: str
    previous_store: str
    previous: Mapping[str, Any]
    dropped: int = 0
    estimated: int = 0
    image_seconds: float = 0.0
    rolled_back: bool = False
    left_out: Sequence[str] = ()
    deleting: bool = False

    @property
    def ending(self) -> str:
        """The command that deletes the rows that the collection does not answer from."""
        return f"nearsight upgrade --{'commit' if self.phase == 'switched' else 'abandon'}"

    @property
    def was_rolled_back(self) -> bool:
        """Whether the collection holds the old model because it was brought back."""
        return self.rolled_back and self.phase != "switched"

    def write(self, place: Path | Location) -> None:
        """Write it atomically."""
        locate(place).write_document(STATE, json.dumps(asdict(self), indent=1).encode() + b"\n")

    @classmethod
    def read(cls, place: Path | Location) -> "UpgradeState | None":
        """Return the state of a collection's upgrade; None if there is none.

        Raises
        ------
        StorageError
            The document is damaged.
        """
        location = locate(place)
        content = location.read_document(STATE)
        if content is None:
            return None
        try:
            state = cls(**json.loads(content))
        except (ValueError, TypeError) as error:
            raise StorageError(
                f"{STATE} of {location.uri} is damaged; restore it, or delete it to begin the upgrade again"
            ) from error
        if state.phase not in get_args(Phase):
            raise StorageError(
                f"{STATE} of {location.uri} has the unknown step {state.phase!r}; update nearsight"
            )
        # The manifest is what changes the collection; a crash may have come before the state was written.
        if manifest.CollectionManifest.read(location).store == state.store:
            return replace(state, phase="switched")
        return replace(state, phase="ready") if state.phase == "switched" else state
