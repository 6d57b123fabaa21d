"""What each answer of each vendor means: taken, refused for good, worth another try, or unknown.

Each pair of channel and provider that the code knows has a row in `VENDORS`; SMTP's answers are in
`tests/contracts/test_smtp`, but for the nonsense.
"""

import pkgutil
import re
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest

from app.delivery import providers
from app.delivery.message import UNANSWERED, DeliveryError, PermanentFailure, Provider, TransientFailure
from app.delivery.providers.rest import Rest
from app.errors import ConfigurationError
from tests.contracts import test_smtp
from tests.contracts.wire.recorder import SILENCE, Recorder, Reply
from tests.contracts.wire.vendors import MESSAGE, installation, provider
from tests.mailserver import mail_server


def twilio(status: int, code: int, message: str) -> Reply:
    return Reply(status, {"code": code, "message": message, "more_info": "https://…", "status": status})


def vonage(status: str, text: str) -> Reply:
    return Reply(200, {"message-count": "1", "messages": [{"status": status, "error-text": text}]})


def sns(status: int, code: str, message: str) -> Reply:
    error = f"<Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>"
    return Reply(
        status, f"<ErrorResponse>{error}<RequestId>1</RequestId></ErrorResponse>", {"Content-Type": "text/xml"}
    )


def msg91(status: int, **body: Any) -> Reply:
    return Reply(status, {"type": "error", **body})


def gupshup(code: str, details: str) -> Reply:
    return Reply(200, {"response": {"id": code, "phone": "", "details": details, "status": "error"}})


def meta(status: int, code: int, message: str, details: str | None = None) -> Reply:
    error: dict[str, Any] = {"message": message, "type": "OAuthException", "code": code, "fbtrace_id": "A1"}
    return Reply(status, {"error": error | ({"error_data": {"details": details}} if details else {})})


@dataclass(frozen=True)
class Vendor:
    """One provider on one channel, and what its vendor says on which occasion."""

    channel: str
    name: str
    taken: Reply
    receipt: str
    permanent: tuple[tuple[Reply, str], ...]
    transient: tuple[tuple[Reply, str], ...]
    credentials: tuple[Reply, ...]

    def __str__(self) -> str:
        return f"{self.channel}-{self.name}"


TWILIO: dict[str, Any] = {
    "name": "twilio",
    "taken": Reply(201, {"sid": "SM0123", "status": "queued", "error_code": None}),
    "receipt": "SM0123",
    "transient": (
        (twilio(429, 20429, "Too Many Requests"), "throttled"),
        (twilio(429, 21611, "This 'From' number has exceeded the maximum number of queued messages"), "throttled"),
        (twilio(500, 20500, "Internal Server Error"), "unavailable"),
        (Reply(502, "<html>Bad Gateway</html>"), "unavailable"),
    ),
    "credentials": (twilio(401, 20003, "Authenticate"), Reply(401, ""), twilio(404, 20404, "No such account")),
}
GUPSHUP: dict[str, Any] = {
    "name": "gupshup",
    "taken": Reply(200, {"response": {"id": "35617-287", "phone": "447700900123", "details": "", "status": "success"}}),
    "receipt": "35617-287",
    "transient": (
        (gupshup("100", "Unknown error has occured"), "unavailable"),
        (gupshup("4001", "API Rate Limited"), "throttled"),
        (Reply(503, "busy"), "unavailable"),
        (Reply(429, ""), "throttled"),
    ),
    "credentials": (gupshup("102", "Authentication failed due to invalid userId or password."), Reply(401, "")),
}
VENDORS = (
    Vendor(
        channel="sms",
        permanent=(
            (twilio(400, 21211, "The 'To' number +447700900123 is not a valid phone number."), "recipient"),
            (twilio(400, 21614, "'To' number is not a valid mobile number"), "recipient"),
            (twilio(400, 21610, "Attempt to send to unsubscribed recipient"), "opted-out"),
            (twilio(400, 21408, "Permission to send an SMS has not been enabled for the region"), "unroutable"),
            (twilio(400, 21606, "The 'From' phone number provided is not a valid number"), "sender"),
            (twilio(400, 99999, "Something new"), "refused"),
        ),
        **TWILIO,
    ),
    Vendor(
        channel="whatsapp",
        permanent=(
            (twilio(400, 63003, "Channel could not find To address"), "recipient"),
            (twilio(400, 63016, "Failed to send freeform message outside the allowed window"), "template"),
            (twilio(400, 63007, "Twilio could not find a Channel with the specified From address"), "sender"),
        ),
        **TWILIO,
    ),
    Vendor(
        channel="sms",
        name="vonage",
        taken=Reply(200, {"message-count": "1", "messages": [{"status": "0", "message-id": "0C000000217B7F02"}]}),
        receipt="0C000000217B7F02",
        permanent=(
            (vonage("6", "Un-recognised number prefix 447700900123"), "recipient"),
            (vonage("7", "Number barred"), "opted-out"),
            (vonage("9", "Partner quota violation"), "account"),
            (vonage("15", "Invalid sender address"), "sender"),
            (vonage("77", "Something new"), "refused"),
        ),
        transient=(
            (vonage("1", "Throughput Rate Exceeded - please wait [ 250 ] and retry"), "throttled"),
            (vonage("5", "Internal Error"), "unavailable"),
            (Reply(429, {"title": "Too Many Requests"}), "throttled"),
            (Reply(503, ""), "unavailable"),
        ),
        credentials=(vonage("4", "Bad Credentials"), Reply(401, {"title": "Unauthorized"})),
    ),
    Vendor(
        channel="sms",
        name="sns",
        taken=Reply(
            200,
            "<PublishResponse xmlns='http://sns.amazonaws.com/doc/2010-03-31/'><PublishResult>"
            "<MessageId>94f20ce6-13c5-43a0-9a9e-ca52d816e90b</MessageId></PublishResult></PublishResponse>",
        ),
        receipt="94f20ce6-13c5-43a0-9a9e-ca52d816e90b",
        permanent=(
            (
                sns(400, "InvalidParameter", "Invalid parameter: PhoneNumber Reason: +447700900123 is not valid"),
                "recipient",
            ),
            (sns(400, "InvalidParameter", "Invalid parameter: Empty message"), "refused"),
            (sns(400, "OptedOut", "Opted out"), "opted-out"),
        ),
        transient=(
            (sns(400, "Throttling", "Rate exceeded"), "throttled"),
            (sns(429, "Throttled", "Rate exceeded"), "throttled"),
            (sns(500, "InternalError", "An internal error occurred"), "unavailable"),
            (Reply(503, "<html/>"), "unavailable"),
        ),
        credentials=(
            sns(403, "InvalidClientTokenId", "The security token included in the request is invalid."),
            sns(403, "SignatureDoesNotMatch", "The request signature we calculated does not match"),
            sns(403, "AuthorizationError", "User: gatehouse is not authorized to perform: SNS:Publish"),
            sns(400, "ExpiredToken", "The security token included in the request is expired"),
        ),
    ),
    Vendor(
        channel="sms",
        name="msg91",
        taken=Reply(200, {"message": "3763646c3058373530393938", "type": "success"}),
        receipt="3763646c3058373530393938",
        permanent=(
            (msg91(200, message="Invalid mobile number 447700900123", code="202"), "recipient"),
            (msg91(400, message="Mobile no447700900123 is invalid (otp123456)"), "recipient"),
            (msg91(400, message="Template ID is missing or invalid"), "template"),
            (msg91(200, message="Insufficient balance to send SMS", code="301"), "account"),
            (msg91(400, message="Something new"), "refused"),
        ),
        transient=(
            (msg91(200, message="Internal error. Please contact support for details", code="601"), "unavailable"),
            (Reply(500, ""), "unavailable"),
            (msg91(429, message="Too many requests"), "throttled"),
        ),
        credentials=(
            msg91(200, message="Invalid authkey", code="207"),
            Reply(401, {"status": "fail", "hasError": True, "errors": "Unauthorized", "code": "401"}),
            msg91(200, message="IP is not whitelisted", code="418"),
        ),
    ),
    Vendor(
        channel="sms",
        permanent=(
            (gupshup("105", "The phone number 447700900123 is not a valid phone number"), "recipient"),
            (gupshup("108", "Invalid mask"), "sender"),
            (gupshup("175", 'The "INTERNATIONAL_PHONE" service is disabled for you.'), "account"),
            (gupshup("999", "Something new"), "refused"),
        ),
        **GUPSHUP,
    ),
    Vendor(
        channel="whatsapp",
        permanent=(
            (gupshup("1002", "Number Does Not Exist On WhatsApp"), "recipient"),
            (gupshup("4003", "Message Sending failed as the template did not match."), "template"),
            (gupshup("1012", "Message Sending failed as the phone number is opted out."), "opted-out"),
        ),
        **GUPSHUP,
    ),
    Vendor(
        channel="whatsapp",
        name="meta",
        taken=Reply(
            200, {"messaging_product": "whatsapp", "messages": [{"id": "wamid.HBgL", "message_status": "accepted"}]}
        ),
        receipt="wamid.HBgL",
        permanent=(
            (meta(400, 131026, "(#131026) Message undeliverable", "+447700900123 is not on WhatsApp"), "recipient"),
            (meta(400, 132015, "(#132015) Template is paused"), "template"),
            (meta(404, 132001, "(#132001) Template name does not exist in the translation"), "template"),
            (meta(400, 131042, "(#131042) Business eligibility payment issue"), "account"),
            (meta(400, 100, "(#100) Invalid parameter"), "refused"),
            (meta(400, 999999, "Something new"), "refused"),
        ),
        transient=(
            (meta(429, 130429, "(#130429) Rate limit hit"), "throttled"),
            (meta(400, 131056, "(#131056) (Business Account, Consumer Account) pair rate limit hit"), "throttled"),
            (meta(500, 131000, "(#131000) Something went wrong"), "unavailable"),
            (Reply(503, "<html/>"), "unavailable"),
        ),
        credentials=(
            meta(401, 190, "Error validating access token: Session has expired"),
            meta(403, 10, "(#10) Application does not have permission for this action"),
            meta(400, 200, "(#200) Permissions error"),
        ),
    ),
)

every_vendor = pytest.mark.parametrize("vendor", VENDORS, ids=str)


def cases(*kinds: str) -> pytest.MarkDecorator:
    """Every (vendor, reply, error class) of those kinds."""
    found = [(vendor, *case) for vendor in VENDORS for kind in kinds for case in getattr(vendor, kind)]
    names = [f"{vendor}-{error_class}-{number}" for number, (vendor, _, error_class) in enumerate(found)]
    return pytest.mark.parametrize(("vendor", "reply", "error_class"), found, ids=names)


async def failure(vendor: Vendor, *replies: Reply, patience: float = 5) -> DeliveryError:
    """What sending to a vendor that answers so comes to."""
    with Recorder(*replies) as recorder:
        async with provider(installation(recorder.url), vendor.channel, vendor.name) as ours:
            impatient(ours, patience)
            with pytest.raises(DeliveryError) as raised:
                await ours.send(MESSAGE)
    return raised.value


def impatient(ours: Provider, timeout: float) -> None:
    http: Rest = vars(ours)["_http"]
    http._timeout, http._client.timeout = timeout, httpx.Timeout(timeout)


def pairs() -> set[tuple[str, str]]:
    """Channel and name of each provider that can be chosen; the console has no vendor."""
    found = set()
    for name in {module.name for module in pkgutil.iter_modules(providers.__path__)} - {"console"}:
        for channel in ("sms", "whatsapp"):
            settings = installation("https://api.example")
            choice: dict[str, Any] = {"sms_provider": (), "whatsapp_provider": (), f"{channel}_provider": (name,)}
            try:
                providers.providers_for(replace(settings, **choice))
            except ConfigurationError as error:
                # Any other fault of the settings is a provider that has no account in `vendors` yet.
                if "there is no such provider" not in str(error):
                    raise
            else:
                found.add((channel, name))
    return found


# The tests of SMTP's answers, by what a vendor's are called.
SMTP = {
    "taken": "a_mail_arrives_as_it_was_written",
    "refused_for_good": "each_refusal_has_its_meaning",
    "refused_for_now": "each_refusal_has_its_meaning",
    "wrong_credentials": "wrong_credentials_say_so",
    "silence": "silence_ends_at_the_timeout",
}


def test_every_provider_has_all_six_tests() -> None:
    """Taken, refused for good, refused for now, wrong credentials, silence, nonsense: whoever adds one adds these."""
    assert {(vendor.channel, vendor.name) for vendor in VENDORS} == pairs()
    for vendor in VENDORS:
        assert all((vendor.taken.body, vendor.receipt, vendor.permanent, vendor.transient, vendor.credentials))
    # Silence and nonsense are the same for all of them, and asked of all of them.
    for test in (test_silence, test_an_answer_nobody_understands):
        assert any(mark.args[1] is VENDORS for mark in vars(test)["pytestmark"])
    assert {f"test_{name}" for name in SMTP.values()} <= vars(test_smtp).keys()


@pytest.mark.parametrize(("command", "error_class"), [("MAIL", "protocol"), ("RCPT", "protocol"), ("DATA", UNANSWERED)])
async def test_a_mail_server_nobody_understands(command: str, error_class: str) -> None:
    """No SMTP, whatever it is; after the text it may have meant "taken"."""
    async with mail_server() as server, test_smtp.sending(server) as smtp:
        server.answers[command].append("bananas")
        with pytest.raises(TransientFailure) as failure:
            await smtp.send(test_smtp.MESSAGE)
    assert failure.value.error_class == error_class


@every_vendor
async def test_taken(vendor: Vendor) -> None:
    """The receipt has the vendor's own name for the message: callbacks will use it."""
    with Recorder(vendor.taken) as recorder:
        async with provider(installation(recorder.url), vendor.channel, vendor.name) as ours:
            receipt = await ours.send(MESSAGE)
    assert receipt.provider_message_id == vendor.receipt
    assert len(recorder.requests) == 1


@cases("permanent")
async def test_refused_for_good(vendor: Vendor, reply: Reply, error_class: str) -> None:
    """Another try changes nothing, and the class says whose fault it is; the words name neither number nor code."""
    error = await failure(vendor, reply)
    assert isinstance(error, PermanentFailure)
    assert error.error_class == error_class
    assert not re.search("7700900123|123456", error.text)


@cases("transient")
async def test_refused_for_now(vendor: Vendor, reply: Reply, error_class: str) -> None:
    """Limits and the vendor's own troubles pass."""
    error = await failure(vendor, reply)
    assert isinstance(error, TransientFailure)
    assert error.error_class == error_class


@pytest.mark.parametrize(
    ("vendor", "reply"),
    [(vendor, reply) for vendor in VENDORS for reply in vendor.credentials],
    ids=[f"{vendor}-{number}" for vendor in VENDORS for number in range(len(vendor.credentials))],
)
async def test_wrong_credentials(vendor: Vendor, reply: Reply) -> None:
    """An operator must act: no retry, and a class of its own."""
    error = await failure(vendor, reply)
    assert isinstance(error, PermanentFailure)
    assert error.error_class == "credentials"


@every_vendor
async def test_silence(vendor: Vendor) -> None:
    """The request went out and nothing came back: the vendor may have taken it."""
    error = await failure(vendor, SILENCE, patience=0.05)
    assert isinstance(error, TransientFailure)
    assert error.error_class == UNANSWERED


@pytest.mark.parametrize("body", ["", "OK", "[]", '{"unexpected": []}', '{"messages": [], "response": 7, "sid": null}'])
@every_vendor
async def test_an_answer_nobody_understands(vendor: Vendor, body: str) -> None:
    """A good status with a strange body is no success, but the message may be on its way."""
    error = await failure(vendor, Reply(200, body))
    assert isinstance(error, TransientFailure)
    assert error.error_class == UNANSWERED


@pytest.mark.parametrize("code", [None, [], {}, "x", 1.5, -1])
@every_vendor
async def test_error_codes_of_any_shape(vendor: Vendor, code: object) -> None:
    """A refusal whose code is no code we know is a refusal all the same."""
    strange = {"code": code, "status": code, "error": {"code": code, "error_data": code}, "response": {"id": code}}
    error = await failure(vendor, Reply(400, strange))
    assert isinstance(error, PermanentFailure)


async def test_a_failed_part_fails_the_message() -> None:
    """A text of two segments that Vonage took one of did not arrive."""
    parts = [{"status": "0", "message-id": "V1"}, {"status": "1", "error-text": "Throttled"}]
    vendor = next(each for each in VENDORS if each.name == "vonage")
    error = await failure(vendor, Reply(200, {"message-count": "2", "messages": parts}))
    assert (error.permanent, error.error_class) == (False, "throttled")


async def test_msg91_knows_a_request_it_has_taken() -> None:
    """Its "same request within ten seconds" is the good news that the first try got through."""
    with Recorder(
        msg91(200, message="Request discarded because same request was generated twice", code="311")
    ) as recorder:
        async with provider(installation(recorder.url), "sms", "msg91") as ours:
            receipt = await ours.send(MESSAGE)
    assert receipt.provider_message_id == ""
