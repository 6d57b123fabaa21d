"""What pages of both portals say: a refusal at the form that it refuses, a wait, and what the step before did."""

from collections.abc import Mapping
from typing import Final

from app.errors import GatehouseError, InvalidCode, InvalidRequest, RateLimited
from app.web.services import AnyRequest
from app.web.texts import in_words

# Where no field is to blame.
FORM: Final = "form"


def errors_of(refusal: GatehouseError, field: str = "code") -> dict[str, str]:
    """A refusal as sentences by field; `field` is the one that a code was typed into."""
    match refusal:
        case InvalidRequest(errors=errors) if errors:
            # A field says one thing at a time, the first; and the first field takes the focus.
            said: dict[str, str] = {}
            for error in errors:
                said.setdefault(error.pointer.split("/")[1] if error.pointer else FORM, error.detail)
            return said
        case InvalidCode(attempts_left=left, detail=detail):
            tries = f"{left} attempt{'' if left == 1 else 's'} left"
            more = f" {tries}." if detail.endswith(".") else f" – {tries}"  # noqa: RUF001 - a dash
            return {field: detail + more}
        case RateLimited(detail=detail, retry_after=retry_after):
            return {FORM: f"{detail} You can ask again in {in_words(retry_after)}."}
        case _:
            return {FORM: refusal.detail}


def notice(request: AnyRequest, sentences: Mapping[str, str]) -> dict[str, str] | None:
    """What a page says about the step that led to it (`?done=`); None for anything that isn't among the `sentences`."""
    text = sentences.get(request.query_params.get("done", "")) if request.method == "GET" else None
    return {"kind": "done", "text": text} if text else None
