"""Numbers and addresses on the command line: each says what it must be, in words."""

from __future__ import annotations

import argparse
import math

from paretoserve.domain.address import Address


def positive(text: str) -> float:
    """A finite number above 0. Raises ArgumentTypeError."""
    return _number(text, least=0.0, inclusive=False)


def not_negative(text: str) -> float:
    """A finite number of 0 or more. Raises ArgumentTypeError."""
    return _number(text, least=0.0, inclusive=True)


def listening(text: str) -> str:
    """HOST:PORT to listen on, port 0 for any. Raises ArgumentTypeError."""
    return _address(text, 0)


def serving(text: str) -> str:
    """HOST:PORT of what listens. Raises ArgumentTypeError."""
    return _address(text, 1)


def count(text: str) -> int:
    """A whole number of 1 or more. Raises ArgumentTypeError."""
    return _whole(text, 1)


def several(text: str) -> int:
    """A whole number of 2 or more. Raises ArgumentTypeError."""
    return _whole(text, 2)


def _address(text: str, lowest: int) -> str:
    try:
        return str(Address.parse(text, lowest=lowest))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None


def _number(text: str, *, least: float, inclusive: bool) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < least or (value == least and not inclusive):
        bound = "0 or more" if inclusive else "above 0"
        raise argparse.ArgumentTypeError(f"{text!r} is not a number {bound}")
    return value


def _whole(text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of {least} or more")
    return int(text)
