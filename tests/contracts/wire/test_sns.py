"""SNS against moto's server, which checks signatures and rights as AWS does."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import boto3
import httpx
import pytest
from moto.backends import get_backend
from moto.moto_server.threaded_moto_server import ThreadedMotoServer

from app.delivery.message import DeliveryError, Message, PermanentFailure, Receipt
from app.settings import Settings
from tests.contracts.wire.vendors import MESSAGE, installation, provider

REGION = "eu-west-1"
PUBLISHER = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sns:Publish", "Resource": "*"}]}


@dataclass(frozen=True)
class Aws:
    """A running server with two users: one may publish, the other may not."""

    url: str
    publisher: tuple[str, str]
    stranger: tuple[str, str]

    def settings(self, keys: tuple[str, str] | None, **changes: str | None) -> Settings:
        access, secret = keys or (None, None)
        return installation(self.url, AWS_ACCESS_KEY_ID=access, AWS_SECRET_ACCESS_KEY=secret, **changes)


@pytest.fixture(scope="module")
def aws() -> Iterator[Aws]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    iam = boto3.client("iam", endpoint_url=url, region_name=REGION, aws_access_key_id="x", aws_secret_access_key="x")
    keys = []
    for user in ("publisher", "stranger"):
        iam.create_user(UserName=user)
        made = iam.create_access_key(UserName=user)["AccessKey"]
        keys.append((made["AccessKeyId"], made["SecretAccessKey"]))
    iam.put_user_policy(UserName="publisher", PolicyName="sms", PolicyDocument=json.dumps(PUBLISHER))
    iam.close()
    # From now on every request must be signed by somebody who may.
    assert httpx.post(f"{url}/moto-api/reset-auth", content="0").status_code == httpx.codes.OK
    yield Aws(url, *keys)
    httpx.post(f"{url}/moto-api/reset-auth", content="inf")
    server.stop()


async def publish(settings: Settings, message: Message = MESSAGE) -> Receipt:
    async with provider(settings, "sms", "sns") as ours:
        return await ours.send(message)


async def refusal(settings: Settings, message: Message = MESSAGE) -> DeliveryError:
    with pytest.raises(DeliveryError) as raised:
        await publish(settings, message)
    return raised.value


async def test_a_signed_message_is_published(aws: Aws) -> None:
    """AWS finds the signature right, and the text as it was written."""
    receipt = await publish(aws.settings(aws.publisher))
    sent = get_backend("sns")["123456789012"][REGION].sms_messages
    assert sent[receipt.provider_message_id] == (MESSAGE.to, MESSAGE.text)


async def test_a_wrong_secret(aws: Aws) -> None:
    """The signature of anybody else doesn't match."""
    error = await refusal(aws.settings((aws.publisher[0], "wrong")))
    assert (error.permanent, error.error_class) == (True, "credentials")
    assert "signature" in error.text


async def test_an_unknown_key(aws: Aws) -> None:
    """A key AWS has never heard of."""
    error = await refusal(aws.settings(("AKIAIOSFODNN7EXAMPLE", "wrong")))
    assert (error.permanent, error.error_class) == (True, "credentials")


async def test_a_user_without_the_right(aws: Aws) -> None:
    """The good keys of a user who may not publish are as good as wrong ones."""
    error = await refusal(aws.settings(aws.stranger))
    assert (error.permanent, error.error_class) == (True, "credentials")


async def test_a_number_that_is_none(aws: Aws) -> None:
    """The recipient is at fault, and the words don't repeat it."""
    error = await refusal(aws.settings(aws.publisher), replace(MESSAGE, to="+44770090012345678"))
    assert (error.permanent, error.error_class) == (True, "recipient")
    assert "7700900" not in error.text


async def test_credentials_of_the_machine(aws: Aws, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With no keys in the settings, those that AWS's own rules find are used."""
    access, secret = aws.publisher
    shared = tmp_path / "credentials"
    shared.write_text(f"[default]\naws_access_key_id = {access}\naws_secret_access_key = {secret}\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(shared))
    assert (await publish(aws.settings(None))).provider_message_id


async def test_no_credentials_anywhere(aws: Aws, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without a role: permanent, and the words say what to do."""
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "BOTO_CONFIG"):
        monkeypatch.setenv(name, str(tmp_path / "absent"))
    error = await refusal(aws.settings(None))
    assert isinstance(error, PermanentFailure)
    assert error.error_class == "credentials"
    assert "AWS_ACCESS_KEY_ID" in error.text
