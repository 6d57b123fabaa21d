"""When a failed message is tried again, when somebody else takes over, and what a pass over the providers means."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from app.delivery.carrier import Pass, Try
from app.delivery.message import UNANSWERED, Deferral, DeliveryError, PermanentFailure, Receipt, TransientFailure
from app.delivery.outbox import Claimed, Outcome
from app.delivery.routing import MAX_TRIES, asked_again_at, deferred_until, fallback_at, retry_at
from app.delivery.verdict import judge

NOW = datetime(2026, 3, 14, 9, 26, 53, tzinfo=UTC)
AFTER = timedelta(seconds=30)
BUSY = TransientFailure("throttled", "come back later")
LATER = Deferral("recipient", "450 greylisted")
GONE = PermanentFailure("recipient", "no such number: +447700900123")


def delay(*, tries: int = 1, left: float = 600, chance: float = 1.0) -> float | None:
    """Seconds until the next try, or None; `chance=1.0` shows the upper edge."""
    again = retry_at(tries=tries, now=NOW, expires_at=NOW + timedelta(seconds=left), chance=chance)
    return None if again is None else (again - NOW).total_seconds()


def claimed(**changes: Any) -> Claimed:
    row = Claimed(
        state="sending",
        tenant_id=UUID(int=1),
        id=UUID(int=2),
        kind="code",
        channel="sms",
        challenge_id=UUID(int=3),
        generation=1,
        destination="+447700900123",
        payload=None,
        attempts=1,
        last_error_class=None,
        refused=(),
        created_at=NOW,
        expires_at=NOW + timedelta(seconds=600),
        salt=b"",
        key_id="k",
        code_length=6,
        subject_kind="tenant",
        subject_id=UUID(int=1),
        purpose="sign_in",
        challenge_locale="en",
        ip=None,
        user_agent=None,
        asked_at=NOW,
        tenant_slug="acme",
        tenant_name="Acme",
        tenant_locale="en",
        tenant_timezone="UTC",
    )
    return replace(row, **changes)


def verdict(made: Pass, row: Claimed | None = None, *, reporting: frozenset[str] = frozenset()) -> Outcome:
    return judge(made, row or claimed(), now=NOW, reporting=reporting, fallback_after=AFTER, chance=1.0, code="123456")


def failing(*errors: DeliveryError, hopeless: bool = False, doubtful: bool = False) -> Pass:
    """A pass in which the providers a, b, c … failed so."""
    failed = [Try(name, error, 7) for name, error in zip("abc", errors, strict=False)]
    refused = [failed.provider or "" for failed in failed if failed.error.permanent]
    return Pass(failed=failed, refused=refused, hopeless=hopeless, doubtful=doubtful)


def test_delays_grow_and_there_are_five_tries() -> None:
    """A hiccup costs a second, a restart a minute; then it is enough."""
    assert [delay(tries=n) for n in range(1, MAX_TRIES + 1)] == [1, 4, 16, 64, None]


def test_full_jitter() -> None:
    """Messages that failed together don't come back together."""
    assert delay(tries=4, chance=0.0) == 0
    assert delay(tries=4, chance=0.5) == 32


def test_nothing_is_tried_after_expiry() -> None:
    """A code that has expired is of no use to anybody."""
    assert delay(left=0) is None
    assert delay(left=-5) is None


@given(
    tries=st.integers(1, MAX_TRIES - 1),
    left=st.integers(1, 600),
    chance=st.floats(0, 1, exclude_max=True),
)
def test_the_next_try_is_always_before_expiry(tries: int, left: float, chance: float) -> None:
    """Whatever the dice say."""
    wait = delay(tries=tries, left=left, chance=chance)
    assert wait is not None
    assert 0 <= wait <= left


def test_who_waited_for_a_breaker_comes_back_spread_out_and_before_expiry() -> None:
    """Once or twice the wait, by the dice; the expiry is the end, where the claim says so."""
    soon, late = NOW + timedelta(seconds=600), NOW + timedelta(seconds=3)
    assert asked_again_at(10, now=NOW, expires_at=soon, chance=0.0) == NOW + timedelta(seconds=10)
    assert asked_again_at(10, now=NOW, expires_at=soon, chance=0.5) == NOW + timedelta(seconds=15)
    assert asked_again_at(10, now=NOW, expires_at=late, chance=0.5) == late


def test_what_was_put_off_is_asked_again_until_it_expires() -> None:
    """After as long again as it is old, by the dice, at most 30 seconds; however often that was."""

    def wait(age: float, left: float = 600, chance: float = 1.0) -> float | None:
        created, ends = NOW - timedelta(seconds=age), NOW + timedelta(seconds=left)
        again = deferred_until(created_at=created, now=NOW, expires_at=ends, chance=chance)
        return None if again is None else (again - NOW).total_seconds()

    assert [wait(age) for age in (0, 1, 8, 29, 500)] == [1, 1, 8, 29, 30]
    assert wait(300, chance=0.5) == 15
    assert wait(595, left=5) == 5
    assert wait(600, left=0) is None


def test_only_what_every_provider_put_off_is_no_try() -> None:
    """Five tries bound poison and copies; a "later" in good order is neither, beside a refusal for good too."""
    often = claimed(attempts=MAX_TRIES)
    for made in (failing(LATER), failing(LATER, LATER), failing(GONE, LATER)):
        again = verdict(made, often)
        assert (again.state, again.counted) == ("queued", False)
    for made in (failing(BUSY), failing(LATER, BUSY), failing(BUSY, LATER)):
        last = verdict(made, often)
        assert (last.state, last.counted) == ("failed", True)
    assert verdict(failing(LATER, hopeless=True, doubtful=True), often).state == "failed"


def test_the_next_channel_takes_over_without_a_sign_of_delivery() -> None:
    """From the asking while it is tried, from the sending where the provider reports; otherwise sent is the end."""

    def due(state: str, *, reports: bool = False, kind: str = "code", age: float = 10) -> float | None:
        created = NOW - timedelta(seconds=age)
        found = fallback_at(kind=kind, state=state, reports=reports, created_at=created, now=NOW, after=AFTER)
        return None if found is None else (found - NOW).total_seconds()

    assert due("queued") == 20
    assert due("queued", age=100) == 0
    assert due("sent", reports=True, age=100) == 30
    assert due("sent") is None
    assert due("failed") is None
    assert due("queued", kind="notice") is None


def test_taken_by_the_second_provider() -> None:
    """Sent; the first one's failure is a step of its own, and the address stands in none of them."""
    made = failing(TransientFailure("unavailable", "no route to +447700900123 for 123456"))
    made.provider, made.receipt, made.took_ms = "b", Receipt("SM1"), 12
    outcome = verdict(made, reporting=frozenset({"b"}))

    assert (outcome.state, outcome.provider, outcome.provider_message_id) == ("sent", "b", "SM1")
    assert (outcome.reports, outcome.fallback_at) == (True, NOW + AFTER)
    (step,) = outcome.earlier
    assert (step.provider, step.error_text) == ("a", "no route to [hidden] for [hidden]")


def test_without_an_id_no_report_can_be_expected() -> None:
    """A report names a message by the id that the provider gave it."""
    outcome = verdict(Pass(provider="b", receipt=Receipt("")), reporting=frozenset({"b"}))
    assert (outcome.reports, outcome.fallback_at) == (False, None)


def test_all_busy_is_tried_again() -> None:
    """Every provider had its chance; the backoff begins."""
    outcome = verdict(failing(BUSY, BUSY))
    assert (outcome.state, outcome.retry_at) == ("queued", NOW + timedelta(seconds=1))
    assert [step.provider for step in outcome.earlier] == ["a"]
    assert outcome.provider == "b"


def test_refused_by_one_and_busy_at_the_other_is_tried_again_at_the_other() -> None:
    """Whichever of them was asked last."""
    for errors in ((GONE, BUSY), (BUSY, GONE)):
        outcome = verdict(failing(*errors))
        assert outcome.state == "queued"
        assert len(outcome.refused) == 1


def test_refused_by_all_is_final_and_the_contact_is_unhealthy() -> None:
    """Nobody is left to be asked; the admin learns that it is the number."""
    outcome = verdict(failing(PermanentFailure("credentials", "401"), GONE, hopeless=True))
    assert (outcome.state, outcome.retry_at, outcome.error_class) == ("failed", None, "recipient")
    assert (outcome.unhealthy_class, outcome.unhealthy_text) == ("recipient", "no such number: [hidden]")


def test_a_greylisted_address_is_healthy() -> None:
    """A refusal for the moment says nothing about the contact, and bad credentials neither."""
    assert verdict(failing(TransientFailure("recipient", "450"))).unhealthy_class is None
    assert verdict(failing(PermanentFailure("credentials", "401"), hopeless=True)).unhealthy_class is None


def test_the_fifth_pass_is_the_last() -> None:
    """The backoff of four is the way to the fifth."""
    assert verdict(failing(BUSY), claimed(attempts=4)).state == "queued"
    assert verdict(failing(BUSY), claimed(attempts=5)).state == "failed"


def test_our_own_fault_is_poison_in_the_end() -> None:
    """While it is tried again it is called internal."""
    fault = TransientFailure("internal", "ZeroDivisionError in f, line 1")
    assert verdict(failing(fault)).error_class == "internal"
    assert verdict(failing(fault), claimed(attempts=5)).error_class == "poison"


def test_a_doubt_is_kept() -> None:
    """One copy may have arrived: the next pass has to know."""
    assert verdict(failing(TransientFailure(UNANSWERED, "silence"), BUSY, doubtful=True)).doubtful


def test_waiting_for_a_breaker_is_no_try() -> None:
    """Nobody was asked, so there is no step to tell of, and it doesn't count."""
    outcome = verdict(Pass(wait=4.0))
    assert (outcome.state, outcome.tried, outcome.retry_at) == ("queued", False, NOW + timedelta(seconds=8))
