"""Checks of arguments that are numbers."""

from numbers import Integral, Real

from nearsight.errors import InvalidParameterError


def require_whole(name: str, value: object, *, least: int = 1, optional: bool = False) -> None:
    """Check that an argument is a whole number of at least `least`, or if it is optional, None.

    Raises
    ------
    InvalidParameterError
        It is not; the message names the argument, its value, and one that will do.
    """
    if optional and value is None:
        return
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InvalidParameterError(
            f"{name} is {value!r}; it must be a whole number of at least {least},"
            f" such as {name}={max(int(_number(value)), least)}"
        )
    if int(value) < least:
        raise InvalidParameterError(f"{name} is {value}; it must be at least {least}")


def require_number(name: str, value: object) -> None:
    """Check that an argument is a number; its range is for the caller to check.

    Raises
    ------
    InvalidParameterError
        It is not; the message names the argument, its value, and how a number is written.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InvalidParameterError(
            f"{name} is {value!r}; it must be a number, such as {name}={_number(value):g}"
        )


def _number(value: object) -> float:
    """Return the number that somebody may have meant."""
    try:
        number = float(str(value))
    except ValueError:
        return 0.5
    return number if abs(number) < 1e9 else 0.5
