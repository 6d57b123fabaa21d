"""What our providers put on the wire is what the vendors' own clients put there.

Each test lets both send the same message to the same recorder. Who has no client for Python is in `test_published`;
here is what our own settings make of Gupshup's request.
"""

import asyncio
import json
from dataclasses import replace
from typing import Any

import boto3
import httpx
import pytest
import twilio.rest
from botocore.config import Config
from pywa.client import WhatsApp
from pywa.types.templates import AuthenticationBody, CopyCodeOTPButton, TemplateLanguage
from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter
from vonage_http_client.auth import Auth
from vonage_http_client.http_client import HttpClient
from vonage_sms import Sms, SmsMessage

from app.errors import ConfigurationError
from tests.contracts.wire.recorder import Recorded, Recorder, Reply
from tests.contracts.wire.vendors import ACCOUNTS, MESSAGE, installation, provider

TWILIO_TOOK = Reply(201, {"sid": "SM1", "status": "queued"})
VONAGE_TOOK = Reply(200, {"message-count": "1", "messages": [{"status": "0", "message-id": "V1"}]})
SNS_TOOK = Reply(200, "<PublishResponse><PublishResult><MessageId>S1</MessageId></PublishResult></PublishResponse>")
META_TOOK = Reply(
    200, {"messaging_product": "whatsapp", "contacts": [{"input": "1", "wa_id": "1"}], "messages": [{"id": "wamid.1"}]}
)
CALLBACK = "https://login.example/callbacks"


def essence(request: Recorded) -> tuple[str, str, str, dict[str, str]]:
    """What must be equal of two forms."""
    return request.method, request.path, request.content_type, request.form


async def twilios_own(url: str, **fields: Any) -> None:
    """Twilio's client sends a message."""

    def send() -> None:
        client = twilio.rest.Client(ACCOUNTS["TWILIO_ACCOUNT_SID"], ACCOUNTS["TWILIO_AUTH_TOKEN"])
        client.api.base_url = url
        client.messages.create(**fields)
        client.http_client.session.close()

    await asyncio.to_thread(send)


@pytest.mark.parametrize("sender", [{"from_": "+15005550006"}, {"messaging_service_sid": "MG0001"}])
async def test_twilio_sms(sender: dict[str, str]) -> None:
    """Text, callback and life of the code go out from a number, or from a messaging service."""
    with Recorder(TWILIO_TOOK) as recorder:
        settings = installation(recorder.url, TWILIO_FROM=next(iter(sender.values())))
        async with provider(settings, "sms", "twilio") as ours:
            await ours.send(MESSAGE)
        callback = f"{CALLBACK}/twilio"
        await twilios_own(
            recorder.url, to=MESSAGE.to, body=MESSAGE.text, status_callback=callback, validity_period=600, **sender
        )
    ours_sent, theirs = recorder.requests
    assert essence(ours_sent) == essence(theirs)
    assert ours_sent.account == theirs.account


async def test_twilio_whatsapp() -> None:
    """Both ends are `whatsapp:` addresses."""
    with Recorder(TWILIO_TOOK) as recorder:
        async with provider(installation(recorder.url), "whatsapp", "twilio") as ours:
            await ours.send(MESSAGE)
        await twilios_own(
            recorder.url,
            to=f"whatsapp:{MESSAGE.to}",
            from_="whatsapp:+15005550007",
            body=MESSAGE.text,
            status_callback=f"{CALLBACK}/twilio",
        )
    ours_sent, theirs = recorder.requests
    assert essence(ours_sent) == essence(theirs)


async def test_twilio_whatsapp_with_an_approved_template() -> None:
    """With a content template only its variable goes out, and no text of ours."""
    with Recorder(TWILIO_TOOK) as recorder:
        async with provider(installation(recorder.url, TWILIO_CONTENT_SID="HX0001"), "whatsapp", "twilio") as ours:
            await ours.send(MESSAGE)
        await twilios_own(
            recorder.url,
            to=f"whatsapp:{MESSAGE.to}",
            from_="whatsapp:+15005550007",
            content_sid="HX0001",
            content_variables=json.dumps({"1": "123456"}, separators=(",", ":")),
            status_callback=f"{CALLBACK}/twilio",
        )
    ours_sent, theirs = recorder.requests
    assert essence(ours_sent) == essence(theirs)


class _To(HTTPAdapter):
    """Vonage's client insists on https; this sends its requests to the recorder all the same."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url

    def send(self, request: PreparedRequest, *args: Any, **options: Any) -> Response:
        assert request.url is not None
        request.url = self.url + request.url.removeprefix("https://rest.nexmo.com")
        return super().send(request, *args, **options)


@pytest.mark.parametrize(("text", "kind"), [("Your code is 123456", "text"), ("رمزك 123456", "unicode")])
async def test_vonage(text: str, kind: str) -> None:
    """Text outside the GSM alphabet is announced as such, or it would arrive as question marks."""
    with Recorder(VONAGE_TOOK) as recorder:
        async with provider(installation(recorder.url), "sms", "vonage") as ours:
            await ours.send(replace(MESSAGE, text=text))

        def theirs_sends() -> None:
            client = HttpClient(Auth(api_key=ACCOUNTS["VONAGE_API_KEY"], api_secret=ACCOUNTS["VONAGE_API_SECRET"]))
            client._session.mount("https://", _To(recorder.url))
            fields: dict[str, Any] = {"to": "447700900123", "from_": "Acme", "text": text, "type": kind}
            fields |= {"client_ref": MESSAGE.id, "ttl": 600_000, "callback": f"{CALLBACK}/vonage"}
            Sms(client).send(SmsMessage(**fields))
            client._session.close()

        await asyncio.to_thread(theirs_sends)
    ours_sent, theirs = recorder.requests
    assert essence(ours_sent) == essence(theirs)
    assert ours_sent.account == theirs.account


async def test_sns() -> None:
    """boto3 sends the same call, signed for the same scope with the same key."""
    with Recorder(SNS_TOOK) as recorder:
        settings = installation(recorder.url, AWS_SESSION_TOKEN="a-session-token")
        async with provider(settings, "sms", "sns") as ours:
            await ours.send(MESSAGE)

        def theirs_sends() -> None:
            client = boto3.client(
                "sns",
                endpoint_url=recorder.url,
                region_name="eu-west-1",
                aws_access_key_id=ACCOUNTS["AWS_ACCESS_KEY_ID"],
                aws_secret_access_key=ACCOUNTS["AWS_SECRET_ACCESS_KEY"],
                aws_session_token="a-session-token",
                config=Config(retries={"total_max_attempts": 1}),
            )
            client.publish(
                PhoneNumber=MESSAGE.to,
                Message=MESSAGE.text,
                MessageAttributes={
                    "AWS.SNS.SMS.SMSType": {"DataType": "String", "StringValue": "Transactional"},
                    "AWS.SNS.SMS.SenderID": {"DataType": "String", "StringValue": "Acme"},
                },
            )
            client.close()

        await asyncio.to_thread(theirs_sends)
    ours_sent, theirs = recorder.requests
    assert essence(ours_sent) == essence(theirs)
    assert ours_sent.headers["x-amz-security-token"] == theirs.headers["x-amz-security-token"]
    for request in recorder.requests:
        scope = f"AKIDEXAMPLE/{request.headers['x-amz-date'][:8]}/eu-west-1/sns/aws4_request"
        assert request.headers["authorization"].startswith(f"AWS4-HMAC-SHA256 Credential={scope}")


async def test_meta() -> None:
    """The code goes into the body and into the copy-code button of the template, in the reader's language."""
    with Recorder(META_TOOK) as recorder:
        async with provider(installation(recorder.url), "whatsapp", "meta") as ours:
            await ours.send(MESSAGE)

        def theirs_sends() -> None:
            with httpx.Client() as session:
                client = WhatsApp(ACCOUNTS["META_PHONE_NUMBER_ID"], ACCOUNTS["META_ACCESS_TOKEN"], session=session)
                session.base_url = httpx.URL(f"{recorder.url}/v23.0")
                client.send_template(
                    MESSAGE.to,
                    "sign_in_code",
                    TemplateLanguage.GERMAN,
                    [AuthenticationBody.params(otp="123456"), CopyCodeOTPButton.params(otp="123456")],
                )

        await asyncio.to_thread(theirs_sends)
    ours_sent, theirs = recorder.requests
    assert (ours_sent.path, ours_sent.content_type) == (theirs.path, theirs.content_type)
    assert ours_sent.headers["authorization"] == theirs.headers["authorization"] == "Bearer meta-token"
    assert as_meta_reads_it(ours_sent.json) == as_meta_reads_it(theirs.json)


def as_meta_reads_it(body: dict[str, Any]) -> dict[str, Any]:
    """Without differences that mean nothing: the only policy there is, the plus, an index as number or text."""
    body["to"] = body["to"].removeprefix("+")
    body["template"]["language"].setdefault("policy", "deterministic")
    for part in body["template"]["components"]:
        part["type"] = part["type"].lower()
        if part["type"] == "button":
            part |= {"sub_type": part["sub_type"].lower(), "index": str(part["index"])}
    return body


async def test_meta_falls_back_to_a_translation_that_exists() -> None:
    """A template that isn't approved in the reader's language goes out in English, and that is remembered."""
    missing = Reply(404, {"error": {"code": 132001, "message": "Template name does not exist in the translation"}})
    with Recorder(missing, missing, META_TOOK) as recorder:
        async with provider(installation(recorder.url), "whatsapp", "meta") as ours:
            await ours.send(replace(MESSAGE, locale="pt-BR"))
            await ours.send(replace(MESSAGE, locale="pt-BR"))
    languages = [request.json["template"]["language"]["code"] for request in recorder.requests]
    assert languages == ["pt_BR", "pt", "en", "en"]


@pytest.mark.parametrize(("text", "kind"), [("Your code is 123456", "TEXT"), ("आपका कोड 123456", "UNICODE_TEXT")])
async def test_gupshup_sms(text: str, kind: str) -> None:
    """Gupshup docs, "Send Messages to Single Number": the required parameters, in the body rather than the URL."""
    with Recorder(Reply(200, {"response": {"status": "success", "id": "G1"}})) as recorder:
        async with provider(installation(recorder.url), "sms", "gupshup") as ours:
            await ours.send(replace(MESSAGE, text=text))
    assert (recorder.last.path, recorder.last.form) == (
        "/GatewayAPI/rest",
        {
            "method": "SendMessage",
            "userid": "2000000000",
            "password": "gupshup&password",
            "auth_scheme": "plain",
            "v": "1.1",
            "format": "json",
            "send_to": "447700900123",
            "msg": text,
            "msg_type": kind,
        },
    )


@pytest.mark.parametrize("template", ["{#var#} is your Acme code.", "{{1}} is your Acme code."])
async def test_gupshup_fills_in_the_registered_template(template: str) -> None:
    """What operators and WhatsApp compare with the registered text differs from it by the code alone."""
    with Recorder(Reply(200, {"response": {"status": "success", "id": "G1"}})) as recorder:
        settings = installation(recorder.url, GUPSHUP_TEMPLATE=template)
        async with provider(settings, "sms", "gupshup") as ours:
            await ours.send(MESSAGE)
        async with provider(settings, "whatsapp", "gupshup") as ours:
            await ours.send(MESSAGE)
    sms, whatsapp = (request.form for request in recorder.requests)
    assert sms["msg"] == whatsapp["msg"] == "123456 is your Acme code."
    assert (whatsapp["isTemplate"], whatsapp["buttonUrlParam"]) == ("true", "123456")


async def test_no_callback_is_asked_for_where_it_would_not_be_safe() -> None:
    """Statuses come over https or not at all."""
    with Recorder(TWILIO_TOOK, VONAGE_TOOK) as recorder:
        settings = replace(installation(recorder.url), public_url="http://localhost:8000")
        async with provider(settings, "sms", "twilio") as ours:
            await ours.send(MESSAGE)
        async with provider(settings, "sms", "vonage") as ours:
            await ours.send(MESSAGE)
    twilio_sent, vonage_sent = (request.form for request in recorder.requests)
    assert "StatusCallback" not in twilio_sent
    assert "callback" not in vonage_sent


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"GUPSHUP_TEMPLATE": "Your code"}, "GUPSHUP_TEMPLATE must have"),
        ({"GUPSHUP_TEMPLATE": "{#var#} or {#var#}"}, "GUPSHUP_TEMPLATE must have"),
        ({"AWS_REGION": None}, "AWS_REGION is missing"),
    ],
)
async def test_settings_that_cannot_work_stop_the_start(changes: dict[str, str | None], fault: str) -> None:
    """What the loader can't know, the provider says before the first message, not with it."""
    with pytest.raises(ConfigurationError, match=fault):
        async with provider(installation("https://api.example", **changes), "sms", "twilio"):
            pass
