"""What people paste, or bring in a spreadsheet: one meaning at every door, or the reason why not.

To extend it, add a line: to `CODES`, `PHONES`, `EMAILS` or `NAMES` what is written and what it means; to the tables of
refusals what is written and words of the reason.
"""

import csv
import io
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import cleaning, sheets
from app.audit.log import Actor, Client
from app.auth import codes
from app.auth.asking import read_identifier
from app.auth.factors import backup_codes
from app.errors import InvalidRequest, NotFound
from app.members.files import as_csv as members_as_csv
from app.members.files import csv_head as members_head
from app.members.files import read_csv as read_members
from app.members.model import Member
from app.members.search import Filters as MemberFilters
from app.members.service import Members
from app.settings import Settings
from app.storage.db import Database
from app.tenants.contacts import accept_internal_domains, normalise_email, normalise_phone
from app.tenants.import_export import TenantFiles
from app.tenants.model import Tenant
from app.tenants.needles import Needles
from app.tenants.rules import check_name, region_of
from app.tenants.search import Filters
from app.tenants.service import Tenants
from app.tenants.table import as_csv, csv_head, read_csv
from tests.conftest import Clock
from tests.http import Http
from tests.people import SomeTenant, add_tenant

BY_HAND: Final = Actor("operator")
SHELL: Final = Client("cli")

CODES: Final = {
    "123456": "123456",
    " 123 456\n": "123456",
    "123\u2011456": "123456",
    "123\u2212456": "123456",
    "12\u200934\u200956": "123456",
    "\u200b123456\ufeff": "123456",
    "\u202a123456\u202c": "123456",
    "\u2067123\u2069456": "123456",
    "\u00ad123456": "123456",
    "\uff11\uff12\uff13\uff14\uff15\uff16": "123456",
    "\u0661\u0662\u0663\u0664\u0665\u0666": "123456",
    "\u06f1\u06f2\u06f3\u06f4\u06f5\u06f6": "123456",
    "\u0967\u0968\u0969\u096a\u096b\u096c": "123456",
    "\u09e7\u09e8\u09e9\u09ea\u09eb\u09ec": "123456",
    "123\u3000456\u00a078": "12345678",
}
BACKUP_CODES: Final = {
    "4kq9z-0m7rt": "4kq9z0m7rt",
    " 4KQ9Z 0M7RT\n": "4kq9z0m7rt",
    "\u200b4kq9z-0m7rt\ufeff": "4kq9z0m7rt",
    "\u20664kq9z\u2011\u200d0m7rt\u2069": "4kq9z0m7rt",
    "4kq9z\u20140m7rt": "4kq9z0m7rt",
    "4kq9z\u202f0m7rt": "4kq9z0m7rt",
    "\uff14\uff4b\uff51\uff19\uff5a\uff10\uff4d\uff17\uff52\uff54": "4kq9z0m7rt",
    "\u0664kq\u0669z-\u0660m\u0667rt": "4kq9z0m7rt",
    "4kq9z-om7rt": "4kq9z0m7rt",
}
NO_CODES: Final = (
    "",
    "12345",
    "12345678901",
    "12345a",
    "12345\u00b2",
    "12\n3456",
    "123456.",
    "\u00bd23456",
    "1" * 5000,
)

PHONES: Final = {
    "+447700900123": "+447700900123",
    "\u202a+44 7700 900123\u202c": "+447700900123",
    "\u2066+44 7700 900123\u2069": "+447700900123",
    "\u200e+44\u20117700\u2011900123": "+447700900123",
    "\ufeff+44\u00a07700\u2009900\u200b123": "+447700900123",
    "tel:+44-7700-900123": "+447700900123",
    "TEL:0044%207700%20900123": "+447700900123",
    "0044 7700 900123": "+447700900123",
    "(0044) 7700 900123": "+447700900123",
    "(+44) 7700 900123": "+447700900123",
    "+44 (0)7700 900777": "+447700900777",
    "'+447700900123": "+447700900123",
    "\uff0b44 \uff17\uff17\uff10\uff10 900123": "+447700900123",
    "\u0660\u0660\u0664\u0664\u0667\u0667\u0660\u0660\u0669\u0660\u0660\u0661\u0662\u0663": "+447700900123",
    "+\u096a\u096a\u096d\u096d\u0966\u0966\u096f\u0966\u0966\u0967\u0968\u0969": "+447700900123",
    "+44 7700 900123,": "+447700900123",
    "+44 7700 900123;": "+447700900123",
    "+39 039 2312345": "+390392312345",
    "+84 084 123 4567": "+84841234567",
    "+49 0491 92780": "+4949192780",
    "+49 30/123456": "+4930123456",
    "+49 (0)170/1234567": "+491701234567",
    "+52 1 55 1234 5678": "+525512345678",
    "+52 55 1234 5678": "+525512345678",
    "+54 11 2345-6789": "+5491123456789",
    "+54 9 11 2345-6789": "+5491123456789",
    "+54 11 15 2345-6789": "+5491123456789",
    "+54 9 11 15 2345-6789": "+5491123456789",
    "+55 11 8765-4321": "+5511987654321",
    "+55 11 98765-4321": "+5511987654321",
    "+55 55 99999-9999": "+5555999999999",
    "+225 07 12 34 56": "+2250707123456",
    "+225 07 07 12 34 56": "+2250707123456",
    "+229 97 12 34 56": "+2290197123456",
    "+229 01 97 12 34 56": "+2290197123456",
    "+39 06 12345678": "+390612345678",
    "+39 (0)6 12345678": "+390612345678",
    "+352 (0)621 123 456": "+352621123456",
}
NO_PHONES: Final = {
    "491701234567.0": "spreadsheet",
    "+491701234567,00": "spreadsheet",
    "4.91701E+11": "spreadsheet shortened",
    "4,91701E+11": "spreadsheet shortened",
    "4.91701234567e11": "spreadsheet shortened",
    "491,701,234,567": "spreadsheet",
    "+49 30 123456/123457": "two phone numbers",
    "+4930123456; +4930123457": "two phone numbers",
    "+4930123456, +4930123457": "two phone numbers",
    "+4930123456 oder +4930123457": "two phone numbers",
    "+4930123456 or +4930123457": "two phone numbers",
    "+4930123456\n+4930123457": "two phone numbers",
    "+49 30 123456/57": "two phone numbers",
    "+49 0049 170 1234567": "country code is there twice",
    "+49 +49170 1234567": "country code is there twice",
    "+49 49 170 1234567": "country code is there twice",
    "+0049 170 1234567": "country code is there twice",
    "+44 44 7700 900123": "country code is there twice",
    "+91 091 98765 43210": "country code is there twice",
    "+91 (0)91 98765 43210": "country code is there twice",
    "+49 049 170 1234567": "country code is there twice",
    "+49 (0)49 170 1234567": "country code is there twice",
    "+62 062 812 3456 7890": "country code is there twice",
    "+92 092 300 1234567": "country code is there twice",
    "+90 090 532 123 45 67": "country code is there twice",
    "+447700900123+447700900124": "two phone numbers",
    "+44 7700 900123 +44 7700 900124": "two phone numbers",
    "n/a": "no letters",
    "https://wa.me/447700900123": "no letters",
    "+44 7700 900123 x123": "extension",
    "+44 7700 900123 ext. 5": "extension",
    "+447700900123;ext=5": "extension",
    "+49 30 123456 Durchwahl 7": "extension",
    "+44 7700 900123#5": "extension",
    "+1-800-FLOWERS": "no letters",
    "+447700900123 (work)": "no letters",
    "+4477009001234567": "too long",
    "+1555": "too short",
    "+999123456789": "country code",
    "+44 7700 900123\u00b2": "not a phone number",
    "07700 900123": "with its country code",
    "491701234567": "with its country code",
    "+" * 2000: "too long",
}
NATIONAL: Final = {
    ("030/123456", "DE"): "+4930123456",
    ("0170 1234567", "DE"): "+491701234567",
    ("0044 7700 900123", "US"): "+447700900123",
    ("044 55 1234 5678", "MX"): "+525512345678",
    ("011 15 2345 6789", "AR"): "+5491123456789",
    ("\uff10\uff13\u30fc\uff11\uff12\uff13\uff14\u30fc\uff15\uff16\uff17\uff18", "JP"): "+81312345678",
    ("030 123456/123457", "DE"): None,
    ("491701234567.0", "DE"): None,
    ("4.91701E+11", "DE"): None,
    ("491701234567", "DE"): None,
    ("0011 64 21 123 456", "AU"): None,
}

EMAILS: Final = {
    "Bob@Home.Example": "bob@home.example",
    "mailto:bob@home.example": "bob@home.example",
    "MAILTO:bob%2Bx@home.example": "bob+x@home.example",
    "mailto://bob@home.example": "bob@home.example",
    "<bob@home.example>": "bob@home.example",
    "bob@home.example.": "bob@home.example",
    "bob@home.example,": "bob@home.example",
    "\u200bbob@home.example\u200b": "bob@home.example",
    "\u2068bob@home.example\u2069\u00a0": "bob@home.example",
    "bob\uff20home\uff0eexample": "bob@home.example",
    "bob\u00ad@home.example": "bob@home.example",
    "bob@b\u00fccher.example": "bob@xn--bcher-kva.example",
    "bob@bu\u0308cher.example": "bob@xn--bcher-kva.example",
    "bob@XN--BCHER-KVA.example": "bob@xn--bcher-kva.example",
    "bob@stra\u00dfe.example": "bob@xn--strae-oqa.example",
    "bob@printer.local": "bob@printer.local",
    "bob@nas.lan": "bob@nas.lan",
    "bob@hr.corp": "bob@hr.corp",
    "bob@x.internal": "bob@x.internal",
    "bob@box.home.arpa": "bob@box.home.arpa",
    "bob@acme.test": "bob@acme.test",
}
NO_EMAILS: Final = {
    "Bob <bob@home.example>": "without the name",
    "a@home.example; b@home.example": "two email addresses",
    "a@home.example,b@home.example": "two email addresses",
    "a@home.example or b@home.example": "two email addresses",
    "mailto:bob@home.example?subject=hi": "question mark",
    "mailto:bob@home.example%0d%0aBcc:x": "not an email",
    "bob@home.example\nBcc:x": "not an email",
    "bob at home.example": "not an email",
    "bob@": "not an email",
    "bob@8.8.8.arpa": "not an email",
    "bob@localhost": "not an email",
}

NAMES: Final = {
    "  Acme\u00a0Water ": "Acme Water",
    "\ufeffAcme\u200b": "Acme",
    "\u202eAcme\u202c": "Acme",
    "\uff21\uff43\uff4d\uff45\u3000Co": "Acme Co",
    "\uff76\uff9e": "\u30ac",
    "Mu\u0308ller": "M\u00fcller",
    "Smith\u2011Jones": "Smith-Jones",
    "O\ufb03ce": "Office",
    "A\u200dcme": "Acme",
    # What is meant stays.
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645": "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    "\u0d15\u0d4d\u200d": "\u0d15\u0d4d\u200d",
    "\U0001f469\u200d\U0001f4bb": "\U0001f469\u200d\U0001f4bb",
    "\u2764\ufe0f\u200d\U0001f525": "\u2764\ufe0f\u200d\U0001f525",
    "O\u00b4Brien": "O\u00b4Brien",
    "H\u00b2O\u2122": "H\u00b2O\u2122",
    "M\u00fcller \u2013 S\u00f6hne": "M\u00fcller \u2013 S\u00f6hne",
    "'t Hooft": "'t Hooft",
    "\u0661\u0662 Street": "\u0661\u0662 Street",
}
NO_NAMES: Final = (
    "",
    "\u200b",
    "\u3164",
    "\u2800",
    "\u0301",
    "\u115f\u1160",
    "\uffa0",
    "\u200d\u200c",
    "\u00a0 \u3000",
    "\ufe0f",
)


def reason(call: Callable[[], object]) -> str:
    with pytest.raises(InvalidRequest) as refusal:
        call()
    return refusal.value.errors[0].detail


@pytest.mark.parametrize("written", CODES)
def test_a_code_is_what_was_meant(written: str) -> None:
    assert codes.clean(written) == CODES[written]


@pytest.mark.parametrize("written", BACKUP_CODES)
def test_a_backup_code_is_what_was_meant(written: str) -> None:
    assert backup_codes.read_code(written, "/backup_code") == BACKUP_CODES[written]


@pytest.mark.parametrize("written", NO_CODES)
def test_what_is_no_code_is_refused(written: str) -> None:
    assert reason(lambda: codes.clean(written)) == "The code is 6 to 10 digits."


@pytest.mark.parametrize("written", PHONES)
def test_a_number_is_what_was_meant(written: str) -> None:
    assert (normalise_phone(written), read_identifier(written)[1]) == (PHONES[written], PHONES[written])


@pytest.mark.parametrize("written", NO_PHONES)
def test_no_part_of_a_number_is_guessed(written: str) -> None:
    assert NO_PHONES[written] in reason(lambda: normalise_phone(written))
    assert NO_PHONES[written] in reason(lambda: read_identifier(written))


@pytest.mark.parametrize(("written", "region"), NATIONAL)
def test_a_number_inside_a_country(written: str, region: str) -> None:
    meant = NATIONAL[written, region]
    if meant is None:
        assert reason(lambda: normalise_phone(written, region=region)) != "This is not a phone number."
    else:
        assert normalise_phone(written, region=region) == meant


@pytest.mark.parametrize("written", EMAILS)
def test_an_address_is_what_was_meant(written: str) -> None:
    assert (normalise_email(written), read_identifier(written)[0]) == (EMAILS[written], EMAILS[written])


@pytest.mark.parametrize("written", NO_EMAILS)
def test_no_part_of_an_address_is_thrown_away(written: str) -> None:
    assert NO_EMAILS[written] in reason(lambda: normalise_email(written))


@pytest.mark.parametrize("written", NAMES)
def test_a_name_is_what_was_meant(written: str) -> None:
    assert check_name(written) == NAMES[written]


@pytest.mark.parametrize("written", NO_NAMES)
def test_a_name_that_shows_nothing_is_refused(written: str) -> None:
    assert reason(lambda: check_name(written)).startswith("A name has ")


@pytest.mark.parametrize(
    ("zone", "region"),
    [
        ("Asia/Calcutta", "IN"),
        ("Europe/Kiev", "UA"),
        ("US/Pacific", "US"),
        ("GB", "GB"),
        ("Asia/Saigon", "VN"),
        ("Asia/Katmandu", "NP"),
        ("Africa/Asmera", "ER"),
        ("Brazil/East", "BR"),
        ("Japan", "JP"),
        ("America/Buenos_Aires", "AR"),
        ("UTC", None),
    ],
)
def test_an_alias_of_a_zone_has_its_country(zone: str, region: str | None) -> None:
    assert region_of("en", zone) == region


@pytest.mark.parametrize("domain", ["x.local", "x.lan", "x.internal", "x.corp", "x.home.arpa", "x.intranet", "x.home"])
def test_a_setting_closes_internal_domains(domain: str) -> None:
    accept_internal_domains(False)
    try:
        assert "internal domains" in reason(lambda: normalise_email(f"bob@{domain}"))
        assert normalise_email("bob@acme.test") == "bob@acme.test"
    finally:
        accept_internal_domains(True)
    assert normalise_email(f"bob@{domain}") == f"bob@{domain}"


# --- for any text

PASTED: Final = st.text(
    st.sampled_from(
        "+0123456789 ()./-;,@<>'x\u200b\u200d\u202a\u00a0\u2011\uff11\u0661\u00b2\u00fcA\u0301\ufb03\u3164=\t\n"
    )
    | st.characters(),
    max_size=40,
)


@given(PASTED)
def test_cleaning_twice_changes_nothing(text: str) -> None:
    assert cleaning.plain(cleaning.plain(text)) == cleaning.plain(text)
    assert cleaning.name(cleaning.name(text)) == cleaning.name(text)


@given(PASTED, st.sampled_from([None, "DE", "US", "AR", "BR", "MX", "IT", "CI", "AU", "JP"]))
def test_a_contact_is_read_or_refused(text: str, region: str | None) -> None:
    """Never another error; and what is stored is found again by what is stored."""
    for read in (normalise_email, check_name, codes.clean, lambda value: normalise_phone(value, region=region)):
        try:
            once = read(text)
        except InvalidRequest:
            continue
        assert read(once) == once
    Needles.of(text)


@given(st.from_regex(r"\+(54|55|52|39|225|229|44|49|1)[0-9]{4,12}", fullmatch=True))
def test_a_number_has_one_form(text: str) -> None:
    try:
        once = normalise_phone(text)
    except InvalidRequest:
        return
    assert normalise_phone(once) == normalise_phone(f"tel:{once}") == normalise_phone(f"00{once[1:]}") == once


# --- files

HEAD: Final = "slug,name,email,phone_number\n"
ROW: Final = "acme,Acme,a@home.example,+447700900123"
SHEETS: Final = {
    "plain": (HEAD + ROW).encode(),
    "BOM": (HEAD + ROW).encode("utf-8-sig"),
    "semicolons": (HEAD + ROW).replace(",", ";").encode(),
    "tabs": (HEAD + ROW).replace(",", "\t").encode(),
    "sep line": b"sep=;\r\n" + (HEAD + ROW).replace(",", ";").encode(),
    "quoted sep line with BOM": '"sep=;"\r\n'.encode("utf-8-sig") + (HEAD + ROW).replace(",", ";").encode(),
    "UTF-16": (HEAD + ROW).replace(",", "\t").encode("utf-16"),
    "UTF-16 BE": "\ufeff".encode("utf-16-be") + (HEAD + ROW).encode("utf-16-be"),
    "UTF-16 without BOM": (HEAD + ROW).encode("utf-16-le"),
    "UTF-16 BE without BOM": (HEAD + ROW).encode("utf-16-be"),
    "header in any case": (HEAD.replace("phone_number", " Phone Number ").replace("slug", "SLUG") + ROW).encode(),
    "empty columns": (HEAD.replace("\n", ",,,\n") + ROW + ",,").encode(),
    "blank lines": ("\n\n" + HEAD + "\n,,,\n  \n" + ROW + "\r\n\r\n").encode(),
    "old Mac": (HEAD + ROW).replace("\n", "\r").encode(),
    "protected": (HEAD + ROW.replace("+44", "'+44")).encode(),
    "all quoted": "\r\n".join(
        ",".join(f'"{cell}"' for cell in line.split(",")) for line in (HEAD + ROW).split("\n")
    ).encode(),
}


@pytest.mark.parametrize("name", SHEETS)
def test_a_file_as_spreadsheets_write_it(name: str) -> None:
    """For tenants and members alike."""
    [tenant] = read_csv(SHEETS[name])
    assert (dict(tenant.values), list(tenant.faults)) == (
        {"slug": "acme", "name": "Acme", "email": "a@home.example", "phone_number": "+447700900123"},
        [],
    )
    sheet = sheets.read(SHEETS[name])
    assert list(sheet.names) == ["slug", "name", "email", "phone_number"]
    assert len(list(sheet.rows)) == 1


@pytest.mark.parametrize(
    ("text", "doubtful"),
    [
        ("M\u00c3\u00bcller", True),
        ("Caf\u00c3\u00a9", True),
        ("M\ufffdller", True),
        ("\u00e2\u20ac\u201cAcme", True),
        ("M\u221a\u00baller", True),
        ("M\u251c\u255dller", True),
        ("\u00d0\u0178\u00d1\u20ac\u00d0\u00b8\u00d0\u00b2\u00d0\u00b5\u00d1\u201a", True),
        ("M\u00fcller", False),
        ("NESCAF\u00c9\u00ae", False),
        ("\u00ab\u00c9cole\u00bb", False),
        ("L\u2019\u00e9cole", False),
        ("\u201c\u00d6l\u201d", False),
        ("\u041f\u0440\u0438\u0432\u0435\u0442", False),
        ("\u6771\u4eac", False),
    ],
)
def test_text_that_was_decoded_wrongly_is_asked_about(text: str, doubtful: bool) -> None:
    """A fault beside its cell, unless somebody says that it is right."""
    tenants, members = f"slug,name\nacme,{text}\n".encode(), f"name,email\n{text},a@home.example\n".encode()
    for read, body in ((read_csv, tenants), (read_members, members)):
        [row] = read(body)
        assert [fault.field for fault in row.faults] == (["name"] if doubtful else [])
        [row] = read(body, as_is=True)
        assert (list(row.faults), row.values["name"]) == ([], text)


NAMED: Final = st.text(
    st.sampled_from("'=+-@;,\"\n x\u00fc\u0661") | st.characters(exclude_categories=["Cs"]), max_size=20
)


@given(NAMED, st.sampled_from([None, "a@home.example", "'o@home.example", "=x@home.example"]), st.booleans())
def test_what_goes_out_comes_in_again(name: str, email: str | None, switch: bool) -> None:
    """A leading quote included, for tenants and for members."""
    try:
        name = check_name(name)
    except InvalidRequest:
        return
    now = Clock()()
    tenant = Tenant(id=UUID(int=1), slug="acme", name=name, email=email, created_at=now, updated_at=now)
    [row] = read_csv(sheets.BOM + csv_head() + as_csv([tenant]), as_is=True)
    assert (row.values["name"], row.values.get("email"), list(row.faults)) == (name, email, [])
    member = Member(
        tenant_id=UUID(int=1),
        id=UUID(int=2),
        name=name,
        email=email,
        codes_enabled=switch,
        created_at=now,
        updated_at=now,
    )
    [back] = read_members(sheets.BOM + members_head() + members_as_csv([member]), as_is=True)
    assert (back.values["name"], back.values["email"] or None, back.values["codes_enabled"]) == (name, email, switch)
    assert not back.faults


@given(
    st.binary(max_size=400)
    | st.text(st.sampled_from("slugname,;\t\"'\n\r\0=\ufeff\u00fc"), max_size=60).map(str.encode)
)
def test_any_file_is_read_or_refused(body: bytes) -> None:
    """Never another error."""
    for read in (read_csv, read_members):
        try:
            list(read(body))
            list(read(b"slug,name\n" + body))
        except InvalidRequest:
            continue


# --- at the doors, on the real database


@dataclass(frozen=True, slots=True)
class Doors:
    """A tenant with a country, and every way in for what somebody pasted; each answers with what is kept."""

    http: Http
    db: Database
    tenants: Tenants
    members: Members
    files: TenantFiles
    tenant: SomeTenant

    async def tenant_created(self, fields: dict[str, Any]) -> Any:
        return await self.tenants.create({**_tenant(), **fields}, actor=BY_HAND, client=SHELL)

    async def tenant_changed(self, fields: dict[str, Any]) -> Any:
        made = await self.tenant_created({})
        return await self.tenants.update(made.slug, fields, actor=BY_HAND, client=SHELL)

    async def tenant_imported(self, fields: dict[str, Any]) -> Any:
        row = {**_tenant(), **fields}
        await self.files.load(read_csv(_as_file(row)), actor=BY_HAND, client=SHELL)
        return await self.tenants.get(row["slug"])

    async def member_created(self, fields: dict[str, Any]) -> Any:
        values = {"name": "Ana", "email": f"{uuid4().hex}@home.example", **fields}
        return await self.members.create(self.tenant.slug, values, actor=BY_HAND, client=SHELL)

    async def member_changed(self, fields: dict[str, Any]) -> Any:
        made = await self.member_created({})
        return await self.members.update(self.tenant.slug, made.id, fields, actor=BY_HAND, client=SHELL)

    async def member_imported(self, fields: dict[str, Any]) -> Any:
        row = {"name": "Ana", "email": f"{uuid4().hex}@home.example", **fields}
        slug = self.tenant.slug
        report = await self.members.import_(slug, _as_file(row), dry_run=False, actor=BY_HAND, client=SHELL)
        if report.faults:
            raise AssertionError(report.faults)
        return await self.members.find(slug, row["email"])


def _tenant() -> dict[str, Any]:
    slug = f"p{uuid4().hex[:12]}"
    return {"slug": slug, "name": "Acme", "email": f"a@{slug}.example"}


def _as_file(row: dict[str, str]) -> bytes:
    out = io.StringIO()
    csv.writer(out, delimiter=";").writerows([[name.upper() for name in row], list(row.values())])
    return out.getvalue().encode("utf-16")


@pytest.fixture
async def doors(http: Http, db: Database, settings: Settings, clock: Clock) -> Doors:
    settings = replace(settings, sms_enabled=True)
    tenant = await add_tenant(db, clock())
    return Doors(
        http,
        db,
        Tenants(db, settings, clock),
        Members(db, settings, clock),
        TenantFiles(db, settings, clock),
        tenant,
    )


WAYS: Final = (
    "tenant_created",
    "tenant_changed",
    "tenant_imported",
    "member_created",
    "member_changed",
    "member_imported",
)


@pytest.mark.parametrize("way", WAYS)
async def test_every_way_in_stores_what_was_meant(doors: Doors, way: str) -> None:
    """One cleaning step: the same text is kept alike, whichever way it came."""
    put: Callable[[dict[str, Any]], Awaitable[Any]] = getattr(doors, way)
    for field, written, meant in (
        ("name", "\u202bAcme\u202c\u00a0Water", "Acme Water"),
        ("email", "<bob@b\u00fccher.example>", "bob@xn--bcher-kva.example"),
        ("phone_number", "\u202atel:+54 11 2345-6789\u202c", "+5491123456789"),
    ):
        assert getattr(await put({field: written}), field) == meant


async def test_a_person_is_found_however_they_are_written(doors: Doors) -> None:
    """By search and look-up, in a tenant and among tenants; whoever may not see contacts finds no contact."""
    slug = doors.tenant.slug
    fields = {"name": "Zo\u00eb M\u00fcller", "email": "zoe@b\u00fccher.example", "phone_number": "+447700900777"}
    member = await doors.member_created(fields)
    tenant = await doors.tenant_created(fields)
    contacts = (
        "b\u00fccher.example",
        "xn--bcher-kva",
        "zoe@bu\u0308cher",
        "mailto:zoe@b\u00fccher.example",
        "+44 (0)7700 900777",
        "tel:0044 7700 900777",
        "\u202a+44 7700 900777\u202c",
        "\u0667\u0667\u0660\u0660 \u0669\u0660\u0660\u0667\u0667\u0667",
        "07700 900777",
    )
    for words in (*contacts, "zoe\u0308", "M\u00dcLLER", "\uff4d\u00fcller", "\u200bm\u00fcller"):
        found = await doors.members.page(slug, MemberFilters(words, contacts=True))
        assert [one.id for one in found.members] == [member.id], words
        listed = await doors.tenants.list(Filters(search=words, contacts=True), limit=200)
        assert tenant.id in [one.id for one in listed.tenants], words
    for words in contacts:
        assert not (await doors.members.page(slug, MemberFilters(words, contacts=False))).members
    for contact in (
        "ZOE@B\u00dcCHER.example",
        "<zoe@xn--bcher-kva.example>",
        "tel:+44 7700 900777",
        "0044 (0)7700 900777",
    ):
        assert (await doors.members.find(slug, contact)).id == member.id
    with pytest.raises(NotFound):
        await doors.members.find(slug, "+44 7700 900778")


async def test_a_pasted_code_signs_in_and_a_mangled_one_costs_nothing(doors: Doors) -> None:
    """Over HTTP, for a member named in another way than stored; what is no code is 400 and spends no attempt."""
    member = await doors.member_created({"phone_number": "+54 9 11 2345 6780", "email": "ida@home.example"})
    asked = await doors.http.otp(doors.tenant.slug, "request", {"identifier": "mailto:\u200bIDA@home.example"})
    assert (asked.status_code, member.email) == (202, "ida@home.example")
    challenge = asked.json()["challenge_id"]
    for written in NO_CODES[:-1]:
        refused = await doors.http.otp(doors.tenant.slug, "verify", {"challenge_id": challenge, "code": written})
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (400, "/code")
    state = await doors.http.otp(doors.tenant.slug, "status", {"challenge_id": challenge})
    assert state.json()["attempts_left"] == 5
    for written, words in NO_PHONES.items():
        refused = await doors.http.otp(doors.tenant.slug, "request", {"identifier": written})
        assert refused.status_code == 400
        assert re.search(words, refused.json()["errors"][0]["detail"])
