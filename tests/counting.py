"""A function that tells how often it was called."""

from collections.abc import Callable
from typing import Any


def counting(function: Callable[..., Any], calls: list[Any]) -> Callable[..., Any]:
    """The same function; each call adds its arguments to `calls`."""

    def counted(*args: Any) -> Any:
        calls.append(args)
        return function(*args)

    return counted
