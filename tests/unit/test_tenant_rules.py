"""What a tenant's data may be, and which policy holds for it."""

from dataclasses import asdict, fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ChannelUnavailable, ContactMissing, InvalidRequest
from app.tenants.policy import _RULES
from app.tenants.rules import (
    Policy,
    check_delivery,
    check_name,
    check_slug,
    check_tenant,
    contact_for,
    effective_policy,
    merge_policy,
    normalise_email,
    normalise_locale,
    normalise_phone,
    normalise_timezone,
    operator_policy,
    parse_policy,
    parse_policy_assignments,
    region_of,
)

CEILING = operator_policy(
    code_length=6, code_ttl_seconds=600, max_attempts=5, hourly_limit=3, resend_cooldown_seconds=60
)


def pointers(error: pytest.ExceptionInfo[InvalidRequest]) -> list[str]:
    return [fault.pointer for fault in error.value.errors]


# --- slug, name


@pytest.mark.parametrize("slug", ["a", "7", "acme", "acme-2", "a" * 63, "a--b"])
def test_slug_is_taken_as_it_is(slug: str) -> None:
    """A DNS label in lower case."""
    assert check_slug(slug) == slug


@pytest.mark.parametrize(
    "slug", ["", "_system", "Acme", "-a", "a-", "a" * 64, "a" * 20_000, "a b", "a\n", "ä", "a.b", "\u0661"]
)
def test_slug_is_refused_not_folded(slug: str) -> None:
    """Everything else is refused; so the reserved `_system` can't be addressed."""
    with pytest.raises(InvalidRequest) as error:
        check_slug(slug)
    assert pointers(error) == ["/slug"]


def test_name_is_trimmed_and_composed() -> None:
    """Outer spaces go, and the two spellings of ü become one."""
    assert check_name("  Mu\u0308ller & Söhne \u200d") == "Müller & Söhne"
    assert len(check_name("x" * 120)) == 120


@pytest.mark.parametrize(
    "name", ["", "   ", "x" * 121, "a\rb", "a\n", "a\0b", "a\x1bb", "a\u2028b", "\u202e", "a\ud800", "\x85"]
)
def test_name_with_controls_is_refused(name: str) -> None:
    """Nothing that could break out of a header, not even at the end, and nothing that can't be seen."""
    with pytest.raises(InvalidRequest) as error:
        check_name(name)
    assert pointers(error) == ["/name"]


# --- contacts


@pytest.mark.parametrize(
    ("given_address", "stored"),
    [
        ("Oskar@Example.COM", "oskar@example.com"),
        (" a@b.c ", "a@b.c"),
        ("bob+tag@acme.test", "bob+tag@acme.test"),
        ("bob@BÜCHER.de", "bob@xn--bcher-kva.de"),
    ],
)
def test_email_has_one_form(given_address: str, stored: str) -> None:
    """Lower case, domain in ASCII: one mailbox is one identity."""
    assert normalise_email(given_address) == stored


@pytest.mark.parametrize(
    "address",
    [
        "",
        "a",
        "a@b",
        "a@x, b@y",
        "a@x.com,b@y.com",
        "a@x.com\r\nBcc: b@y.com",
        "a@x.com\n",
        "a\0@x.com",
        "Bob <bob@x.com>",
        '"a b"@x.com',
        "a@[127.0.0.1]",
        "bob@x.com bob@y.com",
        "ä@x.com",
        "a@" + "x" * 250 + ".com",
    ],
)
def test_email_is_one_plain_address(address: str) -> None:
    """No second recipient, no header, no display name, nothing over 254 characters."""
    with pytest.raises(InvalidRequest) as error:
        normalise_email(address)
    assert pointers(error) == ["/email"]


@given(st.emails())
def test_normalising_an_email_twice_changes_nothing(address: str) -> None:
    """What is stored is found again by what is stored."""
    try:
        once = normalise_email(address)
    except InvalidRequest:
        return
    assert normalise_email(once) == once == once.lower()


@pytest.mark.parametrize("number", ["+15555550100", "+447700900123", "+919876543210", "+14155552671", "+41791234567"])
def test_example_numbers_are_accepted(number: str) -> None:
    """The numbers that documentation and first tries use are taken, reserved for fiction or not."""
    assert normalise_phone(number) == number


@pytest.mark.parametrize(
    ("written", "region", "stored"),
    [
        ("+44 (0)7700 900-123", None, "+447700900123"),
        ("07700 900123", "GB", "+447700900123"),
        ("079 123 45 67", "CH", "+41791234567"),
        ("(415) 555-2671", "US", "+14155552671"),
        ("+41 79 123 45 67", "GB", "+41791234567"),
    ],
)
def test_phone_becomes_e164(written: str, region: str | None, stored: str) -> None:
    """However it is written; in national notation where the country is known."""
    assert normalise_phone(written, region=region) == stored


@pytest.mark.parametrize(
    ("number", "region"),
    [
        ("", None),
        ("+", None),
        ("07700 900123", None),
        ("+1555", None),
        ("+1415555267199999", None),
        ("+999123456789", None),
        ("5552671", "US"),
        ("+200000000000", None),
        ("1-800-FLOWERS", "US"),
        ("+447700900123;ext=5", None),
        ("+447700900123\n+447700900124", None),
        ("+447700900123,+447700900124", None),
    ],
)
def test_phone_that_is_none_is_refused(number: str, region: str | None) -> None:
    """Impossible lengths, letters, extensions, two numbers, national without a country."""
    with pytest.raises(InvalidRequest) as error:
        normalise_phone(number, region=region)
    assert pointers(error) == ["/phone_number"]


def test_national_number_without_country_says_what_to_do() -> None:
    """The refusal tells the way out."""
    with pytest.raises(InvalidRequest, match="country code"):
        normalise_phone("07700 900123")


@given(st.from_regex(r"\+[1-9][0-9]{6,14}", fullmatch=True))
def test_normalising_a_phone_twice_changes_nothing(number: str) -> None:
    """What is stored is found again by what is stored."""
    try:
        once = normalise_phone(number)
    except InvalidRequest:
        return
    assert normalise_phone(once, region="GB") == once


# --- place and language


@pytest.mark.parametrize(
    ("locale", "timezone", "region"),
    [
        ("de-CH", None, "CH"),
        ("en", "Europe/London", "GB"),
        ("en-US", "Europe/London", "US"),
        ("en", "UTC", None),
        ("en", None, None),
        ("es-419", "America/Bogota", "CO"),
        ("", "Asia/Kolkata", "IN"),
    ],
)
def test_region_comes_from_locale_then_timezone(locale: str, timezone: str | None, region: str | None) -> None:
    """A tenant has a country where its locale or else its time zone names one."""
    assert region_of(locale, timezone) == region


@pytest.mark.parametrize(
    ("value", "stored"), [("en", "en"), ("de_ch", "de-CH"), ("EN-gb", "en-GB"), ("zh-TW", "zh-Hant-TW")]
)
def test_locale_has_one_form(value: str, stored: str) -> None:
    """Hyphens, canonical case, and stable from then on."""
    assert normalise_locale(value) == normalise_locale(stored) == stored


@pytest.mark.parametrize("value", ["", "xx", "english", "en-", "../en", "e" * 36, "en\n"])
def test_unknown_locale_is_refused(value: str) -> None:
    """A language nobody could render is found when it is set."""
    with pytest.raises(InvalidRequest):
        normalise_locale(value)


def test_timezone_is_one_of_the_database() -> None:
    """Names of the IANA database and nothing that is only a path."""
    assert normalise_timezone("Europe/Zurich") == "Europe/Zurich"
    for value in ("", "Mars/Olympus", "../etc/passwd", "Europe", "europe/zurich"):
        with pytest.raises(InvalidRequest):
            normalise_timezone(value)


# --- delivery


def test_contact_follows_the_channel() -> None:
    """Email goes to the email, SMS and WhatsApp to the phone; push has no address."""
    assert [contact_for(c, "e", "p") for c in ("email", "sms", "whatsapp", "push")] == ["e", "p", "p", None]


def test_preferred_method_needs_provider_and_contact() -> None:
    """Each lack is its own refusal and points at the field to change."""
    check_delivery("email", ["sms"], "a@b.c", None, {"email"})
    check_delivery("push", [], None, None, {"push"})
    with pytest.raises(ContactMissing) as missing:
        check_delivery("sms", [], "a@b.c", None, {"email", "sms"})
    assert missing.value.extra == {"pointer": "/phone_number"}
    with pytest.raises(ChannelUnavailable) as unavailable:
        check_delivery("sms", [], None, "+447700900123", {"email"})
    assert unavailable.value.extra == {"pointer": "/otp_delivery_method"}
    with pytest.raises(InvalidRequest) as repeated:
        check_delivery("email", ["sms", "email"], "a@b.c", None, {"email"})
    assert pointers(repeated) == ["/fallback_methods/1"]


# --- policy

OVERRIDES = {
    "code_length": st.sampled_from([6, 8]),
    "code_ttl_seconds": st.integers(60, 600),
    "max_attempts": st.integers(1, 5),
    "hourly_limit": st.integers(1, 10),
    "per_minute_limit": st.integers(1, 10),
    "resend_cooldown_seconds": st.integers(0, 300),
    "lock_after_failures": st.integers(1, 100),
    "registration": st.sampled_from(["closed", "invite", "open"]),
    "first_factor": st.sampled_from(["code", "password"]),
    "second_factor": st.sampled_from(["off", "optional", "required"]),
    "remember_device_days": st.integers(0, 90),
    "end_sessions_on_contact_change": st.booleans(),
    "require_contact": st.booleans(),
}
POLICIES = st.builds(Policy, **OVERRIDES)
STRICTER_IS_LESS = (
    "code_ttl_seconds",
    "max_attempts",
    "hourly_limit",
    "per_minute_limit",
    "lock_after_failures",
    "remember_device_days",
)
STRICTER_IS_MORE = ("code_length", "resend_cooldown_seconds", "end_sessions_on_contact_change", "require_contact")


def test_policy_and_its_rules_have_the_same_keys() -> None:
    """A key that is added to one is added to the other."""
    assert [field.name for field in fields(Policy)] == list(_RULES) == list(OVERRIDES)


@given(POLICIES, st.fixed_dictionaries({}, optional=OVERRIDES))
def test_no_override_loosens_the_ceiling(ceiling: Policy, overrides: dict[str, object]) -> None:
    """Whatever a tenant wishes, every key stays at the ceiling or on its strict side, and no stricter than asked."""
    effective = effective_policy(ceiling, parse_policy(overrides))
    for key in STRICTER_IS_LESS:
        assert getattr(effective, key) <= getattr(ceiling, key)
    for key in STRICTER_IS_MORE:
        assert getattr(effective, key) >= getattr(ceiling, key)
    order = ["open", "invite", "closed"]
    assert order.index(effective.registration) >= order.index(ceiling.registration)
    order = ["off", "optional", "required"]
    assert order.index(effective.second_factor) >= order.index(ceiling.second_factor)
    for key, wish in overrides.items():
        assert getattr(effective, key) in {wish, getattr(ceiling, key)}


@given(POLICIES, st.fixed_dictionaries({}, optional=OVERRIDES))
def test_effective_policy_is_stable(ceiling: Policy, overrides: dict[str, object]) -> None:
    """Applying the same overrides again changes nothing."""
    once = effective_policy(ceiling, overrides)
    assert effective_policy(once, overrides) == once


def test_without_overrides_the_operators_numbers_and_safe_choices_hold() -> None:
    """A tenant nobody configured: the settings' numbers, registration closed, sessions ended on contact change."""
    policy = asdict(effective_policy(CEILING, {}))
    assert policy == {
        "code_length": 6,
        "code_ttl_seconds": 600,
        "max_attempts": 5,
        "hourly_limit": 3,
        "per_minute_limit": 10,
        "resend_cooldown_seconds": 60,
        "lock_after_failures": 100,
        "registration": "closed",
        "first_factor": "code",
        "second_factor": "optional",
        "remember_device_days": 0,
        "end_sessions_on_contact_change": True,
        "require_contact": False,
    }


def test_mobile_first_limits_can_be_set() -> None:
    """3 sends a minute, 3 minutes of life, 3 attempts; and a looser wish stays without effect."""
    wishes = {"per_minute_limit": 3, "code_ttl_seconds": 180, "max_attempts": 3, "hourly_limit": 10}
    policy = effective_policy(CEILING, parse_policy(wishes))
    assert (policy.per_minute_limit, policy.code_ttl_seconds, policy.max_attempts) == (3, 180, 3)
    assert policy.hourly_limit == 3


def test_ceiling_outside_a_tenants_range_still_holds() -> None:
    """An operator may go below what a tenant could choose."""
    ceiling = operator_policy(
        code_length=8, code_ttl_seconds=2, max_attempts=1, hourly_limit=100, resend_cooldown_seconds=0
    )
    policy = effective_policy(ceiling, {"code_ttl_seconds": 60, "code_length": 6, "hourly_limit": 10})
    assert (policy.code_ttl_seconds, policy.code_length, policy.hourly_limit) == (2, 8, 10)
    assert effective_policy(ceiling, {}).hourly_limit == 100


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("code_length", 7),
        ("code_length", "6"),
        ("code_ttl_seconds", 59),
        ("code_ttl_seconds", 601),
        ("max_attempts", 0),
        ("max_attempts", True),
        ("max_attempts", 3.0),
        ("hourly_limit", 11),
        ("resend_cooldown_seconds", 301),
        ("remember_device_days", 91),
        ("registration", "Open"),
        ("second_factor", True),
        ("require_contact", 1),
        ("require_contact", "true"),
    ],
)
def test_override_out_of_range_or_of_another_type_is_refused(key: str, value: object) -> None:
    """JSON types count: `true` is no number, `1` no truth value, "6" no 6."""
    with pytest.raises(InvalidRequest) as error:
        parse_policy({key: value})
    assert pointers(error) == [f"/policy/{key}"]


def test_all_policy_faults_are_reported() -> None:
    """Unknown keys too, with a pointer that survives odd names (RFC 6901)."""
    with pytest.raises(InvalidRequest) as error:
        parse_policy({"max_attempts": 9, "a/b~c": 1, "hourly_limit": 3})
    assert pointers(error) == ["/policy/max_attempts", "/policy/a~1b~0c"]


def test_assignments_of_the_command_line_are_typed() -> None:
    """Numbers, truth values and names come from text; nothing behind the equals sign clears."""
    assignments = ["max_attempts=3", "require_contact=yes", "second_factor=off", "hourly_limit="]
    parsed = parse_policy_assignments(assignments)
    assert parsed == {"max_attempts": 3, "require_contact": True, "second_factor": "off", "hourly_limit": None}
    merged = merge_policy({"hourly_limit": 2, "code_length": 8}, parsed)
    assert merged == {"code_length": 8, "max_attempts": 3, "second_factor": "off", "require_contact": True}
    assert effective_policy(CEILING, parsed).hourly_limit == 3


def test_malformed_assignments_are_refused_together() -> None:
    """Every mistake on the command line at once."""
    with pytest.raises(InvalidRequest) as error:
        parse_policy_assignments(["max_attempts", "hourly_limit=many", "max_attempts=" + "9" * 5000])
    assert pointers(error) == ["/policy", "/policy/hourly_limit", "/policy/max_attempts"]
    with pytest.raises(InvalidRequest) as error:
        parse_policy_assignments(["max_attempts"])
    assert pointers(error) == ["/policy"]


# --- the whole tenant


def test_new_tenant_is_normalised() -> None:
    """Every field in its normal form; the phone is read in the country that the locale names."""
    fields_ = {
        "phone_number": "079 123 45 67",
        "slug": "acme",
        "name": " Acme ",
        "status": "active",
        "email": "IT@Acme.test",
        "otp_delivery_method": "sms",
        "fallback_methods": ["email"],
        "locale": "de_CH",
        "timezone": "Europe/Zurich",
        "policy": {"max_attempts": 3},
    }
    assert check_tenant(fields_, create=True) == fields_ | {
        "phone_number": "+41791234567",
        "name": "Acme",
        "email": "it@acme.test",
        "locale": "de-CH",
    }


def test_change_names_only_what_it_changes() -> None:
    """A patch needs no slug; None and "" clear a contact; the stored tenant's country reads the phone."""
    assert check_tenant({"email": None, "phone_number": ""}, create=False) == {"email": None, "phone_number": None}
    assert check_tenant({"phone_number": "07700 900123"}, create=False, region="GB") == {
        "phone_number": "+447700900123"
    }
    assert check_tenant({}, create=False) == {}


def test_all_faults_of_a_tenant_are_reported() -> None:
    """Wrong types, wrong forms, unknown and read-only fields, all with their pointers."""
    with pytest.raises(InvalidRequest) as error:
        check_tenant(
            {
                "slug": 7,
                "status": "gone",
                "email": ["a@b.c"],
                "phone_number": 447700900123,
                "otp_delivery_method": None,
                "fallback_methods": ["sms", "fax", "sms"],
                "locale": "xx",
                "timezone": None,
                "policy": {"max_attempts": 9},
                "version": 3,
            },
            create=True,
        )
    assert set(pointers(error)) == {
        "/name", "/slug", "/status", "/email", "/phone_number", "/otp_delivery_method", "/fallback_methods/1",
        "/locale", "/timezone", "/policy/max_attempts", "/version",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fields_", "pointer"),
    [
        ({"fallback_methods": "sms"}, "/fallback_methods"),
        ({"fallback_methods": ["sms", "sms"]}, "/fallback_methods/1"),
        ({"fallback_methods": [["sms"]]}, "/fallback_methods/0"),
        ({"policy": None}, "/policy"),
        ({"policy": []}, "/policy"),
        ({"name": None}, "/name"),
    ],
)
def test_wrong_shapes_are_refused(fields_: dict[str, object], pointer: str) -> None:
    """A value of another shape is a fault of its field, never a crash."""
    with pytest.raises(InvalidRequest) as error:
        check_tenant(fields_, create=False)
    assert pointers(error) == [pointer]
