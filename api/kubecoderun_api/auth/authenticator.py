"""From the credentials of a request to its principal."""

from collections.abc import Iterable
from dataclasses import replace

from kubecoderun_api.auth import credentials, networks, tokens
from kubecoderun_api.auth.keys import KeyRing
from kubecoderun_api.auth.principal import Principal
from kubecoderun_api.auth.token_keys import NoKeys, TokenKeys
from kubecoderun_api.auth.tokens import BadToken, TokenPolicy
from kubecoderun_api.auth.verdict import Unauthorised, Verdict


class Authenticator:
    """Everything that a credential can be checked against."""

    def __init__(
        self,
        *,
        keys: KeyRing | None,
        token_keys: TokenKeys | None,
        policy: TokenPolicy,
        open_networks: Iterable[networks.Network],
        required: bool,
    ) -> None:
        """Callers in `open_networks` need no credential; if not `required`, nobody's is looked at at all."""
        self._keys = keys
        self._token_keys = token_keys
        self._policy = policy
        self._open_networks = tuple(open_networks)
        self._required = required

    def lacks_keys(self) -> bool:
        """Whether nobody can be accepted because no key is known."""
        if not self._required or self._token_keys is not None:
            return False
        return self._keys is None or not self._keys.knows_any()

    async def identify(self, found: set[str], peer: str | None) -> Principal:
        """Who has sent a request with these credentials from that address. Raises Unauthorised."""
        if len(found) > 1 and self._required:
            raise Unauthorised(Verdict.AMBIGUOUS)
        if not found or not self._required:
            return self._without_credential(peer, found)
        credential = next(iter(found))
        return replace(await self._judge(credential), credentials=frozenset(found))

    async def may_be_in(self, raw_body: bytes | bytearray) -> bool:
        """Whether an unparsed body holds a good credential: keeps strangers' big bodies from the parser."""
        for candidate in set(credentials.candidates_in(raw_body)):
            try:
                await self._judge(candidate)
            except Unauthorised:
                continue
            return True
        return False

    def needs_credential(self, peer: str | None) -> bool:
        """Whether somebody at that address needs one."""
        return self._required and not self._is_open(peer)

    def _is_open(self, peer: str | None) -> bool:
        return peer is not None and networks.contain(self._open_networks, peer)

    def _without_credential(self, peer: str | None, found: set[str]) -> Principal:
        if self._is_open(peer):
            return Principal(credentials=frozenset(found))
        raise Unauthorised(Verdict.MISSING if self._required else Verdict.NETWORK)

    async def _judge(self, credential: str) -> Principal:
        if self._keys is not None:
            known = self._keys.find(credential)
            if known is not None:
                return known
        if self._token_keys is None or not tokens.looks_like_token(credential):
            raise Unauthorised(Verdict.WRONG)
        try:
            kid = tokens.key_id(credential, self._policy)
            key = await self._token_keys.find(kid)
            if key is None:
                raise BadToken("The token is signed with a key that is not known here.")
            return tokens.verify(credential, key, self._policy)
        except NoKeys:
            raise Unauthorised(Verdict.UNKNOWABLE) from None
        except BadToken as error:
            raise Unauthorised(Verdict.TOKEN, str(error)) from None
