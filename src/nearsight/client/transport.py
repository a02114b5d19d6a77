"""The HTTP library, imported in one place."""

from typing import Any

from nearsight.errors import MissingExtraError


def library() -> Any:
    """Return the module `httpx2`.

    Raises
    ------
    MissingExtraError
        It is not installed; the message holds the command.
    """
    try:
        import httpx2
    except ImportError as error:
        raise MissingExtraError("this needs httpx2: pip install 'nearsight[serve]'") from error
    return httpx2
