"""Whoever is invited is told, in their language and once: by the service, the admin API and the command line."""

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from app.audit.log import Actor, Client
from app.delivery.message import Message
from app.delivery.outbox import Outbox
from app.delivery.render import Renderer
from app.errors import AlreadyExists, ChannelUnavailable, Forbidden, NotFound, RateLimited, TenantSuspended
from app.members.model import Member
from app.members.service import Members
from app.settings import Settings
from app.storage.db import Database
from tests.adminapi import admin_api
from tests.conftest import Clock
from tests.contracts.test_cli import Shell, environment, gatehouse, slug
from tests.http import serve
from tests.people import SomeTenant, add_tenant, count

__all__ = ["environment", "gatehouse", "slug"]

BY_HAND, SHELL = Actor("operator"), Client("cli")
RENDERER = Renderer("https://login.example/")


@dataclass(slots=True)
class Desk:
    """Somebody who invites people, and the eyes of their mailbox."""

    members: Members
    tenant: SomeTenant
    db: Database
    clock: Clock
    woken: int = 0

    async def add(self, **fields: Any) -> Member:
        values = {"name": "Ana", "status": "pending", **fields}
        return await self.members.create(self.tenant.slug, values, actor=BY_HAND, client=SHELL)

    async def invite(self, member: UUID) -> str:
        return (await self.members.invite(self.tenant.slug, member, actor=BY_HAND, client=SHELL)).channel

    async def policy(self, registration: str, status: str = "active") -> None:
        async with self.db.every_tenant() as connection:
            await connection.execute(
                "UPDATE tenants SET policy = policy || jsonb_build_object('registration', $2::text), status = $3 "
                "WHERE id = $1",
                self.tenant.id,
                registration,
                status,
            )

    async def mails(self) -> list[Message]:
        """What a worker would send now; taken, so that the next look finds what is new."""
        rows = await Outbox(self.db, "eyes").claim(self.clock(), limit=1000, lease=timedelta(minutes=1), max_tries=5)
        return [RENDERER.render(row, None, self.clock()) for row in rows if row.tenant_id == self.tenant.id]

    async def audited(self) -> int:
        sql = "SELECT count(*) FROM audit_events WHERE tenant_id = $1 AND action = 'member.invited'"
        return await count(self.db, sql, self.tenant.id)


@pytest.fixture
async def desk(settings: Settings, clock: Clock, db: Database) -> Desk:
    both = replace(settings, sms_enabled=True, sms_provider=("console",))
    tenant = await add_tenant(db, clock(), name="Stadtwerke", policy={"registration": "invite"})
    async with db.every_tenant() as connection:
        await connection.execute("DELETE FROM outbox")
    made = Desk(Members(db, both, clock, lambda: setattr(made, "woken", made.woken + 1)), tenant, db, clock)
    return made


async def test_who_is_added_as_pending_gets_a_message(desk: Desk) -> None:
    """From the tenant, in the person's language, with the link and no address in it; the worker is woken."""
    await desk.add(email="ana@home.example", locale="de")
    (mail,) = await desk.mails()
    url = f"https://login.example/t/{desk.tenant.slug}/register"
    assert (mail.to, mail.channel, mail.locale) == ("ana@home.example", "email", "de")
    assert mail.subject == "Stadtwerke lädt Sie zur Registrierung ein"
    assert f"Jetzt registrieren:\n{url}\n" in mail.text
    assert f'href="{url}"' in (mail.html or "")
    assert "ana" not in mail.text
    assert (desk.woken, await desk.audited()) == (1, 1)


@pytest.mark.parametrize(
    ("fields", "channel"),
    [
        ({"phone_number": "+447700900123"}, "sms"),
        ({"email": "ana@home.example", "phone_number": "+447700900123"}, "email"),
        ({"email": "ana@home.example", "phone_number": "+447700900123", "preferred_method": "sms"}, "sms"),
    ],
)
async def test_one_message_by_what_they_prefer(desk: Desk, fields: dict[str, str], channel: str) -> None:
    """Email, unless they prefer the phone or have nothing else; never both."""
    await desk.add(**fields)
    (mail,) = await desk.mails()
    assert mail.channel == channel
    assert f"/t/{desk.tenant.slug}/register" in mail.text


@pytest.mark.parametrize("registration", ["closed", "invite", "open"])
@pytest.mark.parametrize("status", ["active", "suspended"])
async def test_nobody_is_invited_to_a_shut_door(desk: Desk, registration: str, status: str) -> None:
    """A link that leads nowhere isn't sent, and whoever asks for it learns why; nor is one to who needs none."""
    await desk.policy(registration, status)
    invited = await desk.add(email="ana@home.example")
    present = await desk.add(email="bo@home.example", status="active")
    works = registration != "closed" and status == "active"
    assert len(await desk.mails()) == await desk.audited() == works
    desk.clock.forward(minutes=1)
    if works:
        assert await desk.invite(invited.id) == "email"
    else:
        with pytest.raises(TenantSuspended if status == "suspended" else Forbidden):
            await desk.invite(invited.id)
    with pytest.raises(AlreadyExists):
        await desk.invite(present.id)
    with pytest.raises(NotFound):
        await desk.invite(UUID(int=7))


async def test_once_a_minute(desk: Desk) -> None:
    """However often it is asked for; the refusal says how long to wait, and each message is in the log."""
    ana = await desk.add(email="ana@home.example")
    desk.clock.forward(seconds=18)
    with pytest.raises(RateLimited) as refusal:
        await desk.invite(ana.id)
    assert refusal.value.retry_after == 42
    desk.clock.forward(seconds=42)
    assert await desk.invite(ana.id) == "email"
    with pytest.raises(RateLimited):
        await desk.invite(ana.id)
    assert (len(await desk.mails()), await desk.audited(), desk.woken) == (2, 2, 2)


async def test_without_a_channel_somebody_is_told(desk: Desk, settings: Settings) -> None:
    """A number where no SMS goes out: the member is there, nothing is sent, and asking for it says so."""
    deaf = Members(desk.db, settings, desk.clock)
    values = {"name": "Ana", "status": "pending", "phone_number": "+447700900123"}
    ana = await deaf.create(desk.tenant.slug, values, actor=BY_HAND, client=SHELL)
    assert await desk.audited() == 0
    with pytest.raises(ChannelUnavailable):
        await deaf.invite(desk.tenant.slug, ana.id, actor=BY_HAND, client=SHELL)


async def test_an_import_invites(desk: Desk) -> None:
    """Its new pending members, not those it finds; and nobody when it only tries."""
    body = b"name,email,status\nAna,ana@home.example,pending\nBo,bo@home.example,active\n"
    for dry_run, mails in ((True, 0), (False, 1), (False, 0)):
        await desk.members.import_(desk.tenant.slug, body, dry_run=dry_run, actor=BY_HAND, client=SHELL)
        assert len(await desk.mails()) == mails


async def test_the_admin_api_invites_again(desk: Desk, settings: Settings) -> None:
    """Managers may; the answer names the channel, and no address."""
    async with serve(settings, desk.clock) as http:
        manager, viewer = [await admin_api(http, desk.db, desk.clock, role) for role in ("manager", "viewer")]
        members = f"/tenants/{desk.tenant.slug}/members"
        added = await manager("POST", members, json={"name": "Ana", "email": "ana@home.example", "status": "pending"})
        path = f"{members}/{added.json()['id']}/invite"
        assert (await viewer("POST", path)).status_code == 403
        early = await manager("POST", path)
        assert (early.status_code, early.json()["code"], early.headers["retry-after"]) == (429, "rate-limited", "60")
        desk.clock.forward(minutes=1)
        again = await manager("POST", path)
        assert (again.status_code, again.json()) == (202, {"channel": "email"})
    assert len(await desk.mails()) == 2


def test_the_command_line_invites_again(gatehouse: Shell, slug: str) -> None:
    """By address or id; a refusal is one line."""
    assert gatehouse("tenant", "add", slug, "--name", "Acme", "--email", "o@acme.example").returncode == 0
    added = gatehouse.json("member", "add", slug, "--name", "Ana", "--email", "ana@home.example", "--status", "pending")
    assert added["status"] == "pending"
    refused = gatehouse("member", "invite", slug, "ana@home.example")
    assert (refused.returncode, len(refused.stderr.splitlines())) == (1, 1)
    assert "Registration is closed" in refused.stderr
    gatehouse("tenant", "set", slug, "--policy", "registration=invite")
    assert gatehouse("member", "invite", slug, added["id"]).stdout == "The invitation goes out by email.\n"
    assert "just been sent" in gatehouse("member", "invite", slug, added["id"]).stderr
