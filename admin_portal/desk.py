"""What admins work with, on pages and by the API, beside the services both portals share: one a process, wired from
those.
"""

from dataclasses import dataclass
from typing import cast

from app.audit.listing import Listing
from app.audit.overview import Overview
from app.audit.stats import Stats
from app.audit.timeline import Timeline
from app.auth.admin_sessions import AdminSessions
from app.auth.admins import Admins
from app.auth.idempotency import Idempotency
from app.auth.links import Links
from app.auth.tenant_sessions import TenantSessions
from app.auth.unlocking import Unlocking
from app.delivery.marks import Marks
from app.members.service import Members
from app.tenants.import_export import TenantFiles
from app.tenants.removal import Removal
from app.tenants.service import Tenants
from app.web.services import AnyRequest, Services


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """The core as the admin portal calls it."""

    tenants: Tenants
    files: TenantFiles
    removal: Removal
    members: Members
    admins: Admins
    tenant_sessions: TenantSessions
    admin_sessions: AdminSessions
    unlocking: Unlocking
    links: Links
    marks: Marks
    idempotency: Idempotency
    timeline: Timeline
    listing: Listing
    overview: Overview
    stats: Stats

    @classmethod
    def of(cls, core: Services) -> "Desk":
        """Wires everything; connects to nothing."""
        return cls(
            tenants=Tenants(core.db, core.settings, core.clock, core.wakeup),
            files=TenantFiles(core.db, core.settings, core.clock, core.wakeup),
            removal=Removal(core.db, core.clock),
            members=Members(core.db, core.settings, core.clock, core.wakeup),
            admins=Admins(core.db, core.clock),
            tenant_sessions=TenantSessions(core.db, core.clock),
            admin_sessions=AdminSessions(core.db, core.clock),
            unlocking=Unlocking(core.db, core.ring, core.clock),
            links=Links(core.db, core.sessions, core.clock),
            marks=Marks(core.db, core.clock),
            idempotency=Idempotency(core.db, core.ring, core.clock),
            timeline=Timeline(core.db),
            listing=Listing(core.db),
            overview=Overview(core.db),
            stats=Stats(core.db, core.clock),
        )


def desk(request: AnyRequest) -> Desk:
    """The desk of the application that answers this request."""
    return cast("Desk", request.app.state.desk)
