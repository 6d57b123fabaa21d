"""Forged, foreign and mutilated access tokens, where tokens are used: over HTTP, and always 401 (RFC 8725)."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any, Final
from uuid import uuid4

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from app.keys import KeyRing, Keys, base64url
from app.storage.db import Database
from tests.conftest import Clock
from tests.http import Http, bearer
from tests.people import add_tenant, current_code

Json = dict[str, Any]
CLAIMS: Final = ("iss", "aud", "sub", "tid", "slug", "sid", "iat", "nbf", "exp", "jti")
NOT_OURS: Final = Ed25519PrivateKey.generate()


def opened(token: str) -> tuple[Json, Json]:
    """Header and claims."""
    head, body, _ = token.split(".")
    return json.loads(_decoded(head)), json.loads(_decoded(body))


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def sealed(header: Json, claims: Json, sign: Callable[[bytes], bytes]) -> str:
    """Any token there can be, whether a library would make it or not."""
    signed = ".".join(base64url(json.dumps(part).encode()) for part in (header, claims))
    return f"{signed}.{base64url(sign(signed.encode()))}"


def hmac_by(key: bytes, name: str = "sha256") -> Callable[[bytes], bytes]:
    return lambda signed: hmac.digest(key, signed, name)


def forgeries(token: str, keys: Keys, other_tenant: str, other_session: str) -> dict[str, str]:
    """Every way we know to talk a verifier into a token it didn't issue; `keys` are ours, for what only we could do."""
    header, claims = opened(token)
    ours, nothing = keys.signing.sign, lambda _: b""
    public = keys.public.public_bytes(Encoding.Raw, PublicFormat.Raw)
    pem = keys.public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    mine = NOT_OURS.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": base64url(mine)}
    thumbprint = base64url(hashlib.sha256(json.dumps(jwk, separators=(",", ":"), sort_keys=True).encode()).digest())
    head, body, signature = token.split(".")
    kids = [
        "../../../dev/null",
        "' OR 1=1 --",
        "http://evil.example/key",
        "",
        "\x00",
        "x" * 2000,
        0,
        None,
        [],
        {},
        True,
    ]
    forged = {
        "none": sealed(header | {"alg": "none"}, claims, nothing),
        "None": sealed(header | {"alg": "None"}, claims, nothing),
        "no alg": sealed({k: v for k, v in header.items() if k != "alg"}, claims, ours),
        "none, signed": sealed(header | {"alg": "none"}, claims, ours),
        "unsigned": f"{head}.{body}.",
        "two parts": f"{head}.{body}",
        "HS256 by our public key": sealed(header | {"alg": "HS256"}, claims, hmac_by(public)),
        "HS256 by our public key as PEM": sealed(header | {"alg": "HS256"}, claims, hmac_by(pem)),
        "HS512 by our key id": sealed(header | {"alg": "HS512"}, claims, hmac_by(keys.thumbprint.encode(), "sha512")),
        "HS256 by nothing": sealed(header | {"alg": "HS256"}, claims, hmac_by(b"")),
        "RS256 in name": sealed(header | {"alg": "RS256"}, claims, ours),
        "ES256 in name": sealed(header | {"alg": "ES256"}, claims, ours),
        "Ed448 in name": sealed(header | {"alg": "Ed448"}, claims, ours),
        "another key": sealed(header, claims, NOT_OURS.sign),
        "another key with its own kid": sealed(header | {"kid": thumbprint}, claims, NOT_OURS.sign),
        "jwk": sealed(header | {"jwk": jwk}, claims, NOT_OURS.sign),
        "jwk and its kid": sealed(header | {"jwk": jwk, "kid": thumbprint}, claims, NOT_OURS.sign),
        "jku": sealed(header | {"jku": "https://evil.example/jwks.json", "kid": thumbprint}, claims, NOT_OURS.sign),
        "x5u": sealed(header | {"x5u": "https://evil.example/cert", "kid": thumbprint}, claims, NOT_OURS.sign),
        "no kid": sealed({k: v for k, v in header.items() if k != "kid"}, claims, ours),
        "another typ": sealed(header | {"typ": "JWT"}, claims, ours),
        "critical extension": sealed(header | {"crit": ["exp"], "exp": 0}, claims, ours),
        "an exp of words": sealed(header, claims | {"exp": "tomorrow"}, ours),
        "an endless exp": sealed(header, claims | {"exp": float("inf")}, ours),
        "an exp that is no number": sealed(header, claims | {"exp": float("nan")}, ours),
        "over": sealed(header, claims | {"exp": claims["iat"] - 1}, ours),
        "not yet": sealed(header, claims | {"nbf": claims["iat"] + 3600}, ours),
        "another issuer": sealed(header, claims | {"iss": "https://evil.example"}, ours),
        "another audience": sealed(header, claims | {"aud": "somebody-else"}, ours),
        "another tenant": sealed(header, claims | {"tid": other_tenant}, ours),
        "another tenant and its session": sealed(header, claims | {"tid": other_tenant, "sid": other_session}, ours),
        "another session": sealed(header, claims | {"sid": other_session}, ours),
        "another subject": sealed(header, claims | {"sub": str(uuid4())}, ours),
        "a tenant that is no id": sealed(header, claims | {"tid": "' OR 1=1 --"}, ours),
        "a list for a session": sealed(header, claims | {"sid": [claims["sid"]]}, ours),
        "claims that are a list": f"{head}.{base64url(b'[]')}.{signature}",
        "a header that is a list": f"{base64url(b'[]')}.{body}.{signature}",
        "a header that is no JSON": f"{base64url(b'{')}.{body}.{signature}",
        "deep claims": f"{head}.{base64url(b'[' * 2000 + b']' * 2000)}.{signature}",
        "a changed claim": f"{head}.{base64url(json.dumps(claims | {'slug': 'x'}).encode())}.{signature}",
        "five parts": f"{token}.{head}.{body}",
        "no base64": f"{head}.{body}.!!!!",
        "huge": token + "A" * 8000,
    }
    forged |= {f"kid {kid!r:.20}": sealed(header | {"kid": kid}, claims, ours) for kid in kids}
    forged |= {
        f"without {name}": sealed(header, {k: v for k, v in claims.items() if k != name}, ours) for name in CLAIMS
    }
    forged["padded"] = token + "=="
    return forged


async def sign_in(http: Http, db: Database, ring: KeyRing, clock: Clock) -> tuple[Json, Json]:
    """Tokens of a tenant that is new, and their claims."""
    slug = (await add_tenant(db, clock())).slug
    challenge = (await http.otp(slug, "request")).json()["challenge_id"]
    typed = {"challenge_id": challenge, "code": await current_code(db, ring, challenge)}
    tokens: Json = (await http.otp(slug, "verify", typed)).json()
    return tokens, opened(tokens["access_token"])[1]


async def test_no_forgery_is_taken(http: Http, db: Database, ring: KeyRing, clock: Clock) -> None:
    """401 `invalid-token` for each of them, at every kind of call; the genuine one passes before and after."""
    tokens, _ = await sign_in(http, db, ring, clock)
    _, other = await sign_in(http, db, ring, clock)
    genuine = tokens["access_token"]
    assert (await http.auth("GET", "me", genuine)).status_code == 200
    told = {}
    for name, token in forgeries(genuine, ring.current, other["tid"], other["sid"]).items():
        for method, path in (("GET", "me"), ("DELETE", "sessions"), ("POST", "logout")):
            answer = await http.auth(method, path, token)
            told[name, path] = (
                answer.status_code,
                answer.json()["code"] if answer.is_error else None,
                answer.headers.get("www-authenticate"),
            )
    wrong = {call: answer for call, answer in told.items() if answer != (401, "invalid-token", "Bearer")}
    assert wrong == {}
    assert (await http.auth("GET", "me", genuine)).status_code == 200


async def test_what_we_sign_passes_the_same_way(http: Http, db: Database, ring: KeyRing, clock: Clock) -> None:
    """The forgeries above fail for what they say, not for how they are made: the true claims, so sealed, are taken."""
    tokens, _ = await sign_in(http, db, ring, clock)
    header, claims = opened(tokens["access_token"])
    assert (await http.auth("GET", "me", sealed(header, claims, ring.current.signing.sign))).status_code == 200
    assert header == {"alg": "EdDSA", "typ": "at+jwt", "kid": ring.current.thumbprint}


async def test_one_tenants_token_shows_nothing_of_another(
    http: Http, db: Database, ring: KeyRing, clock: Clock
) -> None:
    """Nor does it end another's session: there it is not found."""
    mine, _ = await sign_in(http, db, ring, clock)
    theirs, claims = await sign_in(http, db, ring, clock)
    answer = await http.auth("DELETE", f"sessions/{claims['sid']}", mine["access_token"])
    assert answer.status_code == 404
    assert claims["slug"] not in (await http.auth("GET", "events", mine["access_token"])).text
    assert (await http.auth("GET", "me", theirs["access_token"])).status_code == 200


async def test_other_tokens_are_no_access_tokens(http: Http, db: Database, ring: KeyRing, clock: Clock) -> None:
    """A refresh token, a device token and a token for another audience open nothing where an access token is due."""
    tokens, claims = await sign_in(http, db, ring, clock)
    elsewhere = jwt.encode(claims | {"aud": "reports"}, ring.current.signing, "EdDSA", {"kid": ring.current.thumbprint})
    for token in (tokens["refresh_token"], tokens["device_token"], elsewhere):
        assert (await http.auth("GET", "me", token)).status_code == 401
    doubled = await http.client.get(
        "/api/v1/auth/me", headers=[("Authorization", "Bearer x"), *bearer(tokens["access_token"]).items()]
    )
    assert doubled.status_code == 401
