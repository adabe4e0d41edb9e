"""What may be wrong with the credentials of a request, and how that is answered."""

from enum import StrEnum
from typing import Any, Final

from kubecoderun_api import wire


class Verdict(StrEnum):
    """Why a request is not accepted. Also a label of a metric, so this list is closed."""

    MISSING = "missing"
    WRONG = "wrong"
    AMBIGUOUS = "ambiguous"
    TOKEN = "token"
    NETWORK = "network"
    UNKNOWABLE = "unknowable"


_ANSWERS: Final = {
    Verdict.MISSING: (401, "Authentication is required", "Send an API key or a token."),
    Verdict.WRONG: (401, "Invalid API key", "The API key is not known."),
    Verdict.AMBIGUOUS: (400, "Ambiguous authentication", "The request carries different credentials."),
    Verdict.TOKEN: (401, "Invalid bearer token", "The token is not valid."),
    Verdict.NETWORK: (403, "Forbidden", "Requests from this network are not served."),
    Verdict.UNKNOWABLE: (503, "authentication_unavailable", "The keys of the tokens cannot be read."),
}


class Unauthorised(wire.BadRequest):
    """A request whose sender is not known well enough."""

    def __init__(self, verdict: Verdict, why: str = "") -> None:
        """`why` replaces the sentence of the verdict; it must not hold anything secret."""
        status, error, message = _ANSWERS[verdict]
        body: dict[str, Any] = {"error": error, "message": why or message}
        super().__init__(status, body)
        self.verdict = verdict
