"""Cuts texts into the tokens a text tower takes; the only module that knows `tokenizers`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearsight.errors import MissingExtraError, WeightsError


class Tokenizer:
    """A tokenizer in the file that Hugging Face's library writes.

    Parameters
    ----------
    data : bytes
        The content of ``tokenizer.json``.
    max_tokens : int
        Longer texts are cut, their end mark kept.
    pad : str, optional
        The token that fills shorter texts up; by default what the file says, else the one numbered 0.
    to_full_length : bool, default False
        Whether every text is filled up to `max_tokens`, rather than to the longest of its batch.

    Raises
    ------
    MissingExtraError
        `tokenizers` is not installed.
    WeightsError
        The file is damaged.
    """

    def __init__(
        self, data: bytes, *, max_tokens: int, pad: str | None = None, to_full_length: bool = False
    ) -> None:
        try:
            import tokenizers
        except ImportError as error:
            raise MissingExtraError(
                "Searching with words needs tokenizers. Run: pip install 'nearsight[text]'"
            ) from error
        try:
            self._tokenizer: Any = tokenizers.Tokenizer.from_str(data.decode())
        # It raises bare exceptions.
        except Exception as error:
            raise WeightsError(f"tokenizer.json cannot be read ({error}); fetch it again") from error
        self._tokenizer.enable_truncation(max_tokens)
        told = (self._tokenizer.padding or {}).get("pad_id", 0)
        found = self._tokenizer.token_to_id(pad) if pad is not None else None
        self._tokenizer.enable_padding(
            pad_id=told if found is None else found, length=max_tokens if to_full_length else None
        )

    def encode(self, texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return ids and mask, both (n, t) int64; the mask is 0 where there is only padding."""
        found = self._tokenizer.encode_batch(list(texts))
        ids = np.array([e.ids for e in found], np.int64)
        mask = np.array([e.attention_mask for e in found], np.int64)
        return ids, mask
