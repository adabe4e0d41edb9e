"""Checks of what the front end did when it was tried. Pure: over what `probe` has seen."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from kubecoderun_api.doctor.findings import Finding, failure, note, ok, warning
from kubecoderun_api.doctor.releases import Release

METADATA_SECONDS: Final = 5.0
"""LibreChat gives up on what it asks about a file after this, and uploads the file again."""
DIRECT_SECONDS: Final = 15.0
"""It gives up on downloads, and on runs of its own, after this."""
SILENCE_SECONDS: Final = 4.0
"""What a connection that was used before survives in the worst case."""
_SLOW: Final = 0.5
"""Share of a limit from which on a time is worth a warning."""


@dataclass
class Seen:
    """What happened. Times are seconds, statuses are HTTP's; None: not tried, or no answer came."""

    unreachable: str = ""
    """Why the address could not be reached at all, in words."""
    redirected: bool = False
    ready: int | None = None
    """Status of GET /health."""
    without_credential: int | None = None
    """Status of a listing of files without any credential."""
    with_key: int | None = None
    """The same with the key in X-API-Key."""
    with_token: int | None = None
    """The same with a token signed by the private key."""
    body_key: int | None = None
    """Status of a run with the key in its body only."""
    token_problem: str = ""
    """Why no token could be signed."""
    refusal: str = ""
    """What the server said of the credential that did not do."""
    listing_seconds: float | None = None
    listing_closes: bool | None = None
    """Whether the connection is closed after a listing."""
    keep_alive: int | None = None
    """Seconds that a Keep-Alive header announces."""
    run_status: int | None = None
    run_seconds: float | None = None
    run_right: bool = False
    """Whether the program's output was the right one."""
    run_says: str = ""
    """The server's own words about a run that failed."""
    longest_silence: float | None = None
    """Longest time without a byte in a run of six seconds."""
    upload_status: int | None = None
    upload_seconds: float | None = None
    listed: bool = False
    """Whether the uploaded file was in the list of its session, under its name."""
    read_by_program: bool = False
    download_status: int | None = None
    download_seconds: float | None = None
    download_right: bool = False
    """Whether exactly the bytes came back that were uploaded."""
    download_encoding: str = ""
    """Content-Encoding of a download."""
    problems: list[str] = field(default_factory=list)
    """Calls that broke, in words."""


def check(seen: Seen, release: Release | None, *, key: bool, tokens: bool) -> list[Finding]:
    """Everything that trying tells. `key`, `tokens`: whether LibreChat has a key, whether it signs
    tokens."""
    if seen.unreachable:
        do = "Compare host and port, and try it from where LibreChat runs: DNS, NetworkPolicy, firewall."
        return [failure("reachable", f"The front end cannot be reached: {seen.unreachable}.", do)]
    if seen.redirected:
        says = "The address redirects, and a redirected POST arrives as a GET."
        return [failure("reachable", says, "Use the address that it redirects to, mostly https.")]
    found = [
        ok("reachable", "The front end answers."),
        *_health(seen),
        *_admitted(seen, release, key, tokens),
    ]
    if seen.run_status is not None:
        found += [*_run(seen), *_files(seen), *_hang_up(seen, release), *_times(seen)]
    found += [failure("connection", problem, "Look at what is between here and the front end.")
              for problem in seen.problems]  # fmt: skip
    return found


def admits(status: int | None) -> bool:
    """Whether a status says that the credential was good enough."""
    return status is not None and status not in (400, 401, 403)


def _health(seen: Seen) -> Iterator[Finding]:
    if seen.ready == 200:
        yield ok("ready", "It is ready to run programs.")
    else:
        says = f"GET /health answers {seen.ready}: it is not ready, or it is another service."
        yield failure(
            "ready", says, "Look at its log: kubectl -n kubecoderun-system logs deploy/kubecoderun-api."
        )


def _admitted(seen: Seen, release: Release | None, key: bool, tokens: bool) -> Iterator[Finding]:
    """Does the front end admit LibreChat with what LibreChat sends?"""
    is_open = admits(seen.without_credential)
    if key and not is_open and not admits(seen.with_key):
        says = f"The front end does not know the key{_words(seen)}."
        do = "Put the same key into LIBRECHAT_CODE_API_KEY and into the file of KCR_API_KEYS_FILE."
        if release is None or release.key_in_header:
            yield failure("credentials", says, do)
            return
        yield warning("credentials", says, do)
    if tokens and (release is None or release.tokens):
        yield from _token(seen, is_open)
        return
    if is_open:
        yield ok("credentials", "The front end admits this address without a credential.")
    elif release is None and key:
        yield ok("credentials", "The front end knows the key.")
        says = "Only clients up to @librechat/agents 3.1.67 (LibreChat 0.8.4 or so) send it with every call."
        yield note("credentials", says, "Say which release it is: --librechat 0.8.5")
    elif release is not None and key and release.key_in_header:
        yield ok("credentials", "The front end knows the key, and this release sends it with every call.")
    elif release is not None and release.tokens:
        says = f"The front end wants a credential, and {release.name} sends none as it is set up."
        do = "Sign tokens (CODEAPI_AUTH_PROVIDER=librechat-jwt), or let the front end admit its network."
        yield failure("credentials", says, do)
    elif release is not None:
        says = f"The front end wants a credential, and {release.name} sends none with files and tool calls."
        yield failure(
            "credentials",
            says,
            "Let the front end admit its network without (KCR_OPEN_NETWORKS), or update it and sign tokens.",
        )
    else:
        says = "The front end wants a credential, and there is none."
        yield failure("credentials", says, "Set LIBRECHAT_CODE_API_KEY, or sign tokens.")


def _token(seen: Seen, is_open: bool) -> Iterator[Finding]:
    if seen.token_problem:
        yield failure(
            "credentials", f"No token could be signed: {seen.token_problem}.", "Mend CODEAPI_JWT_*."
        )
    elif admits(seen.with_token):
        yield ok("credentials", "The front end accepts a token signed with LibreChat's private key.")
    elif is_open:
        says = "The front end refuses LibreChat's tokens, and admits calls without."
        yield failure("credentials", says, "Give it the public key, or switch tokens off in LibreChat.")
    else:
        says = f"The front end refuses a token signed with LibreChat's private key{_words(seen)}."
        do = "Give it the public key under the same kid, and compare issuer, audience and clocks."
        yield failure("credentials", says, do)


def _words(seen: Seen) -> str:
    return f" ({seen.refusal})" if seen.refusal else ""


def _run(seen: Seen) -> Iterator[Finding]:
    if seen.run_right:
        yield ok("run", "A program ran and its output came back.")
    else:
        says = f"A program did not run as it should: HTTP {seen.run_status}. {seen.run_says}".strip()
        yield failure("run", says, "kubectl -n kubecoderun get epool,esess shows pools and the last runs.")


def _files(seen: Seen) -> Iterator[Finding]:
    if seen.upload_status is None:
        return
    if seen.upload_status >= 300:
        do = "413: a proxy limits bodies (150 MB are needed). 503: the object store. Else see the log."
        yield failure("upload", f"An upload is answered with HTTP {seen.upload_status}.", do)
        return
    yield ok("upload", "A file can be uploaded.")
    if not seen.listed:
        do = "See the log of the front end; a proxy must not cache."
        yield failure("files", "The uploaded file is not listed under its name.", do)
    if not seen.read_by_program:
        do = "kubectl describe its session; pods need a way to the object store."
        yield failure("files", "A program did not find the uploaded file.", do)
    if seen.download_encoding:
        says = f"Downloads are compressed on the way ({seen.download_encoding}): files arrive truncated."
        yield failure("download", says, "Switch compression off for /download in the proxy.")
    elif not seen.download_right:
        says = f"The file did not come back as it was uploaded (HTTP {seen.download_status})."
        yield failure("download", says, "See the log of the front end, and what is in between.")
    else:
        yield ok("download", "The file came back as it was.")


def _hang_up(seen: Seen, release: Release | None) -> Iterator[Finding]:
    """Are silent runs safe from clients that cut connections after five seconds?"""
    heartbeat = seen.longest_silence is not None and seen.longest_silence < SILENCE_SECONDS
    closes = bool(seen.listing_closes)
    who = release.name if release else "LibreChat before 0.8.5"
    affected = release is None or release.hang_up is not False
    if closes and (heartbeat or seen.longest_silence is None):
        yield ok("hang-up", "Connections are closed after file calls, and slow answers have a heartbeat."
                 if heartbeat else "Connections are closed after file calls.")  # fmt: skip
    elif heartbeat:
        says = (
            "Slow answers have a heartbeat; connections stay open after file calls (a proxy?). That suffices."
        )
        yield note("hang-up", says)
    elif closes:
        says = "Connections are closed after file calls; slow answers are silent (a proxy that buffers?)."
        yield note("hang-up", says, "Switch buffering off in the proxy, and KCR_HEARTBEAT on.")
    elif affected:
        says = f"{who} will lose runs that are silent for five seconds, after a call about a file."
        do = "Switch KCR_CLOSE_CONNECTIONS and KCR_HEARTBEAT on; the proxy must not buffer /exec."
        yield failure("hang-up", says, do)
    else:
        says = "Neither are connections closed after file calls, nor have slow answers a heartbeat."
        yield warning("hang-up", says, "Switch KCR_HEARTBEAT on, for whatever else uses the same host.")
    if seen.keep_alive is not None and seen.keep_alive < 5 and not closes:
        says = f"Something announces Keep-Alive: timeout={seen.keep_alive}, which cuts runs off even earlier."
        yield warning("hang-up", says, "Take the hint off, or raise it over 5 seconds, in the proxy.")


def _times(seen: Seen) -> Iterator[Finding]:
    for what, seconds, limit in (
        ("Listing files", seen.listing_seconds, METADATA_SECONDS),
        ("A short run", seen.run_seconds, DIRECT_SECONDS),
        ("A small download", seen.download_seconds, DIRECT_SECONDS),
    ):
        if seconds is None:
            continue
        took = f"{what} takes {seconds:.2f} s; LibreChat gives up after {limit:.0f} s."
        if seconds >= limit:
            yield failure("times", took, "Are there warm pods (kubectl get epool)? What is in between?")
        elif seconds >= limit * _SLOW:
            yield warning("times", took, "Are there warm pods (kubectl get epool)? What is in between?")
        else:
            yield ok("times", took)
