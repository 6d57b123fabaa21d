"""What an error of PostgreSQL means: come back later, or a mistake of ours. Pure.

Everything that isn't plainly a mistake in our own statements or data is `Unavailable` to the caller: the disk is full,
a right was taken away, a standby took over, a deadlock was broken, a process of another release has migrated. Whoever
asked can do nothing about it but ask again (docs/decisions/0019).
"""

import re
from typing import Final

import asyncpg
from asyncpg.exceptions import ClientConfigurationError, InternalClientError

# Classes of SQLSTATE in which it is our statement, or what we put into it, that is wrong.
_OUR_MISTAKES: Final = frozenset(
    {"0A", "0B", "0L", "0P", "20", "21", "22", "23", "24", "2F", "38", "39", "42", "44", "P0"}
)
# Within those classes: a right that is lacking, and a schema or a plan of another release than ours.
_YET_OUTAGES: Final = frozenset({"42501", "42P01", "42703", "42704", "42883"})
# PostgreSQL ended the transaction for the sake of another one, or its plan is of yesterday's schema: the same again
# may well succeed.
_CONFLICTS: Final = frozenset({"40001", "40P01", "0A000"})
# The server has no room, can't read or write its files, or is broken: whatever is asked next will meet it, too.
_LASTING: Final = frozenset({"53", "58", "F0", "XX"})
_ASSURED: Final = frozenset({"53300"})  # too many connections: a process that has one is fine
_READ_ONLY: Final = "25006"
_CLASS_LENGTH: Final = 2
_CONNECTION_TROUBLE: Final = frozenset({"08", "25", "26", "34", "57"})


def sqlstate(error: BaseException | None) -> str | None:
    """The SQLSTATE of an error that PostgreSQL sent, also below `Unavailable`."""
    for found in (error, getattr(error, "__cause__", None)):
        if isinstance(found, asyncpg.PostgresError):
            return str(found.sqlstate)
    return None


def is_outage(error: BaseException) -> bool:
    """Whether the caller should come back later."""
    if isinstance(error, asyncpg.PostgresError):
        state = str(error.sqlstate)
        return state[:_CLASS_LENGTH] not in _OUR_MISTAKES or state in _YET_OUTAGES or state in _CONFLICTS
    if _is_bad_argument(error):
        return False
    return isinstance(error, OSError | TimeoutError | asyncpg.InterfaceError | InternalClientError)


def is_conflict(error: BaseException) -> bool:
    """Whether it was ended for the sake of another transaction, so that once more is worth a try."""
    return sqlstate(error) in _CONFLICTS


def ends_connection(error: BaseException) -> bool:
    """Whether the connection had better not be used again."""
    if isinstance(error, asyncpg.PostgresError):
        return str(error.sqlstate)[:_CLASS_LENGTH] in _CONNECTION_TROUBLE and error.sqlstate != "57014"
    return isinstance(error, asyncpg.InterfaceError | InternalClientError) and not _is_bad_argument(error)


def _is_bad_argument(error: BaseException) -> bool:
    """A refusal by asyncpg itself of a value that doesn't fit its parameter; nothing was sent."""
    return (
        isinstance(error, asyncpg.InterfaceError)
        and isinstance(error, ValueError)
        and not isinstance(error, ClientConfigurationError)
    )


def ends_all_connections(error: BaseException) -> bool:
    """Whether the others lead to the same wrong place: a server that became a standby, or is going."""
    state = sqlstate(error) or ""
    return state == _READ_ONLY or (state.startswith("57P") and state != "57P05")


def lasts(error: BaseException) -> bool:
    """Whether the next statement, whichever it is, will very likely meet it too: readiness has to know."""
    state = sqlstate(error)
    return state is not None and state[:_CLASS_LENGTH] in _LASTING and state not in _ASSURED


def name(error: BaseException) -> str:
    """Which error it is, in words and by its SQLSTATE: `disk full (53100)`."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__.removesuffix("Error")).lower()
    state = sqlstate(error)
    return f"{words} ({state})" if state else words


def told(error: BaseException) -> str:
    """What the server or the system said, without DETAIL, HINT and statement: those quote rows."""
    said = error.message if isinstance(error, asyncpg.PostgresError) else str(error)
    return " ".join(str(said or "").split())[:200]
