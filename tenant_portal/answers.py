"""The answer to whoever asked for a code: what every route says that sends one."""

from typing import Annotated, Final, TypeAlias

from litestar import Response
from litestar.params import PathParameter

from app.auth.asking import Issued, Realm
from app.auth.standing import Status
from app.errors import DeliveryFailed
from app.web import limits
from app.web.caller import Caller
from app.web.services import AnyRequest, services
from app.web.texts import DEFAULT_LANGUAGE, code_sent
from tenant_portal.payloads import CodeSent

Slug: TypeAlias = Annotated[str, PathParameter(description="The tenant's slug.")]

_OK: Final = 200
_ACCEPTED: Final = 202
_POLL_SECONDS: Final = 0.1


async def answer(request: AnyRequest, realm: Realm, issued: Issued, caller: Caller) -> Response[CodeSent]:
    """202, or the outcome of the delivery for whoever may and wants to wait for it. Raises `DeliveryFailed`."""
    language = caller.language or DEFAULT_LANGUAGE
    headers = limits.policy_header(services(request).settings) | {"Content-Language": language}
    sent = CodeSent(issued.challenge_id, code_sent(language), issued.code_length, issued.expires_in, issued.resend_in)
    if not caller.wait:
        return Response(sent, status_code=_ACCEPTED, headers=headers)
    status = await _outcome(request, realm, issued, caller.wait)
    if status.state == "failed":
        raise DeliveryFailed(status.error)
    known = status.state != "queued"
    return Response(
        CodeSent(*_members(sent), status.state),
        status_code=_OK if known else _ACCEPTED,
        headers=headers | {"Preference-Applied": f"wait={caller.wait}"},
    )


def _members(sent: CodeSent) -> tuple[str, str, int, int, int]:
    return sent.challenge_id, sent.message, sent.code_length, sent.expires_in, sent.resend_in


async def _outcome(request: AnyRequest, realm: Realm, issued: Issued, wait: int) -> Status:
    """The state of the delivery, as soon as there is one, or after `wait` seconds."""
    core = services(request)
    for _ in range(round(wait / _POLL_SECONDS)):
        status = await core.challenges.status(realm, issued.challenge_id, disclose=True)
        if status.state != "queued":
            return status
        await core.sleep(_POLL_SECONDS)
    return await core.challenges.status(realm, issued.challenge_id, disclose=True)
