"""Pages on a bad day: three channels, a provider that refuses, a history of many kinds, names of any length."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any, Final
from uuid import UUID, uuid4

import pytest
from playwright.async_api import expect

from app.audit.log import Actor, Client
from app.auth.door import DoorLog
from app.auth.limits import ADDRESS
from app.auth.links import Links
from app.auth.sessions import Sessions
from app.keys import KeyRing
from app.storage.db import Database
from app.web.services import utc_now
from tests.browser.conftest import Site, Window
from tests.browser.test_admin_portal import sign_in
from tests.people import SomeTenant, add_member, add_tenant

OpenWindow = Callable[..., Awaitable[Window]]

FLEET: Final = UUID(int=0)
LONG_PROGRAM: Final = "SomebodysOwnProgramWithoutAnySpaceInItsName/" + "1.2.3-" * 30
IPV6: Final = "2001:db8:85a3:1234:5678:8a2e:370:7334"
REFUSAL: Final = (
    "550 5.1.1 The email account that you tried to reach does not exist. Please try double-checking the recipient's "
    "address for typos or unnecessary spaces. https://support.mail.example/mail/answer/6596-k41mr2ab1c.0-gsmtp"
)
CHANGES: Final = [
    {"field": "email", "before": "a***@home.example", "after": "a***@a-place-of-work-with-a-long-name.example"},
    {"field": "phone_number", "before": None, "after": "+44*****0321"},
]
EVENTS: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("code.requested", {"channel": "whatsapp"}),
    ("code.resent", {"channel": "sms"}),
    ("code.withheld", {"reason": "channel-unavailable"}),
    ("code.wrong", {"attempts_left": 1}),
    ("code.wrong", {"attempts_left": 0}),
    ("factor.wrong", {"attempts_left": 3, "with": "backup_code"}),
    ("factor.enrolled", {}),
    ("session.started", {"kind": "api", "methods": ["pwd"]}),
    ("session.ended", {"reason": "refresh-token-reused"}),
    ("member.changed", {"changes": CHANGES}),
    ("member.suspended", {}),
    ("member.resumed", {}),
    ("consent.withdrawn", {}),
    ("password.wrong", {}),
)


@pytest.fixture
async def busy(db: Database) -> AsyncIterator[tuple[SomeTenant, UUID]]:
    """A tenant whose mail is refused, a member with a history, and a fleet with codes by three channels."""
    now = utc_now()
    hour = now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=2)
    tenant = await add_tenant(db, now - timedelta(days=2), name="Northwind Energy and Water of the Lower Valley")
    member = await add_member(db, now, tenant, name="Ana-Sofia " * 6 + "Silva", email="ana@home.example")
    async with db.every_tenant() as connection:
        for n, channel in enumerate(("", "email", "sms", "whatsapp")):
            counts = (
                [0] * 5
                if channel == ""
                else [1_204_518 // 9**n, 1_203_001 // 9**n, 31 * n, 1_517 // n, 998_401 // 9**n]
            )
            await connection.execute(
                "INSERT INTO channel_hours (tenant_id, hour, channel, requested, sent, delivered, failed, verified)"
                " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
                # Another page may have been here, and have counted this hour.
                " ON CONFLICT (tenant_id, hour, channel) DO UPDATE SET (requested, sent, delivered, failed, verified)"
                " = ROW (excluded.requested, excluded.sent, excluded.delivered, excluded.failed, excluded.verified)",
                *(FLEET, hour, channel, *counts),
            )
        for n, (action, data) in enumerate(EVENTS * 2):
            for kind, subject in (("member", member), ("tenant", tenant.id)):
                await connection.execute(
                    "INSERT INTO audit_events (tenant_id, at, action, actor_kind, subject_kind, subject_id, source, ip,"
                    " user_agent, data) VALUES ($1, $2, $3, 'anonymous', $4, $5, 'api', $6, $7, $8)",
                    *(tenant.id, now - timedelta(minutes=97 * n), action, kind, subject, IPV6, LONG_PROGRAM, data),
                )
        outbox, challenge = uuid4(), uuid4()
        for n, state in enumerate(("failed", "queued")):
            await connection.execute(
                "INSERT INTO delivery_events (tenant_id, at, outbox_id, challenge_id, kind, channel, state, provider,"
                " error_class, error_text) VALUES ($1, $2, $3, $4, 'code', 'email', $5, 'smtp', $6, $7)",
                *(tenant.id, now - timedelta(seconds=3 + n), outbox, challenge, state),
                *(("recipient", REFUSAL) if state == "failed" else (None, None)),
            )
    yield tenant, member
    async with db.every_tenant() as connection:
        await connection.execute("DELETE FROM channel_hours WHERE tenant_id = $1 AND hour = $2", FLEET, hour)


async def test_staff_on_a_bad_day(
    db: Database, site: Site, open_window: OpenWindow, busy: tuple[SomeTenant, UUID]
) -> None:
    """Home tells the channels apart; the timeline says what to do about the refusal, with the provider's own words."""
    tenant, member = busy
    window = await open_window()
    await sign_in(db, site, window)
    await window.open("/admin")
    said = await window.says()
    assert "1,204,518" not in said, "of a period, all channels are one sum"
    for channel in ("Email", "SMS", "WhatsApp"):
        await expect(window.page.locator("th.part", has_text=channel).first).to_be_visible()
    await window.check("busy-home")
    await window.open(f"/admin/tenants/{tenant.slug}/timeline")
    await expect(window.page.get_by_text("5.1.1")).to_be_visible()
    await window.check("busy-timeline")
    await window.open(f"/admin/tenants/{tenant.slug}")
    await window.check("busy-tenant")
    await window.open(f"/admin/tenants/{tenant.slug}/members/{member}")
    await window.check("busy-member")


@pytest.mark.parametrize("width", [320, 768])
async def test_refusals_on_a_small_screen(db: Database, site: Site, open_window: OpenWindow, width: int) -> None:
    """Each value stands in a line of its own behind the name of its column, and an address is not broken up."""
    log = DoorLog(db, utc_now)
    log.refused(ADDRESS, "203.0.113.177", "nobody-here")
    await log.write()
    window = await open_window(width=width)
    await sign_in(db, site, window)
    await window.open("/admin/refusals?tenant=nobody-here")
    row = window.page.locator("tbody tr").first
    boxes = [await cell.bounding_box() for cell in await row.locator("td").all()]
    assert len({box["x"] for box in boxes if box}) == 1
    assert all(box["width"] > 0.8 * width for box in boxes if box)
    network = await row.get_by_text("203.0.113.177").bounding_box()
    assert network
    assert network["height"] < 30
    named = [
        await row.get_by_text(text).bounding_box() for text in ("nobody-here", "nobody\N{RIGHT SINGLE QUOTATION MARK}s")
    ]
    assert len({round(box["y"]) for box in named if box}) == 1
    await window.check("refusals")


async def test_a_member_with_a_past(
    db: Database, site: Site, open_window: OpenWindow, ring: KeyRing, busy: tuple[SomeTenant, UUID]
) -> None:
    """Every event is a sentence, and a program or an address of any length stays on the screen."""
    tenant, member = busy
    sessions = Sessions(db, ring, site.settings, utc_now)
    for _ in range(3):
        token = await Links(db, sessions, utc_now).create(
            tenant.id, ("member", member), Actor("operator"), Client("cli")
        )
        await Links(db, sessions, utc_now).use(token, Client("page", IPV6, LONG_PROGRAM))
    async with db.every_tenant() as connection:
        await connection.execute(
            "UPDATE devices SET remembered_at = $2 WHERE tenant_id = $1 AND id = (SELECT id FROM devices "
            "WHERE tenant_id = $1 LIMIT 1)",
            *(tenant.id, utc_now()),
        )
        await connection.execute(
            """UPDATE tenants SET policy = policy || '{"remember_device_days": 30}' WHERE id = $1""", tenant.id
        )
    link = await Links(db, sessions, utc_now).create(tenant.id, ("member", member), Actor("operator"), Client("cli"))
    window = await open_window()
    await window.open(f"/t/{tenant.slug}/link/{link}")
    await window.press("Sign in")
    said = await window.says()
    for sentence in (
        "Your email address and phone number were changed",
        "Wrong code, the last try",
        "A session was ended for safety: its token was used twice",
        "remembered until",
    ):
        assert sentence in said
    await window.check("busy-dashboard")
    await window.press("Forget all")
    await expect(window.page.get_by_role("status").first).to_contain_text("Your devices are forgotten.")
    await window.open(f"/t/{tenant.slug}/password")
    await window.check("busy-password")
