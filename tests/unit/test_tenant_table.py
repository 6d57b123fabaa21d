"""Tenants as CSV and JSON Lines: what is read, what is refused, and that nothing is lost on the way out and in."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidRequest, PayloadTooLarge
from app.sheets import SIZE_LIMIT
from app.tenants.model import Tenant
from app.tenants.table import FIELDS, as_csv, as_json_lines, csv_head, read_csv, read_json_lines

NOW = datetime(2026, 3, 14, 9, 26, 53, tzinfo=UTC)


def tenant(**fields: Any) -> Tenant:
    values: dict[str, Any] = {"id": UUID(int=1), "slug": "acme", "name": "Acme", "created_at": NOW, "updated_at": NOW}
    values.update(fields)
    return Tenant(**values)


def test_a_row_has_what_its_cells_say() -> None:
    """Lists and policies are read from words; empty cells are told apart from columns that aren't there."""
    head = "slug,name,email,fallback_methods,policy,version"
    [row] = read_csv(f"{head}\r\nacme,Acme,,sms; whatsapp,max_attempts=3 registration=open,7\r\n".encode())
    assert row.values == {
        "slug": "acme",
        "name": "Acme",
        "fallback_methods": ["sms", "whatsapp"],
        "policy": {"max_attempts": 3, "registration": "open"},
    }
    assert (row.number, set(row.cleared), row.version, list(row.faults)) == (2, {"email"}, 7, [])


@pytest.mark.parametrize(
    "text",
    [
        "slug;name\nacme;Acme, Water\n",
        "slug\tname\nacme\tAcme, Water",
        '\ufeffslug,name\r\nacme,"Acme, Water"\r\n\r\n',
        'slug, name ,updated_at\nacme,"Acme, Water",yesterday\n',
    ],
)
def test_spreadsheets_write_csv_in_many_ways(text: str) -> None:
    """Semicolons, tabs, a byte order mark, empty lines, columns of an export that can't be set."""
    [row] = read_csv(text.encode())
    assert row.values == {"slug": "acme", "name": "Acme, Water"}
    assert not row.faults


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b"", "/1"),
        (b"name,email\n", "/1"),
        (b"slug,surprise\n", "/1/surprise"),
        (b"slug,name,name\n", "/1/name"),
        ("slug,name\nacme,Müller".encode("latin-1"), ""),
        (b'slug,name\nacme,"Ac"me\n', "/2"),
        (b'slug,name\nacme,"never closed\n', "/2"),
    ],
)
def test_what_is_no_such_file_is_refused_as_a_whole(body: bytes, pointer: str) -> None:
    """With the row where reading ended."""
    with pytest.raises(InvalidRequest) as error:
        list(read_csv(body))
    assert [fault.pointer for fault in error.value.errors] == [pointer]


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ("acme", ""),
        ("acme,Acme,1,2", ""),
        ("acme,nonsense,", "policy"),
        ("acme,max_attempts=99,", "policy.max_attempts"),
        ("acme,,seven", "version"),
    ],
)
def test_a_row_that_cannot_be_read_is_a_fault_of_that_row(row: str, field: str) -> None:
    """The other rows are read all the same."""
    first, second = read_csv(f"slug,policy,version\n{row}\nbeta,,\n".encode())
    assert [(fault.row, fault.field) for fault in first.faults] == [(2, field)]
    assert (second.number, list(second.faults)) == (3, [])


def test_too_large_a_file_is_not_even_decoded() -> None:
    """10 MiB and not a byte more."""
    with pytest.raises(PayloadTooLarge):
        next(read_csv(b"x" * (SIZE_LIMIT + 1)))


def test_json_lines_are_objects_or_faults() -> None:
    """Anything else in a line is a fault of that line; types are left to the rules."""
    lines = ['{"slug": "acme", "email": null, "version": 3}', "", "[1]", "{", '{"version": "3"}', "[" * 5000]
    rows = list(read_json_lines("\n".join(lines).encode()))
    assert [(row.number, [fault.field for fault in row.faults]) for row in rows] == [
        (1, []), (3, [""]), (4, [""]), (5, ["version"]), (6, [""]),
    ]  # fmt: skip
    assert (rows[0].values, rows[0].version) == ({"slug": "acme", "email": None}, 3)


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@x", "'=1", "''@", "\t=1", "\r=1"])
def test_no_cell_is_a_formula(name: str) -> None:
    """Spreadsheets would run it (CWE-1236)."""
    line = as_csv([tenant(name=name)]).decode()
    assert "'" + name in line


@given(
    name=st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1).map(str.strip).filter(bool),
    email=st.none() | st.just("a@x.example"),
    fallback=st.lists(st.sampled_from(["sms", "whatsapp", "push"]), unique=True),
    policy=st.dictionaries(st.sampled_from(["max_attempts", "hourly_limit"]), st.integers(1, 5)),
    required=st.booleans(),
)
def test_what_goes_out_comes_in_again(
    name: str, email: str | None, fallback: list[str], policy: dict[str, int], required: bool
) -> None:
    """Every field, in both forms, whatever the name is made of."""
    full = {**policy, "require_contact": required}
    out = tenant(name=name, email=email, fallback_methods=tuple(fallback), policy=full)
    [from_csv] = read_csv(csv_head() + as_csv([out]))
    [from_json] = read_json_lines(as_json_lines([out]))
    expected = {key: value for key, value in json.loads(as_json_lines([out])).items() if key in FIELDS[:-3]}
    assert from_json.values == expected
    assert from_csv.values == {key: value for key, value in expected.items() if value not in (None, [], {})}
    assert (from_csv.version, from_json.version) == (1, 1)
    assert from_csv.cleared >= {key for key, value in expected.items() if value in (None, [], {})}
