"""Checks of a LibreChat's `.env` that need no network. Pure."""

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import SplitResult, urlsplit

from kubecoderun_api.doctor.findings import Finding, failure, note, ok, warning
from kubecoderun_api.doctor.releases import Release

BASEURL: Final = "LIBRECHAT_CODE_BASEURL"
KEY: Final = "LIBRECHAT_CODE_API_KEY"
HOSTED: Final = "https://api.librechat.ai/v1"
"""What LibreChat calls without an address."""
PRIVATE_KEYS: Final = (
    "CODEAPI_JWT_PRIVATE_KEY",
    "CODEAPI_JWT_PRIVATE_KEY_BASE64",
    "CODEAPI_JWT_PRIVATE_JWK_JSON",
)
_EXAMPLE: Final = "http://kubecoderun-api.kubecoderun-system.svc:8000/v1"
_AXIOS_PROXIES: Final = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy")
Environment = Mapping[str, str]


def uses_tokens(env: Environment) -> bool:
    """Whether LibreChat signs a token for each call."""
    provider = env.get("CODEAPI_AUTH_PROVIDER", "").strip().lower()
    return provider in ("librechat-jwt", "both") or _is_true(env.get("CODEAPI_JWT_ENABLED", ""))


def check(env: Environment, release: Release | None) -> list[Finding]:
    """Everything that the file alone tells."""
    return [
        *address(env, release),
        *credentials(env, release),
        *tokens(env, release),
        *proxies(env, release),
    ]


def base(env: Environment) -> str | None:
    """The address to call, without slashes at its end; None if there is none that could be called."""
    text = env.get(BASEURL, "").strip()
    parts = _split(text)
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        return None
    return text.rstrip("/")


def address(env: Environment, release: Release | None) -> Iterator[Finding]:
    """LIBRECHAT_CODE_BASEURL: is it there, and has it the right form?"""
    text = env.get(BASEURL, "")
    if not text.strip():
        says = f"{BASEURL} is not set: LibreChat would send programs and files to {HOSTED}."
        yield failure("base-url", says, f"Set {BASEURL}, for example to {_EXAMPLE}.")
        return
    parts = _split(text.strip())
    if base(env) is None or parts is None:
        says = f"{BASEURL} is not an http or https address."
        yield failure("base-url", says, f"Set it to an address such as {_EXAMPLE}.")
        return
    if parts.username or parts.password or parts.query or parts.fragment:
        says = f"{BASEURL} has a user, a query or a fragment; LibreChat appends paths to it as it is."
        yield failure("base-url", says, "Leave only scheme, host, port and path.")
        return
    path = parts.path.rstrip("/")
    last = path.rpartition("/")[2]
    if last in ("exec", "upload", "files", "download", "health", "programmatic"):
        says = f"{BASEURL} ends in /{last}; LibreChat appends /exec and the others itself."
        yield failure("base-url", says, f"Take /{last} off.")
    elif path not in ("", "/v1"):
        says = f"{BASEURL} has the path {path}; the front end answers at / and at /v1."
        yield warning("base-url", says, "That only works with a proxy that takes the path off.")
    else:
        yield ok("base-url", f"{BASEURL} is {parts.scheme}://{parts.netloc}{path}.")
    if parts.path.endswith("/") and not (release and release.collapses_slashes):
        yield note("slashes", "Older releases make // of the slash at its end; KubeCodeRun takes it for one.")
    if _is_loopback(parts.hostname or ""):
        says = f"{BASEURL} names {parts.hostname}: inside a container that is the container itself."
        yield warning("loopback", says, "If LibreChat runs in one, use a name that it can resolve.")


def credentials(env: Environment, release: Release | None) -> Iterator[Finding]:
    """LIBRECHAT_CODE_API_KEY, where the client looks for it."""
    key = env.get(KEY, "")
    if key != key.strip():
        yield warning("api-key", f"{KEY} has blanks around it.", "Take them off.")
    if release is None:
        return
    if not key.strip() and release.key_required:
        says = f"{release.name} does not run code without a key, whatever the server says."
        yield failure("api-key", says, f"Set {KEY}.")
    elif key.strip() and not release.key_in_header:
        where = "only in the body of runs" if release.key_in_body else "nowhere"
        says = f"{release.name} sends {KEY} {where}."
        yield note("api-key", says, "The front end has to admit it without: see credentials.")


def tokens(env: Environment, release: Release | None) -> Iterator[Finding]:
    """CODEAPI_JWT_*: tokens that LibreChat signs."""
    if not uses_tokens(env):
        if any(env.get(name, "").strip() for name in PRIVATE_KEYS):
            says = "There is a private key for tokens, but LibreChat sends none."
            yield warning("tokens", says, "Set CODEAPI_AUTH_PROVIDER=librechat-jwt, or remove the key.")
        return
    if release is not None and not release.tokens:
        says = f"{release.name} knows no tokens; CODEAPI_AUTH_PROVIDER and CODEAPI_JWT_ENABLED do nothing."
        yield warning("tokens", says, "Update LibreChat, or use a key or an open network.")
    if not any(env.get(name, "").strip() for name in PRIVATE_KEYS):
        says = "Tokens are switched on, but there is no private key to sign them with."
        yield failure("tokens", says, f"Set one of {', '.join(PRIVATE_KEYS)}.")


def proxies(env: Environment, release: Release | None) -> Iterator[Finding]:
    """PROXY for the tools of the client, HTTP_PROXY for LibreChat's own calls."""
    parts = _split(env.get(BASEURL, "").strip())
    host = (parts.hostname or "") if parts else ""
    if not host:
        return
    excepted = _excepted(host, env.get("NO_PROXY") or env.get("no_proxy") or "")
    if env.get("PROXY", "").strip():
        if release is not None and not release.no_proxy:
            says = f"PROXY is set, and {release.name} sends runs through it whatever NO_PROXY says."
            yield warning("proxy", says, f"The proxy must reach {host} and must not hold answers back.")
        elif not excepted:
            yield warning("proxy", f"Runs go through PROXY: NO_PROXY does not name {host}.", _add(host))
        elif release is None:
            says = f"NO_PROXY names {host}; clients before @librechat/agents 3.4.0 do not look at it."
            yield note("proxy", says)
        else:
            yield ok("proxy", f"NO_PROXY keeps runs away from PROXY ({host}).")
    used = [name for name in _AXIOS_PROXIES if env.get(name, "").strip()]
    if used and not excepted:
        says = f"Files go through {used[0]}: NO_PROXY does not name {host}."
        yield warning("proxy", says, _add(host))


def _add(host: str) -> str:
    return f"Add {host} to NO_PROXY, unless the proxy is wanted and reaches it."


def _excepted(host: str, no_proxy: str) -> bool:
    """Whether NO_PROXY names a host, as the clients read it: names, their domains, and *."""
    for entry in no_proxy.replace(" ", ",").split(","):
        name = entry.strip().lower().removeprefix("*").partition(":")[0].lstrip(".")
        if entry.strip() == "*" or (name and (host == name or host.endswith(f".{name}"))):
            return True
    return False


def _split(text: str) -> SplitResult | None:
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises for one that is no number
    except ValueError:
        return None
    return parts


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _is_true(text: str) -> bool:
    return text.strip().lower() in ("true", "1", "yes", "on")
