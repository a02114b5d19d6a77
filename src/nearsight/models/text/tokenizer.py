"""Turns texts into tokens; the only module that imports `tokenizers`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearsight.errors import MissingExtraError, WeightsError


class Tokenizer:
    """A tokenizer of Hugging Face's library.

    Parameters
    ----------
    data : bytes
        Content of ``tokenizer.json``.
    max_tokens : int
        Longer texts are truncated; the end token is kept.
    pad : str, optional
        The padding token; by default that of the file, else the one with id 0.
    to_full_length : bool, default False
        Whether each text is padded to `max_tokens`, instead of to the longest text of its batch.

    Raises
    ------
    MissingExtraError
        `tokenizers` is not installed.
    WeightsError
        The file is damaged.
    """

    def __init__(
        self, data: bytes, *, max_tokens: int, pad: str | None = None, pad_to_max: bool = False
    ) -> None:
        try:
            import tokenizers
        except ImportError as error:
            raise MissingExtraError(
                "Search by text needs tokenizers. Run: pip install 'nearsight[text]'"
            ) from error
        try:
            self._tokenizer: Any = tokenizers.Tokenizer.from_str(data.decode())
        # It raises plain Exception.
        except Exception as error:
            raise WeightsError(f"tokenizer.json cannot be read ({error}); download it again") from error
        self._tokenizer.enable_truncation(max_tokens)
        default_id = (self._tokenizer.padding or {}).get("pad_id", 0)
        pad_id = self._tokenizer.token_to_id(pad) if pad is not None else None
        self._tokenizer.enable_padding(
            pad_id=default_id if pad_id is None else pad_id, length=max_tokens if pad_to_max else None
        )

    def encode(self, texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return ids and mask, both (n, t) int64; the mask is 0 for padding."""
        encodings = self._tokenizer.encode_batch(list(texts))
        ids = np.array([e.ids for e in encodings], np.int64)
        mask = np.array([e.attention_mask for e in encodings], np.int64)
        return ids, mask
