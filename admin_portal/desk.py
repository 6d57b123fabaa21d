"""What admins work with, beside the services both portals share: one a process, wired from those."""

from dataclasses import dataclass
from typing import cast

from app.audit.overview import Overview
from app.audit.stats import Stats
from app.audit.timeline import Timeline
from app.auth.admin_sessions import AdminSessions
from app.auth.links import Links
from app.auth.member_sessions import MemberSessions
from app.auth.tenant_sessions import TenantSessions
from app.auth.unlocking import Unlocking
from app.members.service import Members
from app.tenants.service import Tenants
from app.web.services import AnyRequest, Services


@dataclass(frozen=True, slots=True)
class Desk:
    """The core as the admin portal calls it."""

    tenants: Tenants
    members: Members
    tenant_sessions: TenantSessions
    member_sessions: MemberSessions
    admin_sessions: AdminSessions
    unlocking: Unlocking
    links: Links
    timeline: Timeline
    overview: Overview
    stats: Stats

    @classmethod
    def of(cls, core: Services) -> "Desk":
        """Wires everything; connects to nothing."""
        return cls(
            Tenants(core.db, core.settings, core.clock, core.wakeup),
            Members(core.db, core.settings, core.clock, core.wakeup),
            TenantSessions(core.db, core.clock),
            MemberSessions(core.db, core.clock),
            AdminSessions(core.db, core.clock),
            Unlocking(core.db, core.clock),
            Links(core.db, core.sessions, core.clock),
            Timeline(core.db),
            Overview(core.db),
            Stats(core.db, core.clock),
        )


def desk(request: AnyRequest) -> Desk:
    """The desk of the application that answers this request."""
    return cast("Desk", request.app.state.desk)
