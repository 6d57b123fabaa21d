"""What the pages say: what a step did, and a person's own history in plain words. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from app.auth.sessions import Event
from app.web.useragents import describe

NOTICES: Final = {
    "signed-out": "You are signed out.",
    "ended": "You were signed out. Sign in to go on where you were.",
    "unsaved": "You were signed out. What you sent was not saved: sign in, and do it again.",
    "factor-due": "A second factor is asked for here now. Sign in again: it is the step after the code.",
    "asked": "You asked for a code a moment ago. It is still the newest one.",
    "session-ended": "That session has ended.",
    "others-ended": "All other sessions have ended.",
    "device-forgotten": "That device is forgotten. Its next sign-in is a stranger's.",
    "devices-forgotten": "Your devices are forgotten. The next sign-in on each is a stranger's.",
    "password-changed": "Your password is changed. All other sessions have ended.",
    "email-confirmed": "Your email address is verified. You can sign in with it from now on.",
    "phone-confirmed": "Your phone number is verified. You can sign in with it from now on.",
    "consent-withdrawn": "Your consent is withdrawn.",
    "sent": "A new code is on its way. The one before stops working.",
}
_CHANNELS: Final = {
    "email": "by email",
    "sms": "by SMS",
    "whatsapp": "by WhatsApp",
    "push": "as a push notification",
}
_WITHHELD: Final = {
    "contact-missing": "there was no address to send it to",
    "channel-unavailable": "it could not be sent that way",
    "tenant-suspended": "the organisation was suspended",
}
_NO_REASON: Final = "it could not be delivered"
_BEGUN: Final = {
    "browser": "Signed in",
    "api": "Signed in to an app",
    "link": "Signed in with a link from an admin",
}
_ENDED: Final = {
    "signed-out": "Signed out",
    "ended-by-user": "A session was ended from another device",
    "factor-changed": "A session was ended because the second factor changed",
    "factor-due": "A session was ended because a second factor is asked for now",
    "contact-changed": "A session was ended because an address changed",
    "password-changed": "A session was ended because the password changed",
    "tenant-suspended": "A session was ended because sign-in was suspended",
    "member-suspended": "A session was ended because sign-in was suspended",
    "ended-by-admin": "An admin ended a session",
    "refresh-token-reused": "A session was ended for safety: its token was used twice",
}
_CONTACTS: Final = {"email": "email address", "phone_number": "phone number"}
_TRIES: Final = ("{} tries left", "{} try left")
_SAID: Final = {
    "sign_in_link.created": ("asked", "An admin made a sign-in link"),
    "tenant.created": ("changed", "The account was set up"),
    "tenant.suspended": ("refused", "Sign-in was suspended"),
    "tenant.resumed": ("changed", "Sign-in was opened again"),
    "tenant.unlocked": ("changed", "An admin let codes be asked for again"),
    "factor.asked": ("asked", "Second factor asked for"),
    "factor.enrolled": ("changed", "An authenticator app was set up"),
    "factor.removed": ("changed", "The authenticator app was removed"),
    "factor.reset": ("changed", "The second factor was reset"),
    "factor.backup_codes": ("changed", "New backup codes were made"),
    "message.tested": ("sent", "An admin sent a test message"),
    "password.wrong": ("refused", "Wrong password"),
    "member.created": ("changed", "The account was set up"),
    "member.invited": ("sent", "You were invited to register"),
    "member.registered": ("verified", "You registered"),
    "member.suspended": ("refused", "Sign-in was suspended"),
    "member.resumed": ("changed", "Sign-in was opened again"),
    "member.unlocked": ("changed", "An admin let codes be asked for again"),
    "member.password_changed": ("changed", "The password was changed"),
    "consent.withdrawn": ("changed", "A consent was withdrawn"),
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the history. `kind` picks its icon."""

    at: datetime
    kind: str
    text: str
    note: str | None


def entry(event: Event) -> Entry:
    """An event in words. From where is told of the person's own doings; an admin's address is not theirs to see."""
    kind, text = _told(event.action, event.data)
    own = event.action.startswith(("code.", "session.", "factor.")) and event.action != "factor.reset"
    return Entry(event.at, kind, text, place(event.user_agent, event.ip) if own else None)


def place(user_agent: str | None, ip: str | None) -> str:
    """Which program, from which address: `Chrome on Windows · 192.0.2.10`."""
    return f"{describe(user_agent)} · {ip or 'unknown address'}"


def _told(action: str, data: Mapping[str, Any]) -> tuple[str, str]:
    """The icon and the sentence."""
    match action:
        case "code.requested" | "code.resent":
            asked = "Code asked for" if action == "code.requested" else "New code asked for"
            return "asked", f"{asked}, sent {_CHANNELS.get(str(data.get('channel')), 'the usual way')}"
        case "code.withheld":
            return "failed", f"Code asked for but not sent: {_WITHHELD.get(str(data.get('reason')), _NO_REASON)}"
        case "code.wrong":
            left = int(data.get("attempts_left", 0))
            return "refused", f"Wrong code, {_TRIES[left == 1].format(left) if left else 'the last try'}"
        case "factor.wrong":
            left = int(data.get("attempts_left", 0))
            which = "backup code" if data.get("with") == "backup_code" else "code of the app"
            return "refused", f"Wrong {which}, {_TRIES[left == 1].format(left) if left else 'the last try'}"
        case "session.started":
            return "verified", _BEGUN["link" if "link" in data.get("methods", ()) else str(data.get("kind"))]
        case "session.ended":
            return "ended", _ENDED.get(str(data.get("reason")), "A session has ended")
        case "tenant.changed":
            contacts = {"email", "phone_number"} & {change["field"] for change in data.get("changes", ())}
            return "changed", f"An admin changed {'where your codes go' if contacts else 'the settings'}"
        case "member.changed":
            changed = {change["field"] for change in data.get("changes", ())}
            named = [word for field, word in _CONTACTS.items() if field in changed]
            return "changed", f"Your {' and '.join(named) or 'account'} {'were' if len(named) > 1 else 'was'} changed"
        case _:
            return _SAID.get(action) or ("changed", action.replace(".", " ").replace("_", " ").capitalize())
