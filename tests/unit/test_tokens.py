"""Access tokens: one algorithm, every claim, our clock. Refresh tokens: a family that nobody else adds to."""

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from app.auth import tokens
from app.auth.tokens import RefreshToken, read_access, sign_access
from app.errors import InvalidToken
from app.keys import KeyRing, Keys, keyed_hash
from tests.counting import counting

NOW = datetime(2026, 3, 14, 9, 26, 53, tzinfo=UTC)
RING = KeyRing(
    [b"the first secret, which signs everything new......", b"the second secret, which still verifies........"]
)
CLAIMS = {"issuer": "https://id.example", "audience": "gatehouse"}


def token(now: datetime = NOW, keys: Keys = RING.current, ttl: int = 900) -> str:
    return sign_access(
        keys, now, **CLAIMS, ttl=ttl, tenant_id=uuid4(), slug="acme", subject_id=uuid4(), session_id=uuid4()
    )


def forged(header: dict[str, Any] | None = None, drop: str | None = None, **claims: Any) -> str:
    """A token signed with our real key, changed before signing."""
    body = jwt.decode(token(), options={"verify_signature": False}) | claims
    body.pop(drop or "", None)
    head = {"typ": "at+jwt", "kid": RING.current.thumbprint} | (header or {})
    return jwt.encode(body, RING.current.signing, "EdDSA", headers=head)


def unsigned(header: dict[str, Any]) -> str:
    """A token with any header and an empty signature."""
    parts = (json.dumps(part).encode() for part in (header, jwt.decode(token(), options={"verify_signature": False})))
    return b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts).decode() + "."


def test_a_token_of_ours_is_read() -> None:
    """What was signed comes back, with every claim of the contract and the header of RFC 9068."""
    signed = token()
    claims = read_access(RING, signed, NOW, **CLAIMS)
    assert claims.slug == "acme"
    assert claims.expires_at - claims.issued_at == 900
    header = jwt.get_unverified_header(signed)
    assert header == {"alg": "EdDSA", "typ": "at+jwt", "kid": RING.current.thumbprint}
    body = jwt.decode(signed, options={"verify_signature": False})
    assert set(body) == {"iss", "aud", "sub", "tid", "slug", "sid", "iat", "nbf", "exp", "jti"}


def test_the_older_secret_still_verifies() -> None:
    """A rotation signs nobody out: a token of the second secret is read."""
    older = Keys.derive(b"the second secret, which still verifies........")
    assert read_access(RING, token(keys=older), NOW, **CLAIMS).slug == "acme"


def test_it_ends_to_the_second() -> None:
    """Valid until its last second, not a moment after; not before it began, bar 30 seconds for clocks."""
    signed = token()
    for moment in (NOW + timedelta(seconds=899), NOW - timedelta(seconds=30)):
        assert read_access(RING, signed, moment, **CLAIMS).slug == "acme"
    for moment in (NOW + timedelta(seconds=900), NOW - timedelta(seconds=32)):
        with pytest.raises(InvalidToken):
            read_access(RING, signed, moment, **CLAIMS)


_hmac_key = RING.current.public.public_bytes(Encoding.Raw, PublicFormat.Raw)


@pytest.mark.parametrize(
    "attack",
    [
        pytest.param(lambda: unsigned({"alg": "none", "typ": "at+jwt", "kid": RING.current.thumbprint}), id="alg none"),
        pytest.param(
            lambda: jwt.encode(
                jwt.decode(token(), options={"verify_signature": False}),
                _hmac_key,
                "HS256",
                headers={"typ": "at+jwt", "kid": RING.current.thumbprint},
            ),
            id="public key as HMAC key",
        ),
        pytest.param(lambda: forged({"kid": "../../etc/passwd"}), id="kid is a path"),
        pytest.param(lambda: forged({"kid": "x" * 3000}), id="kid is huge"),
        pytest.param(lambda: unsigned({"alg": "EdDSA", "typ": "at+jwt"}), id="kid is missing"),
        pytest.param(lambda: forged({"typ": "JWT"}), id="typ of another kind"),
        pytest.param(lambda: unsigned({"alg": "EdDSA", "kid": ["a"], "jku": "https://evil.example"}), id="jku"),
        pytest.param(lambda: unsigned({"alg": "EdDSA", "jwk": RING.current.jwk()}), id="jwk"),
        pytest.param(lambda: forged(iss="https://evil.example"), id="another issuer"),
        pytest.param(lambda: forged(aud="another"), id="another audience"),
        pytest.param(lambda: forged(tid="not-a-uuid"), id="tid is no uuid"),
        pytest.param(lambda: forged(tid=7), id="tid is a number"),
        pytest.param(lambda: forged(exp="soon"), id="exp is text"),
        pytest.param(lambda: token(keys=Keys.derive(b"a stranger's secret of more than 32 bytes")), id="another key"),
        pytest.param(lambda: token()[:-4] + "AAAA", id="broken signature"),
        pytest.param(lambda: "a.b.c", id="rubbish"),
        pytest.param(lambda: "é" * 40, id="not ASCII"),
        pytest.param(lambda: "", id="empty"),
        pytest.param(lambda: "x" * 100_000, id="100 kB"),
        *(pytest.param(lambda c=c: forged(drop=c), id=f"no {c}") for c in ("iss", "aud", "sub", "tid", "slug", "sid")),
        *(pytest.param(lambda c=c: forged(drop=c), id=f"no {c}") for c in ("iat", "nbf", "exp", "jti")),
    ],
)
def test_everything_else_is_refused(attack: Any) -> None:
    """RFC 8725: algorithm tricks, key tricks and missing claims are one refusal, never a crash."""
    with pytest.raises(InvalidToken):
        read_access(RING, attack(), NOW, **CLAIMS)


def test_a_refresh_token_survives_the_round_trip() -> None:
    """Text and back; the store's hash is of the whole text."""
    first = RefreshToken.first(RING.current, uuid4(), uuid4())
    assert RefreshToken.parse(first.text()) == first
    assert first.text().startswith("ghr_")
    assert first.secret.hex() not in repr(first)


def test_a_token_of_the_family_is_known_in_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there were since, ours are told from made-up ones by one keyed hash."""
    first = RefreshToken.first(RING.current, uuid4(), uuid4())
    late = RefreshToken.nth(RING.current, first.tenant_id, first.session_id, 60_000)
    assert late == RefreshToken.nth(RING.current, first.tenant_id, first.session_id, 59_999).successor(RING.current)
    hashed: list[object] = []
    monkeypatch.setattr(tokens, "keyed_hash", counting(keyed_hash, hashed))
    assert first.is_ours(RING.current)
    assert late.is_ours(RING.current)
    for imposter in (
        replace(first, secret=bytes(32)),
        replace(first, n=2),
        replace(first, session_id=uuid4()),
        replace(first, tenant_id=uuid4()),
        replace(late, secret=first.secret),
    ):
        assert not imposter.is_ours(RING.current)
    assert len(hashed) == 7


@pytest.mark.parametrize("n", [0, 2**31 - 1, 2**31, 2**32 - 1])
def test_a_number_that_no_family_reaches_is_refused(n: int) -> None:
    """The database could not count on from it."""
    made_up = replace(RefreshToken.first(RING.current, uuid4(), uuid4()), n=n)
    with pytest.raises(InvalidToken):
        RefreshToken.parse(made_up.text())


@pytest.mark.parametrize("text", ["", "ghr_", "ghr_" + "A" * 95, "ghr_" + "é" * 96, "ghr_" + "A" * 97, "x" * 100])
def test_what_is_no_refresh_token_is_refused(text: str) -> None:
    """Any other shape is one refusal."""
    with pytest.raises(InvalidToken):
        RefreshToken.parse(text)


def test_the_jwks_shows_public_keys_only() -> None:
    """One key a secret, with the thumbprint as its id and no private part."""
    keys = RING.jwks()["keys"]
    assert [key["kid"] for key in keys] == list(RING.by_thumbprint)
    assert all(set(key) == {"kty", "crv", "x", "use", "alg", "kid"} for key in keys)
    assert jwt.PyJWK(keys[0]).key_id == RING.current.thumbprint
