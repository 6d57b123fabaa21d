"""Everything Gatehouse refuses, as one tree.

    GatehouseError
    ├── ConfigurationError        the settings are wrong: every fault, by name
    ├── InvalidRequest            what was sent is malformed; points at the field
    ├── InvalidCode               wrong code, some attempts left
    ├── TooManyAttempts           the challenge ended on wrong codes
    ├── CodeExpired               expired, used, void, unknown or foreign challenge
    ├── InvalidCredentials        wrong password, or nobody there
    ├── InvalidToken              access, refresh or API token not accepted
    ├── Forbidden                 known caller, not allowed
    ├── StalePage                 a form of a page that counts no more
    ├── RateLimited               a limit; says when to come back
    ├── TenantNotFound            these four are told to disclosed callers only;
    ├── TenantSuspended           everyone else gets a decoy
    ├── ContactMissing            nowhere to send a code
    ├── ChannelUnavailable        no provider, or no contact, for this channel
    ├── DeliveryFailed            the provider refused, told to disclosed callers
    ├── NotFound                  no such thing (admin side)
    ├── AlreadyExists             the name is taken
    ├── KeyReused                 an Idempotency-Key that belongs to another request
    ├── KeyInUse                  an Idempotency-Key whose first request is under way
    ├── ShownOnce                 done already, and the secret in its answer is not shown again
    ├── EditConflict              somebody else saved first
    ├── PayloadTooLarge           the body is over the limit
    └── Unavailable               a store that is needed is down; says when to come back

The core raises these; `app.web.problems` alone turns them into HTTP. `code` is stable and public.
`detail` is a sentence fit to show to whoever must act.
"""

from dataclasses import dataclass
from typing import ClassVar


class GatehouseError(Exception):
    """Base of all refusals. `extra` holds public members of the problem document."""

    code: ClassVar[str] = "error"
    default_detail: ClassVar[str] = "Something went wrong."

    def __init__(self, detail: str | None = None, **extra: object) -> None:
        self.detail = detail or self.default_detail
        self.extra = extra
        super().__init__(self.detail)


class ConfigurationError(GatehouseError):
    """The settings don't add up. `faults` has one sentence for each, the setting's name first."""

    code = "configuration"

    def __init__(self, faults: list[str]) -> None:
        self.faults = faults
        super().__init__("The configuration has errors:\n" + "\n".join(f"  - {fault}" for fault in faults))


@dataclass(frozen=True, slots=True)
class FieldError:
    """One fault in the input. `pointer` is a JSON Pointer (RFC 6901) such as `/code`."""

    pointer: str
    detail: str


class InvalidRequest(GatehouseError):
    """Malformed input; nothing was changed and no attempt was spent."""

    code = "invalid-request"
    default_detail = "The request is malformed."

    def __init__(self, *errors: FieldError, detail: str | None = None) -> None:
        self.errors = errors
        super().__init__(detail or (errors[0].detail if errors else None))


class InvalidCode(GatehouseError):
    """Wrong code. `attempts_left` is at least 1; a `detail` of its own says what was wrong with it."""

    code = "invalid-code"
    default_detail = "Wrong code"

    def __init__(self, attempts_left: int, detail: str | None = None) -> None:
        self.attempts_left = attempts_left
        super().__init__(detail, attempts_left=attempts_left)


class TooManyAttempts(GatehouseError):
    """The last wrong code itself, and anything after it until the challenge expires."""

    code = "too-many-attempts"
    default_detail = "Too many attempts"

    def __init__(self, retry_after: int) -> None:
        self.retry_after = retry_after
        super().__init__(None, attempts_left=0)


class CodeExpired(GatehouseError):
    """Expired, used, void, unknown or another tenant's challenge: deliberately one answer."""

    code = "code-expired"
    default_detail = "The code has expired"


class InvalidCredentials(GatehouseError):
    """Wrong password, or no such member: deliberately one answer."""

    code = "invalid-credentials"
    default_detail = "Wrong sign-in details"


class InvalidToken(GatehouseError):
    """A token is missing, malformed, expired, revoked or reused."""

    code = "invalid-token"
    default_detail = "The token is not valid. Sign in again."


class Forbidden(GatehouseError):
    """The caller is known and may not do this."""

    code = "forbidden"
    default_detail = "You may not do this."


class StalePage(GatehouseError):
    """A form of a page that this browser got under another cookie, or long ago. With `ours` it surely was our page.

    Nothing was changed.
    """

    code = "stale-page"
    default_detail = (
        "This page was used already, or had been open for too long. Load it again: if what you did isn't there, "
        "repeat it."
    )

    def __init__(self, *, ours: bool = False) -> None:
        self.ours = ours
        super().__init__()


class RateLimited(GatehouseError):
    """A limit was hit. `retry_after` is in whole seconds, at least 1."""

    code = "rate-limited"
    default_detail = "Too many codes were asked for."

    def __init__(self, retry_after: int, *, policy: str = "hourly", detail: str | None = None) -> None:
        self.retry_after = max(1, retry_after)
        self.policy = policy
        super().__init__(detail)


class TenantNotFound(GatehouseError):
    """No tenant has this slug."""

    code = "tenant-not-found"
    default_detail = "No organisation has this address."


class TenantSuspended(GatehouseError):
    """The tenant may not sign in at present."""

    code = "tenant-suspended"
    default_detail = "This organisation is suspended."


class ContactMissing(GatehouseError):
    """There is nowhere to send a code."""

    code = "contact-missing"
    default_detail = "Tenant contact information missing"


class ChannelUnavailable(GatehouseError):
    """The channel asked for has no contact or no provider that is switched on."""

    code = "channel-unavailable"
    default_detail = "This way of delivery is not available."


class DeliveryFailed(GatehouseError):
    """The provider did not take the message. The detail may carry its reason."""

    code = "delivery-failed"
    default_detail = "Failed to deliver the code"


class NotFound(GatehouseError):
    """There is no such thing, or not for this caller."""

    code = "not-found"
    default_detail = "There is nothing here."


class AlreadyExists(GatehouseError):
    """The name is taken."""

    code = "already-exists"
    default_detail = "This already exists."


class KeyReused(GatehouseError):
    """The Idempotency-Key was used for another request. Nothing was done."""

    code = "idempotency-key-reused"
    default_detail = "This Idempotency-Key was used for another request. Take a new one."


class KeyInUse(GatehouseError):
    """The first request with this Idempotency-Key is still under way."""

    code = "idempotency-key-in-use"
    default_detail = "The first request with this Idempotency-Key is still under way. Ask again in a moment."


class ShownOnce(GatehouseError):
    """The call with this Idempotency-Key was done, and its answer had a secret that is kept nowhere.

    `location` is what it made, where that has an address.
    """

    code = "secret-shown-once"
    default_detail = (
        "This was done when you asked the first time, and its answer had a secret that is shown once. "
        "If you lost it, revoke what was made and make another one with a new Idempotency-Key."
    )

    def __init__(self, location: str | None = None) -> None:
        super().__init__(None, **({"location": location} if location else {}))


class EditConflict(GatehouseError):
    """The thing changed since it was read. `current_version` is the one to read again."""

    code = "edit-conflict"
    default_detail = "Somebody else saved a change first. Look at it and decide again."

    def __init__(self, current_version: int) -> None:
        self.current_version = current_version
        super().__init__(None, current_version=current_version)


class PayloadTooLarge(GatehouseError):
    """The body is larger than this route takes."""

    code = "payload-too-large"
    default_detail = "The request body is too large."


class Unavailable(GatehouseError):
    """A store that is needed is down. Nothing was half done."""

    code = "unavailable"
    default_detail = "The service is briefly unavailable. Try again in a moment."

    def __init__(self, retry_after: int = 2, *, reason: str | None = None) -> None:
        self.retry_after = retry_after
        # Why, where it is worth counting; never told.
        self.reason = reason
        super().__init__()
