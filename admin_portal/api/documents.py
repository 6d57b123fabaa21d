"""What the API reference says beyond what handlers' types tell."""

from dataclasses import dataclass
from typing import ClassVar, Final

from litestar.openapi.spec import (
    OpenAPIMediaType,
    OpenAPIResponse,
    OpenAPIType,
    Operation,
    Parameter,
    Reference,
    RequestBody,
    Schema,
)

from app.errors import GatehouseError, KeyInUse, KeyReused, ShownOnce
from app.web.docs import also

_KEY: Final = Parameter(
    name="Idempotency-Key",
    param_in="header",
    description=(
        "Any text of your own. Sent again within a day, the same call gets the first answer and nothing is done twice; "
        "another call with it is refused: 422 `idempotency-key-reused`. While the first is under way: 409 "
        "`idempotency-key-in-use`."
    ),
    schema=Schema(type=OpenAPIType.STRING, max_length=255),
)


@dataclass
class Once(Operation):
    """A POST: it may carry an Idempotency-Key."""

    REFUSALS: ClassVar[tuple[type[GatehouseError], ...]] = (KeyInUse, KeyReused)

    def __post_init__(self) -> None:
        self.parameters = [*(self.parameters or []), _KEY]
        self.responses = also(self.responses or {}, *self.REFUSALS)


@dataclass
class OnceShown(Once):
    """A POST whose answer shows a secret, this once: it is not kept, so no repetition shows it again."""

    REFUSALS: ClassVar[tuple[type[GatehouseError], ...]] = (KeyInUse, KeyReused, ShownOnce)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.description = (
            f"{self.description}\n\nThe secret is in the first answer alone. The same call again with its "
            "Idempotency-Key is 409 `secret-shown-once`: nothing is made twice, and `location` leads to what was made, "
            "if it has an address. Who lost the answer revokes that and makes another one with a new key."
        )


@dataclass
class Upload(Once):
    """A POST of a file of tenants."""

    MEDIA: ClassVar[tuple[str, ...]] = ("text/csv", "application/jsonl")

    def __post_init__(self) -> None:
        super().__post_init__()
        content = OpenAPIMediaType(schema=Schema(type=OpenAPIType.STRING))
        self.request_body = RequestBody(dict.fromkeys(self.MEDIA, content), required=True)


@dataclass
class CsvUpload(Upload):
    """A POST of a file of members."""

    MEDIA: ClassVar[tuple[str, ...]] = ("text/csv",)


@dataclass
class Download(Operation):
    """A GET that can also be answered with a file."""

    MEDIA: ClassVar[tuple[str, ...]] = ("text/csv", "application/jsonl")

    def __post_init__(self) -> None:
        answer = (self.responses or {}).get("200")
        if isinstance(answer, OpenAPIResponse):
            text = OpenAPIMediaType(schema=Schema(type=OpenAPIType.STRING))
            page = {
                media: content
                for media, content in (answer.content or {}).items()
                if isinstance(content.schema, Reference)
            }
            answer.content = page | dict.fromkeys(self.MEDIA, text)


@dataclass
class CsvDownload(Download):
    """A GET of a CSV."""

    MEDIA: ClassVar[tuple[str, ...]] = ("text/csv",)
