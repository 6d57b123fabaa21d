"""Our requests, and the answers our tests give, are those that the vendors publish.

    recorded/     what MSG91's own client sends; it is written for Node, so it was recorded once
    published/    the request and the answers as a vendor's documents describe them, as JSON Schemas

For the vendors without a client in Python. Where botocore has Amazon's own description of SNS, that is asked.
"""

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.session import Session
from jsonschema_rs import validator_for

from app.delivery.providers import sns
from tests.contracts.wire.recorder import Recorded, Recorder
from tests.contracts.wire.test_answers import VENDORS, Vendor
from tests.contracts.wire.vendors import MESSAGE, installation, provider

HERE = Path(__file__).parent
DESCRIBED = [vendor for vendor in VENDORS if (HERE / "published" / f"{vendor.name}.json").exists()]
every_described = pytest.mark.parametrize("vendor", DESCRIBED, ids=str)
# What MSG91's documents have renamed since its client was written: old name, new name.
FLOW, TEMPLATE = "flow_id", "template_id"


def read(folder: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((HERE / folder / f"{name}.json").read_text(encoding="utf-8"))
    return found


async def sent(vendor: Vendor) -> Recorded:
    """The request our provider makes of that vendor."""
    with Recorder(vendor.taken) as recorder:
        async with provider(installation(recorder.url), vendor.channel, vendor.name) as ours:
            await ours.send(MESSAGE)
    return recorder.last


def faults(schema: dict[str, Any], value: object) -> list[str]:
    """What an independent validator has against the value."""
    return [error.message for error in validator_for(schema).iter_errors(value)]


def body(request: Recorded) -> object:
    return request.json if request.content_type == "application/json" else request.form


def test_each_vendor_without_a_client_of_its_own_is_described() -> None:
    """None of them falls back to requests we wrote ourselves."""
    assert {vendor.name for vendor in DESCRIBED} == {"msg91", "gupshup", "meta"}


@every_described
async def test_our_request_is_the_published_one(vendor: Vendor) -> None:
    """Method, path, headers and body; a field that the documents don't name is a fault."""
    published, request = read("published", vendor.name)["request"], await sent(vendor)
    assert (request.method, request.path) == (published["method"], published["path"])
    assert faults(published["headers"], request.headers) == []
    assert faults(published["body"], body(request)) == []


@every_described
async def test_a_field_that_is_missing_or_unknown_is_noticed(vendor: Vendor) -> None:
    """The descriptions are no rubber stamps: each required field is missed, and none can be added."""
    schema, good = read("published", vendor.name)["request"]["body"], body(await sent(vendor))
    assert isinstance(good, dict)
    for name in schema["required"]:
        assert faults(schema, {key: value for key, value in good.items() if key != name})
    assert faults(schema, {**good, "colour": "green"})


@every_described
def test_the_answers_in_our_tests_are_published_ones(vendor: Vendor) -> None:
    """A provider that is tested against answers nobody gives is not tested."""
    published = read("published", vendor.name)
    assert faults(published["success"], vendor.taken.body) == []
    refusals = [reply for reply, _ in (*vendor.permanent, *vendor.transient)]
    # Some answers come from a proxy in between, with no JSON in them.
    told = [reply.body for reply in refusals if isinstance(reply.body, dict)]
    assert told
    assert [faults(published["error"], answer) for answer in told] == [[]] * len(told)


async def test_msg91_gets_what_its_own_client_sends() -> None:
    """Key, template, sender and recipient, to the letter; for one recipient the client writes the list flat."""
    vendor = next(each for each in VENDORS if each.name == "msg91")
    ours = await sent(vendor)
    flat, listed = read("recorded", "msg91")["requests"]
    assert ours.json == {TEMPLATE if name == FLOW else name: value for name, value in listed["body"].items()}
    [recipient] = ours.json["recipients"]
    assert recipient.items() <= flat["body"].items()
    for theirs in (flat, listed):
        path = urlsplit(theirs["url"]).path
        assert (ours.method, ours.path) == (theirs["method"], path.removesuffix("/"))
        assert ours.headers["authkey"] == theirs["headers"]["authkey"]


def test_each_error_of_sns_is_known() -> None:
    """Amazon's own description of `Publish`: every error a text message can meet, and whose fault Amazon says it is."""
    model = Session().get_service_model("sns")
    told = {shape.error_code: shape.metadata["error"] for shape in model.operation_model("Publish").error_shapes}
    # Of encrypted topics and of mobile apps; we publish to numbers.
    ours = {code: error for code, error in told.items() if not code.startswith(("KMS", "Platform", "Endpoint"))}
    assert ours.keys() <= sns.FAULTS.keys()
    for code, error in ours.items():
        assert sns.FAULTS[code].permanent == bool(error.get("senderFault")), code
