"""What the admin API works with beside the services that both portals share: one a process, wired from those."""

from dataclasses import dataclass
from typing import cast

from app.audit.listing import Listing
from app.audit.stats import Stats
from app.audit.timeline import Timeline
from app.auth.admin_sessions import AdminSessions
from app.auth.admins import Admins
from app.auth.idempotency import Idempotency
from app.auth.links import Links
from app.auth.unlocking import Unlocking
from app.members.service import Members
from app.tenants.import_export import TenantFiles
from app.tenants.removal import Removal
from app.tenants.service import Tenants
from app.web.services import AnyRequest, Services


@dataclass(frozen=True, slots=True)
class Office:
    """The core as the admin API calls it."""

    tenants: Tenants
    members: Members
    files: TenantFiles
    removal: Removal
    unlocking: Unlocking
    links: Links
    admins: Admins
    admin_sessions: AdminSessions
    idempotency: Idempotency
    timeline: Timeline
    listing: Listing
    stats: Stats

    @classmethod
    def of(cls, core: Services) -> "Office":
        """Wires everything; connects to nothing."""
        return cls(
            Tenants(core.db, core.settings, core.clock, core.wakeup),
            Members(core.db, core.settings, core.clock, core.wakeup),
            TenantFiles(core.db, core.settings, core.clock, core.wakeup),
            Removal(core.db, core.clock),
            Unlocking(core.db, core.clock),
            Links(core.db, core.sessions, core.clock),
            Admins(core.db, core.clock),
            AdminSessions(core.db, core.clock),
            Idempotency(core.db, core.ring, core.clock),
            Timeline(core.db),
            Listing(core.db),
            Stats(core.db, core.clock),
        )


def office(request: AnyRequest) -> Office:
    """The office of the application that answers this request."""
    return cast("Office", request.app.state.office)
