"""What a caller learns about limits: RateLimit-Policy and RateLimit (draft-ietf-httpapi-ratelimit-headers-10)."""

from app.auth.factors.second_steps import GUESSES_A_DAY
from app.auth.sessions import REFRESH_BURST, REFRESHES
from app.errors import RateLimited
from app.settings import Settings

_HOUR = 3600
_DAY = 24 * _HOUR


def policy_header(settings: Settings, policy: str = "hourly") -> dict[str, str]:
    """The limit in force for everybody: so many (q) in so many seconds (w). A tenant's own may be stricter."""
    quota, window = {
        "hourly": (settings.otp_hourly_limit, _HOUR),
        "address": (settings.otp_ip_hourly_limit, _HOUR),
        "cooldown": (1, settings.otp_resend_cooldown_seconds),
        "factor": (GUESSES_A_DAY, _DAY),
        "refresh": (REFRESHES, int(REFRESH_BURST.total_seconds())),
    }.get(policy, (settings.otp_hourly_limit, _HOUR))
    return {"RateLimit-Policy": f'"{policy}";q={quota};w={window}'}


def refusal_headers(settings: Settings, refusal: RateLimited) -> dict[str, str]:
    """The limit that was hit: nothing remains (r), and it opens in so many seconds (t)."""
    hit = f'"{refusal.policy}";r=0;t={refusal.retry_after}'
    return policy_header(settings, refusal.policy) | {"RateLimit": hit}
