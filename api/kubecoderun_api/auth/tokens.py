"""LibreChat's tokens: JSON Web Tokens (RFC 7519) that it signs for each request. No I/O."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import jwt

from kubecoderun_api.auth.principal import MAX_USER_LENGTH, Principal, tenant_name

ALGORITHMS: Final = ("EdDSA", "RS256")
"""Those with a public key: with a shared secret, whoever can check tokens could make them."""
MAX_SECONDS: Final = 300
_SHAPE: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
_MAX_LENGTH: Final = 16 * 1024
_MAX_KID_LENGTH: Final = 256
_REQUIRED: Final = ("exp", "iat", "sub", "iss", "aud")


class BadToken(Exception):  # noqa: N818 - says what it is
    """A token that is not accepted; its text says why, for the caller."""


@dataclass(frozen=True)
class TokenPolicy:
    """What a token must say. Times are seconds."""

    issuer: str
    audience: str
    algorithms: Sequence[str] = ALGORITHMS
    max_seconds: int = MAX_SECONDS
    leeway_seconds: int = 30
    tenant_claim: str = "tenant_id"
    tenant_required: bool = False
    admin_roles: frozenset[str] = frozenset()


def looks_like_token(credential: str) -> bool:
    """Whether it has the form of a signed token."""
    return len(credential) <= _MAX_LENGTH and _SHAPE.fullmatch(credential) is not None


def key_id(token: str, policy: TokenPolicy) -> str:
    """The name of the key that the token says it is signed with. Raises BadToken."""
    try:
        header = jwt.get_unverified_header(token)
    except jwt.InvalidTokenError:
        raise BadToken("The token is malformed.") from None
    if header.get("alg") not in policy.algorithms:
        raise BadToken(f"The token must be signed with {' or '.join(policy.algorithms)}.")
    kid = header.get("kid")
    if not isinstance(kid, str) or not 0 < len(kid) <= _MAX_KID_LENGTH:
        raise BadToken("The token does not name its key (kid).")
    return kid


def verify(token: str, key: jwt.PyJWK, policy: TokenPolicy) -> Principal:
    """Who the token speaks for, if it is good and signed with that key. Raises BadToken."""
    if key.algorithm_name not in policy.algorithms:
        raise BadToken(f"The token must be signed with {' or '.join(policy.algorithms)}.")
    try:
        claims = jwt.decode(
            token,
            key,
            algorithms=[key.algorithm_name],
            issuer=policy.issuer,
            audience=policy.audience,
            leeway=policy.leeway_seconds,
            options={"require": list(_REQUIRED), "verify_jti": False},
        )
    except jwt.ExpiredSignatureError:
        raise BadToken("The token has expired.") from None
    except jwt.ImmatureSignatureError:
        raise BadToken("The token is not valid yet: compare the clocks.") from None
    except jwt.InvalidIssuerError:
        raise BadToken("The token has another issuer (iss) than is expected here.") from None
    except jwt.InvalidAudienceError:
        raise BadToken("The token is meant for another audience (aud).") from None
    except jwt.MissingRequiredClaimError as error:
        raise BadToken(f"The token lacks {error.claim}.") from None
    except (jwt.InvalidTokenError, ValueError, TypeError):
        raise BadToken("The token's signature or claims are not valid.") from None
    return _principal(claims, policy)


def _principal(claims: Mapping[str, Any], policy: TokenPolicy) -> Principal:
    begin, end = claims["iat"], claims["exp"]
    if not all(isinstance(moment, int | float) for moment in (begin, end)):
        raise BadToken("The times of the token must be numbers.")
    if not 0 < end - begin <= policy.max_seconds:
        raise BadToken(f"The token must be valid for {policy.max_seconds} seconds at most.")
    user = claims["sub"]
    if not isinstance(user, str) or not user.strip() or len(user) > MAX_USER_LENGTH:
        raise BadToken(f"The token's user (sub) must have 1 to {MAX_USER_LENGTH} characters.")
    tenant = claims.get(policy.tenant_claim)
    if tenant is not None and (not isinstance(tenant, str) or not tenant.strip()):
        raise BadToken(f"The token's tenant ({policy.tenant_claim}) must be a text that is not empty.")
    if tenant is None and policy.tenant_required:
        raise BadToken(f"The token must name a tenant ({policy.tenant_claim}).")
    return Principal(
        tenant=None if tenant is None else tenant_name(tenant),
        user=user.strip(),
        vouched=True,
        admin=any(claims.get("role") == role for role in policy.admin_roles),
    )
