"""Taking the second factor of somebody who lost it away, whoever it is."""

from collections.abc import Awaitable, Callable
from typing import TypeAlias
from uuid import UUID

from app.cli.output import one_line
from app.cli.services import OPERATOR, SHELL, Services, with_services

# Tenant, kind and id of the person.
Owner: TypeAlias = tuple[UUID, str, UUID]


def reset_factors_of(name: str, find: Callable[[Services], Awaitable[Owner]]) -> None:
    """Takes it away, and says so of `name`. Raises what `find` does."""

    async def work(services: Services) -> bool:
        return await services.factors.reset(*await find(services), actor=OPERATOR, client=SHELL)

    if with_services(work):
        said = "has no second factor any more. Where one is required, the next sign-in sets a new one up."
    else:
        said = "had no second factor."
    print(one_line(f"{name} {said}"))
