"""Providers' reports over HTTP: signed by the vendors' own code where it can be had, believed once, and only then."""

import asyncio
import base64
import hashlib
import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from moto.sns.models import Subscription, sns_backends
from pywa.utils import webhook_updates_validator
from twilio.request_validator import RequestValidator
from vonage_http_client.auth import Auth

from app.audit.log import Client
from app.auth.asking import Realm
from app.auth.challenges import Challenges
from app.auth.limits import AddressLimiter
from app.auth.sessions import Sessions
from app.delivery.callbacks import readers_for, reporting
from app.delivery.callbacks.posted import Posted, Report
from app.delivery.callbacks.sns import Sns
from app.delivery.callbacks.vonage import Vonage
from app.delivery.faults import Fault
from app.delivery.outbox import WAKE_CHANNEL, Outbox, Outcome
from app.errors import Forbidden, Unavailable
from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database
from app.storage.redis import Accelerator
from tests.conftest import Clock
from tests.http import Http, serve
from tests.people import add_tenant

CLIENT = Client("api", "203.0.113.9", "Firefox", "r")
PUBLIC_URL = "https://login.example"
TOPIC = "arn:aws:sns:eu-west-1:123456789012:sms-reports"
SECRETS = {
    "TWILIO_ACCOUNT_SID": "AC1",
    "TWILIO_AUTH_TOKEN": "twilio-auth-token",
    "TWILIO_FROM": "+15005550006",
    "VONAGE_API_KEY": "key",
    "VONAGE_API_SECRET": "secret",
    "VONAGE_FROM": "Acme",
    "VONAGE_SIGNATURE_SECRET": "vonage-signature-secret-of-32-bytes!",
    "META_APP_SECRET": "meta-app-secret",
    "META_VERIFY_TOKEN": "meta-verify-token",
    "MSG91_WEBHOOK_TOKEN": "msg91-token",
    "GUPSHUP_CALLBACK_TOKEN": "gupshup-token",
    "SNS_CALLBACK_TOPIC_ARN": TOPIC,
}


@dataclass(frozen=True, slots=True)
class Call:
    """A callback, ready to be posted."""

    provider: str
    body: bytes
    headers: Mapping[str, str]
    query: str = ""


def twilio(sid: str, status: str, **changes: str) -> Call:
    """As Twilio posts it, signed by Twilio's own validator."""
    fields = {"MessageSid": sid, "MessageStatus": status, "To": "+447700900123", "AccountSid": "AC1", **changes}
    signature = RequestValidator(SECRETS["TWILIO_AUTH_TOKEN"]).compute_signature(
        f"{PUBLIC_URL}/callbacks/twilio", fields
    )
    return Call(
        "twilio",
        urlencode(fields).encode(),
        {"Content-Type": "application/x-www-form-urlencoded", "X-Twilio-Signature": signature},
    )


def vonage(name: str, status: str, at: datetime, method: Any = "sha256", **changes: str) -> Call:
    """As Vonage posts it, signed by its SDK."""
    fields = {
        "messageId": name,
        "status": status,
        "msisdn": "447700900123",
        "to": "A&B=C",
        "err-code": "0",
        "timestamp": str(int(at.timestamp())),
        "nonce": "aaaa",
        **changes,
    }
    auth = Auth(api_key="key", signature_secret=SECRETS["VONAGE_SIGNATURE_SECRET"], signature_method=method)
    body = json.dumps({**fields, "sig": auth.sign_params(dict(fields))}).encode()
    return Call("vonage", body, {"Content-Type": "application/json"})


def vonage_jwt(name: str, status: str, at: datetime) -> Call:
    """The newer way: a JWT in the header with a hash of the body."""
    body = json.dumps({"messageId": name, "status": status}).encode()
    claims = {"iat": int(at.timestamp()), "payload_hash": hashlib.sha256(body).hexdigest(), "api_key": "key"}
    token = jwt.encode(claims, SECRETS["VONAGE_SIGNATURE_SECRET"], algorithm="HS256")
    return Call("vonage", body, {"Content-Type": "application/json", "Authorization": f"Bearer {token}"})


def meta(name: str, status: str, at: datetime, **changes: Any) -> Call:
    """A webhook with one status; pywa, a client not written here, says that its signature is right."""
    told = {"id": name, "status": status, "timestamp": str(int(at.timestamp())), "recipient_id": "447700900123"}
    value = {"messaging_product": "whatsapp", "statuses": [{**told, **changes}]}
    body = json.dumps({"object": "whatsapp_business_account", "entry": [{"changes": [{"value": value}]}]}).encode()
    signature = "sha256=" + hashlib_hmac(SECRETS["META_APP_SECRET"], body)
    assert webhook_updates_validator(SECRETS["META_APP_SECRET"], body, signature)
    return Call("meta", body, {"Content-Type": "application/json", "X-Hub-Signature-256": signature})


def hashlib_hmac(key: str, body: bytes) -> str:
    """HMAC-SHA-256 written out (RFC 2104), so that the check is not made with what is checked."""
    block = key.encode().ljust(64, b"\0")
    inner = hashlib.sha256(bytes(b ^ 0x36 for b in block) + body).digest()
    return hashlib.sha256(bytes(b ^ 0x5C for b in block) + inner).hexdigest()


def msg91(name: str, status: str, **changes: Any) -> Call:
    """Version 2: a form with a list in it."""
    data = [{"requestId": name, "report": [{"number": "447700900123", "status": status, **changes}]}]
    return Call(
        "msg91",
        urlencode({"data": json.dumps(data)}).encode(),
        {"Content-Type": "application/x-www-form-urlencoded"},
        "token=msg91-token",
    )


def gupshup(name: str, kind: str, cause: str = "SUCCESS") -> Call:
    event = {"externalId": name, "eventType": kind, "cause": cause, "destAddr": "447700900123", "channel": "SMS"}
    return Call(
        "gupshup",
        urlencode({"response": json.dumps([event])}).encode(),
        {
            "Content-Type": "application/x-www-form-urlencoded",
            "Authorization": "Basic " + base64.b64encode(b"gatehouse:gupshup-token").decode(),
        },
    )


def good(provider: str, at: datetime) -> Call:
    """A provider's word that the message `m-1` was delivered."""
    return {
        "twilio": lambda: twilio("m-1", "delivered"),
        "vonage": lambda: vonage("m-1", "delivered", at),
        "meta": lambda: meta("m-1", "delivered", at),
        "msg91": lambda: msg91("m-1", "1"),
        "gupshup": lambda: gupshup("m-1", "DELIVERED"),
    }[provider]()


VENDORS = ["twilio", "vonage", "meta", "msg91", "gupshup"]


class Portal:
    """The web application with every provider's secret, and messages that were sent."""

    def __init__(self, http: Http, db: Database, challenges: Challenges, clock: Clock, settings: Settings) -> None:
        self.http, self.db, self.challenges, self.clock = http, db, challenges, clock
        self.outbox = Outbox(db, "w", settings.providers)

    async def post(self, call: Call, **changes: Any) -> httpx.Response:
        options = {"content": call.body, "headers": dict(call.headers), **changes}
        path = f"/callbacks/{call.provider}" + (f"?{call.query}" if call.query else "")
        return await self.http.client.post(path, **options)

    async def sent(self, provider: str, name: str = "m-1") -> UUID:
        """A code that `provider` took under this id; answers the tenant."""
        tenant = await add_tenant(self.db, self.clock())
        await self.challenges.request(Realm.of(tenant.slug), CLIENT)
        claims = await self.outbox.claim(self.clock(), limit=64, lease=timedelta(seconds=15), max_tries=5)
        (claimed,) = [claimed for claimed in claims if claimed.tenant_id == tenant.id]
        outcome = Outcome(tenant.id, claimed.id, "sent", provider=provider, provider_message_id=name, reports=True)
        await self.outbox.settle(self.clock(), [outcome])
        return tenant.id

    async def story(self, tenant_id: UUID) -> list[tuple[str, str | None]]:
        async with self.db.every_tenant() as connection:
            rows = await connection.fetch(
                "SELECT state, error_class FROM delivery_events WHERE tenant_id = $1 ORDER BY id", tenant_id
            )
        return [tuple(row) for row in rows]


@pytest.fixture
async def portal(
    db: Database, ring: KeyRing, settings: Settings, sessions: Sessions, limiter: AddressLimiter, clock: Clock
) -> AsyncIterator[Portal]:
    async with db.every_tenant() as connection:
        await connection.execute("DELETE FROM outbox; DELETE FROM provider_reports; DELETE FROM contact_health")
    challenges = Challenges(db, ring, settings, sessions, limiter, clock, wake_worker=lambda: None)
    async with serve(settings, clock, public_url=PUBLIC_URL, credentials=MappingProxyType(SECRETS)) as http:
        yield Portal(http, db, challenges, clock, settings)


@pytest.mark.parametrize("provider", VENDORS)
async def test_delivered_is_written_once(portal: Portal, provider: str) -> None:
    """However often it is told: one step in the story."""
    tenant = await portal.sent(provider)
    for _ in range(2):
        answer = await portal.post(good(provider, portal.clock()))
        assert (answer.status_code, answer.content) == (204, b"")
    assert await portal.story(tenant) == [("sent", None), ("delivered", None)]


@pytest.mark.parametrize(
    ("call", "error_class"),
    [
        (lambda _: twilio("m-1", "undelivered", ErrorCode="30005"), "recipient"),
        (lambda _: twilio("m-1", "failed"), "refused"),
        (lambda now: vonage("m-1", "rejected", now, **{"err-code": "3"}), "recipient"),
        (lambda now: vonage("m-1", "rejected", now, **{"err-code": "9"}), "opted-out"),
        (lambda now: vonage_jwt("m-1", "failed", now), "refused"),
        (lambda now: meta("m-1", "failed", now, errors=[{"code": 131026, "title": "Undeliverable"}]), "recipient"),
        (lambda _: msg91("m-1", "9"), "opted-out"),
        (lambda _: gupshup("m-1", "FAILED", "UNKNOWN_SUBSCRIBER"), "recipient"),
    ],
)
async def test_failed_says_why(portal: Portal, call: Any, error_class: str) -> None:
    """In our own words for kinds of failures; only a number that doesn't exist marks the contact."""
    made = call(portal.clock())
    tenant = await portal.sent(made.provider)
    assert (await portal.post(made)).status_code == 204
    assert (await portal.story(tenant))[:2] == [("sent", None), ("failed", error_class)]
    async with portal.db.every_tenant() as connection:
        unhealthy = await connection.fetchval("SELECT error_class FROM contact_health WHERE tenant_id = $1", tenant)
    assert unhealthy == (error_class if error_class == "recipient" else None)


@pytest.mark.parametrize("provider", VENDORS)
async def test_states_on_the_way_change_nothing(portal: Portal, provider: str) -> None:
    """Queued, sent, buffered: we know that already."""
    tenant = await portal.sent(provider)
    at = portal.clock()
    call = {
        "twilio": lambda: twilio("m-1", "sent"),
        "vonage": lambda: vonage("m-1", "buffered", at),
        "meta": lambda: meta("m-1", "sent", at),
        "msg91": lambda: msg91("m-1", "8"),
        "gupshup": lambda: gupshup("m-1", "SENT"),
    }[provider]()
    assert (await portal.post(call)).status_code == 204
    assert await portal.story(tenant) == [("sent", None)]


@pytest.mark.parametrize("provider", VENDORS)
async def test_an_unknown_message_is_nobodys_business(portal: Portal, provider: str) -> None:
    """The provider could do nothing about it, so it isn't told."""
    assert (await portal.post(good(provider, portal.clock()))).status_code == 204


@pytest.mark.parametrize("provider", VENDORS)
async def test_a_provider_speaks_for_its_own_messages_only(portal: Portal, provider: str) -> None:
    """Another one's message of the same id stays as it was."""
    tenant = await portal.sent("somebody-else")
    assert (await portal.post(good(provider, portal.clock()))).status_code == 204
    assert await portal.story(tenant) == [("sent", None)]


def _unsigned(call: Call) -> Call:
    dropped = {"x-twilio-signature", "x-hub-signature-256", "authorization"}
    headers = {name: value for name, value in call.headers.items() if name.lower() not in dropped}
    body = call.body
    if call.provider == "vonage":
        body = json.dumps({name: value for name, value in json.loads(body).items() if name != "sig"}).encode()
    return replace(call, headers=headers, body=body, query="")


def _of_another_key(call: Call) -> Call:
    headers = {
        name: {"x-twilio-signature": "AAAA", "x-hub-signature-256": "sha256=" + "0" * 64}.get(name.lower(), value)
        for name, value in call.headers.items()
    }
    if call.provider == "vonage":
        return replace(call, body=json.dumps({**json.loads(call.body), "sig": "0" * 64}).encode())
    if call.provider == "gupshup":
        return replace(call, headers={**headers, "Authorization": "Bearer wrong"})
    return replace(call, headers=headers, query="token=wrong" if call.query else "")


def _altered(call: Call) -> Call:
    """The same signature over other words. Who signs nothing is left out."""
    return replace(call, body=call.body.replace(b"m-1", b"m-2"))


@pytest.mark.parametrize("provider", VENDORS)
@pytest.mark.parametrize("spoil", [_unsigned, _of_another_key, _altered])
async def test_what_is_not_signed_as_it_should_be_changes_nothing(portal: Portal, provider: str, spoil: Any) -> None:
    """403, and the message stays as it was."""
    if spoil is _altered and provider in {"msg91", "gupshup"}:
        return  # a token says who calls, not what was said
    tenants = [await portal.sent(provider, name) for name in ("m-1", "m-2")]
    answer = await portal.post(spoil(good(provider, portal.clock())))
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert [await portal.story(tenant) for tenant in tenants] == [[("sent", None)]] * 2


@pytest.mark.parametrize("provider", VENDORS)
@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"[]", b"null", b'{"a": 1}', b"{" * 2000])
async def test_junk_is_refused(portal: Portal, provider: str, body: bytes) -> None:
    """Whatever a stranger posts is a client error, never a fault of ours."""
    for content_type in ("application/json", "application/x-www-form-urlencoded"):
        answer = await portal.http.client.post(
            f"/callbacks/{provider}", content=body, headers={"Content-Type": content_type}
        )
        assert answer.status_code == 403


@pytest.mark.parametrize("content_type", ["application/json", "application/x-www-form-urlencoded"])
@pytest.mark.parametrize("provider", ["msg91", "gupshup"])
async def test_junk_with_the_right_token_is_a_bad_request(portal: Portal, provider: str, content_type: str) -> None:
    """So that whoever sets it up learns what is wrong."""
    answer = await portal.http.client.post(
        f"/callbacks/{provider}?token={provider}-token", content=b"{", headers={"Content-Type": content_type}
    )
    assert answer.status_code == 400


def by_get(name: str, status: str, cause: str = "SUCCESS") -> str:
    """The query of a report as Gupshup's page has it, behind the token."""
    told = {"externalId": name, "deliveredTS": "1773480413000", "status": status, "cause": cause}
    return urlencode(
        {"token": "gupshup-token"} | told | {"phoneNo": "447700900123", "errCode": "000", "noOfFrags": "1"}
    )


@pytest.mark.parametrize(
    ("status", "cause", "state", "error_class"),
    [
        ("SUCCESS", "SUCCESS", "delivered", None),
        ("Failure", "UNKNOWN_SUBSCRIBER", "failed", "recipient"),
        ("FAILURE", "DND_FAIL", "failed", "opted-out"),
        ("UNKNOWN", "DEFERRED", None, None),
    ],
)
async def test_gupshup_reports_by_get(
    portal: Portal, status: str, cause: str, state: str | None, error_class: str | None
) -> None:
    """Its support must be asked for POST, so most accounts call like this; each report counts once here, too."""
    tenant = await portal.sent("gupshup")
    for _ in range(2):
        answer = await portal.http.client.get(f"/callbacks/gupshup?{by_get('m-1', status, cause)}")
        assert (answer.status_code, answer.text) == (200, "")
    story = [step for step in await portal.story(tenant) if step != ("queued", "fallback")]
    assert story == [("sent", None), *([(state, error_class)] if state else [])]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/callbacks/gupshup?externalId=m-1&status=SUCCESS", 403),
        ("/callbacks/gupshup?externalId=m-1&status=SUCCESS&token=wrong", 403),
        ("/callbacks/gupshup?token=gupshup-token", 400),
        ("/callbacks/gupshup?token=gupshup-token&externalId=&status=SUCCESS", 400),
        ("/callbacks/msg91?token=msg91-token&externalId=m-1&status=SUCCESS", 404),
    ],
)
async def test_a_get_is_checked_like_a_post(portal: Portal, path: str, status: int) -> None:
    """Without the token it changes nothing; with it, whoever sets it up learns what is wrong. Others don't call so."""
    tenant = await portal.sent("gupshup")
    assert (await portal.http.client.get(path)).status_code == status
    assert await portal.story(tenant) == [("sent", None)]


@pytest.mark.parametrize("seconds", [-301, 301])
@pytest.mark.parametrize("make", [vonage, vonage_jwt, meta])
async def test_an_old_recording_is_not_believed(portal: Portal, make: Any, seconds: int) -> None:
    """Where a time is signed, it must be within 300 seconds of ours."""
    made = make("m-1", "delivered", portal.clock() + timedelta(seconds=seconds))
    tenant = await portal.sent(made.provider)
    answer = await portal.post(made)
    # A status of Meta's is one of a batch, and the others are as good as ever.
    assert answer.status_code == (204 if make is meta else 403)
    assert await portal.story(tenant) == [("sent", None)]


@pytest.mark.parametrize("method", ["md5", "sha1"])
async def test_weak_signatures_are_not_believed(portal: Portal, method: str) -> None:
    """Vonage can be set to them; then it must be set right."""
    await portal.sent("vonage")
    assert (await portal.post(vonage("m-1", "delivered", portal.clock(), method))).status_code == 403


async def test_sha512_is_as_good(portal: Portal) -> None:
    """The other one that Vonage's dashboard offers."""
    tenant = await portal.sent("vonage")
    assert (await portal.post(vonage("m-1", "delivered", portal.clock(), "sha512"))).status_code == 204
    assert ("delivered", None) in await portal.story(tenant)


async def test_a_token_is_for_one_body(portal: Portal) -> None:
    """Vonage's JWT is good for the report it came with, and made with the secret."""
    tenant = await portal.sent("vonage")
    right = vonage_jwt("m-1", "delivered", portal.clock())
    other = vonage_jwt("m-2", "delivered", portal.clock())
    foreign = jwt.encode(
        jwt.decode(right.headers["Authorization"].split()[1], options={"verify_signature": False}),
        "another secret, as long as the right one",
        algorithm="HS256",
    )
    forged = replace(right, headers={**right.headers, "Authorization": f"Bearer {foreign}"})
    for wrong in (replace(right, headers=other.headers), forged):
        assert (await portal.post(wrong)).status_code == 403
    assert await portal.story(tenant) == [("sent", None)]
    assert (await portal.post(right)).status_code == 204
    assert await portal.story(tenant) == [("sent", None), ("delivered", None)]


async def test_twilio_signs_the_query_too(portal: Portal) -> None:
    """Whoever adds one to the callback's URL."""
    call = twilio("m-1", "delivered")
    fields = dict(pair.split("=") for pair in call.body.decode().replace("%2B", "+").split("&"))
    right = RequestValidator(SECRETS["TWILIO_AUTH_TOKEN"]).compute_signature(
        f"{PUBLIC_URL}/callbacks/twilio?site=1", fields
    )
    signed = replace(call, query="site=1", headers={**call.headers, "X-Twilio-Signature": right})
    assert (await portal.post(signed)).status_code == 204
    assert (await portal.post(replace(signed, query="site=2"))).status_code == 403


async def test_meta_is_told_that_the_url_is_ours(portal: Portal) -> None:
    """Only with the verify token, and as plain text."""
    asked = {"hub.mode": "subscribe", "hub.verify_token": "meta-verify-token", "hub.challenge": "<b>1158201444"}
    answer = await portal.http.client.get("/callbacks/meta", params=asked)
    assert (answer.status_code, answer.text) == (200, "<b>1158201444")
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.headers["x-content-type-options"] == "nosniff"
    for wrong in ({"hub.verify_token": "wrong"}, {"hub.mode": "unsubscribe"}):
        assert (await portal.http.client.get("/callbacks/meta", params={**asked, **wrong})).status_code == 403


async def test_who_is_not_set_up_is_not_believed(settings: Settings, clock: Clock) -> None:
    """Without a secret nothing can be checked; a name nobody has is no page."""
    async with serve(settings, clock) as http:
        for provider in [*VENDORS, "sns"]:
            assert (await http.post(f"/callbacks/{provider}")).status_code == 403
        assert (await http.get("/callbacks/meta")).status_code == 403
        assert (await http.post("/callbacks/nobody")).status_code == 404


def test_reports_are_expected_from_who_can_reach_us(settings: Settings) -> None:
    """Over https and with a secret; otherwise nobody waits for a sign of delivery."""
    known = replace(settings, public_url=PUBLIC_URL, credentials=MappingProxyType(SECRETS))
    assert reporting(known) == {"twilio", "vonage", "meta", "msg91", "gupshup", "sns"}
    assert reporting(replace(known, public_url="http://localhost:8000")) == set()
    assert reporting(replace(known, credentials=MappingProxyType({}))) == set()
    assert set(readers_for(known)) == reporting(known)


async def test_a_large_batch_is_taken(portal: Portal) -> None:
    """Meta reports on many messages at once, in more than the 16 KiB of other calls."""
    tenant = await portal.sent("meta")
    call = meta("m-1", "delivered", portal.clock(), padding="x" * 40_000)
    assert (await portal.post(call)).status_code == 204
    assert ("delivered", None) in await portal.story(tenant)


async def test_a_reported_failure_wakes_the_worker(portal: Portal, settings: Settings) -> None:
    """The message that takes over is there at once, not at the next poll."""
    tenant = await portal.sent("twilio")
    accelerator = Accelerator(settings.redis_url or "")
    heard: asyncio.Queue[str] = asyncio.Queue()

    async def listen() -> None:
        async for word in accelerator.subscribe(WAKE_CHANNEL):
            heard.put_nowait(word)

    listening = asyncio.create_task(listen())
    async with asyncio.timeout(20):
        while heard.empty():
            await accelerator.publish(WAKE_CHANNEL, "is anybody listening")
            await asyncio.sleep(0.01)
        await portal.post(twilio("m-1", "failed", ErrorCode="30008"))
        while await heard.get():
            pass
    listening.cancel()
    await accelerator.close()
    assert await portal.story(tenant) == [("sent", None), ("failed", "unavailable"), ("queued", "fallback")]


async def test_deliveries_show_in_the_metrics(portal: Portal) -> None:
    """By channel, provider and state, from whichever web process is asked."""
    await portal.sent("twilio", "m-metrics")
    await portal.post(twilio("m-metrics", "undelivered", ErrorCode="30005"))
    answer = await portal.http.get("/metrics")
    assert answer.status_code == 200
    found = re.findall(
        r'gatehouse_deliveries_total\{channel="email",provider="twilio",state="(\w+)"\} [1-9]', answer.text
    )
    assert {"sent", "failed"} <= set(found)
    assert "gatehouse_http_requests_total" in answer.text


# SNS: moto, which plays AWS, signs what it publishes with a certificate of its own.


@asynccontextmanager
async def amazon(
    message: Any, *, changes: Mapping[str, Any] | None = None, shift: timedelta = timedelta()
) -> AsyncIterator[tuple[Sns, Posted, datetime]]:
    """A reader with moto's certificate, a published message, and the time it was published (moto's clock is real)."""
    backend = sns_backends["123456789012"]["eu-west-1"]
    topic = backend.create_topic("sms-reports")
    subscription = Subscription("123456789012", topic, "https://login.example/callbacks/sns", "https")
    posted = subscription.get_post_data(json.dumps(message), "id-1", subject=None)
    certificates = sns_backends["123456789012"]["eu-west-1"]._message_public_keys

    async def fetch(url: str) -> bytes:
        name = url.rpartition("/")[2]
        if name not in certificates:
            raise Unavailable
        pem: bytes = certificates[name]
        return pem

    body = json.dumps({**posted, **(changes or {})}).encode()
    yield Sns(TOPIC, fetch), Posted(body), datetime.now(UTC) + shift


@pytest.mark.parametrize(
    ("message", "report"),
    [
        ({"eventType": "TEXT_DELIVERED", "messageId": "m-1"}, Report("m-1", "delivered")),
        (
            {"eventType": "TEXT_INVALID", "messageId": "m-1", "messageStatusDescription": "not valid"},
            Report("m-1", "failed", Fault.RECIPIENT, "Amazon SNS: not valid"),
        ),
        ({"eventType": "TEXT_QUEUED", "messageId": "m-1"}, None),
        ({"eventType": "TEXT_SUCCESSFUL", "messageId": "m-1", "isFinal": False}, None),
        ({"eventType": "TEXT_SUCCESSFUL", "messageId": "m-1", "isFinal": True}, Report("m-1", "delivered")),
        ({"notification": {"messageId": "m-1"}, "delivery": {}, "status": "SUCCESS"}, Report("m-1", "delivered")),
        (
            {
                "notification": {"messageId": "m-1"},
                "delivery": {"providerResponse": "Phone number is opted out"},
                "status": "FAILURE",
            },
            Report("m-1", "failed", Fault.OPTED_OUT, "Amazon SNS: Phone number is opted out"),
        ),
        (
            {
                "notification": {"messageId": "m-1"},
                "delivery": {"providerResponse": "Phone carrier is currently unreachable"},
                "status": "FAILURE",
            },
            Report("m-1", "failed", Fault.UNAVAILABLE, "Amazon SNS: Phone carrier is currently unreachable"),
        ),
        ({"something": "else"}, None),
    ],
)
async def test_what_amazon_publishes_is_understood(message: Any, report: Report | None) -> None:
    """Events of End User Messaging, and the delivery status logs of SNS; signed by moto, not by us."""
    async with amazon(message) as (reader, posted, now):
        assert list(await reader.read(posted, now)) == ([report] if report else [])


@pytest.mark.parametrize(
    "changes",
    [
        {"Message": '{"eventType": "TEXT_DELIVERED", "messageId": "m-2"}'},
        {"TopicArn": "arn:aws:sns:eu-west-1:999999999999:mine"},
        {"SignatureVersion": "1"},
        {"Signature": "AAAA"},
        {"Signature": None},
        {"Timestamp": "2020-01-01T00:00:00.000Z"},
        {"Type": "UnsubscribeConfirmation"},
        {"SigningCertURL": "https://sns.eu-west-1.amazonaws.com.evil.example/cert.pem"},
        {"SigningCertURL": "https://evil.example/sns.eu-west-1.amazonaws.com/cert.pem"},
        {"SigningCertURL": "http://sns.eu-west-1.amazonaws.com/cert.pem"},
        {"SigningCertURL": "https://sns.eu-west-1.amazonaws.com@evil.example/cert.pem"},
        {"SigningCertURL": "https://s3.amazonaws.com/cert.pem"},
        {"SigningCertURL": "https://[x"},
    ],
)
async def test_what_only_looks_like_amazon_is_not_believed(changes: Mapping[str, Any]) -> None:
    """Another word, another topic, another certificate's address: refused, and nothing is fetched from elsewhere."""
    async with amazon({"eventType": "TEXT_DELIVERED", "messageId": "m-1"}, changes=changes) as (reader, posted, now):
        with pytest.raises(Forbidden):
            await reader.read(posted, now)


@pytest.mark.parametrize("shift", [timedelta(seconds=302), timedelta(days=400)])
async def test_old_and_outlived_is_not_believed(shift: timedelta) -> None:
    """A message from five minutes ago, and a certificate that has expired."""
    async with amazon({"eventType": "TEXT_DELIVERED", "messageId": "m-1"}, shift=shift) as (reader, posted, now):
        with pytest.raises(Forbidden):
            await reader.read(posted, now)


async def test_amazon_tries_again_while_its_certificate_cannot_be_had() -> None:
    """503 rather than a report that is lost."""
    changes = {"SigningCertURL": "https://sns.eu-west-1.amazonaws.com/another.pem"}
    async with amazon({"eventType": "TEXT_DELIVERED", "messageId": "m-1"}, changes=changes) as (reader, posted, now):
        with pytest.raises(Unavailable):
            await reader.read(posted, now)


def _lines(message: Mapping[str, str]) -> Sequence[str]:
    names = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")
    return [line for name in names for line in (name, message[name])]


@pytest.mark.parametrize("host", ["sns.eu-west-1.amazonaws.com", "evil.example"])
async def test_a_subscription_is_confirmed_at_amazon_only(host: str) -> None:
    """The signed address is visited, once, and only where Amazon is."""
    backend = sns_backends["123456789012"]["eu-west-1"]
    subscription = Subscription("123456789012", backend.create_topic("sms-reports"), "https://login.example", "https")
    signed = subscription.get_post_data("{}", "id-1", subject=None)
    confirm = {
        **signed,
        "Type": "SubscriptionConfirmation",
        "Message": "You have chosen to subscribe",
        "Token": "t",
        "SubscribeURL": f"https://{host}/?Action=ConfirmSubscription&Token=t",
    }
    text = "".join(f"{line}\n" for line in _lines(confirm))
    signature = subscription.private_key().sign(text.encode(), PKCS1v15(), SHA256())
    confirm["Signature"] = base64.b64encode(signature).decode()
    visited = []

    async def fetch(url: str) -> bytes:
        visited.append(url)
        pem: bytes = backend._message_public_keys.get(url.rpartition("/")[2], b"")
        return pem

    reader = Sns(TOPIC, fetch)
    posted = Posted(json.dumps(confirm).encode())
    if host == "evil.example":
        with pytest.raises(Forbidden):
            await reader.read(posted, datetime.now(UTC))
        assert len(visited) == 1
    else:
        assert list(await reader.read(posted, datetime.now(UTC))) == []
        assert visited[1:] == [confirm["SubscribeURL"]]


@pytest.mark.parametrize("body", [b"[[]" + b",[]" * 80_000 + b"]", b'{"Message":"%s"}' % (b"x" * 65_536)])
@pytest.mark.parametrize("provider", ["sns", "vonage"])
async def test_what_must_be_read_to_be_believed_is_short(
    provider: str, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their signature is in what they send or names its fields: anybody's 256 KiB are refused unread."""
    read: list[str | bytes] = []
    monkeypatch.setattr("app.delivery.callbacks.posted.read_json", read.append)

    async def fetch(_: str) -> bytes:
        raise Unavailable

    reader = Sns(TOPIC, fetch) if provider == "sns" else Vonage("secret")
    with pytest.raises(Forbidden):
        await reader.read(Posted(body), datetime.now(UTC))
    assert not read
