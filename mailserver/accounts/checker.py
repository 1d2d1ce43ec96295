"""
Who is it?  The cred checkers: one for accounts, one for development that believes everybody.

In: credentials (user name and password, an answer to a CRAM-MD5 challenge, a user who is verified already), and names
whose SCRAM keys are asked for.  Out: those keys (also for names that have none), and the avatar id, which is the
account's `Address.key` in UTF-8.  Failures: `UnauthorizedLogin`, the same for every reason; `LoginUnavailable` (454)
when too many logins wait; anything else is trouble of ours, for the caller to log and to answer like the latter.
Security: an unknown or disabled user costs the same work as a known one, and gets SCRAM keys like one.  Passwords
that were right are remembered for a while as keyed hashes; a changed password or a disabled account ends that at
once, for the account is read each time and its hash is part of the key.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import ICredentials, IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from mailserver.accounts.passwords import scram_keys, strongest, verify, verify_cram
from mailserver.accounts.scram import made_up
from mailserver.address import Address, AddressError, fold_local, parse_address
from mailserver.interfaces import ICramMD5Response, IScramKeys, IVerifiedUser
from mailserver.sasl import ScramKeys

#: What cred lets a checker give; ours are always bytes (the empty tuple is for anonymous users).
AvatarId: TypeAlias = bytes | tuple[()]

#: Seconds that a right password is remembered.
CACHE_TIME = 300.0
#: How many of them.
CACHE_SIZE = 1_000


class PasswordDirectory(Protocol):
    """What the checker needs of a directory; `AccountsDatabase` has it."""

    def account(self, address: Address) -> _Entry | None:
        """The account of this address, or None."""
        ...

    def credentials(self, key: str) -> tuple[str, ...]:
        """The stored hashes of the account with this key."""
        ...

    def secret(self, name: str) -> bytes:
        """Random octets that stay the same; of this server, and of this use."""
        ...


class _Entry(Protocol):
    @property
    def enabled(self) -> bool: ...


@implementer(ICredentialsChecker, IScramKeys)
class AccountsChecker:
    """
    directory: where accounts and hashes are.  run_in_thread: `(function, *args) -> Deferred`, as `HashingPool.run`.
    clock: for the age of what is remembered.  cache_time: seconds; 0 remembers nothing.
    """

    credentialInterfaces = (IUsernamePassword, ICramMD5Response, IVerifiedUser)

    def __init__(
        self,
        directory: PasswordDirectory,
        *,
        run_in_thread: Callable[..., Deferred[bool]],
        clock: IReactorTime,
        cache_time: float = CACHE_TIME,
    ) -> None:
        self._directory = directory
        self._run_in_thread = run_in_thread
        self._remembered = Remembered(clock, cache_time)

    def requestAvatarId(self, credentials: ICredentials) -> Deferred[AvatarId]:
        """The account's key in UTF-8.  Fails with UnauthorizedLogin, or as the module says."""
        if ICramMD5Response.providedBy(credentials):
            return Deferred.fromCoroutine(self._check_cram(credentials))
        if IVerifiedUser.providedBy(credentials):
            return Deferred.fromCoroutine(self._check_verified(credentials))
        return Deferred.fromCoroutine(self._check_password(credentials))

    def scram_keys(self, user: str) -> ScramKeys:
        """See `IScramKeys`.  Raises what the directory raises when it cannot be read."""
        address = _address(user)
        stranger = made_up(self._directory.secret("scram"), fold_local(user) if address is None else address.key)
        account = self._directory.account(address) if address is not None else None
        keys = scram_keys(self._directory.credentials(address.key)) if address is not None else None
        if account is None or keys is None:
            return stranger
        if not account.enabled:
            # The salt that was seen before; yet no password fits.
            return ScramKeys(keys.salt, stranger.stored_key, stranger.server_key, keys.iterations)
        return keys

    async def _check_verified(self, credentials: IVerifiedUser) -> AvatarId:
        address = _address(credentials.username)
        account = self._directory.account(address) if address is not None else None
        if address is None or account is None or not account.enabled:
            raise UnauthorizedLogin
        return address.key.encode()

    async def _check_password(self, credentials: Any) -> AvatarId:
        address, password = _address(credentials.username), _text(credentials.password)
        kept = self._kept(address)
        if address is None or password is None:
            # Nothing could match, yet the work is done.
            await self._run_in_thread(verify, (), password or "")
            raise UnauthorizedLogin
        token = self._remembered.token(address.key, strongest(kept), password)
        if kept and token in self._remembered:
            return address.key.encode()
        right = await self._run_in_thread(verify, kept, password)
        # Read again: it may have been changed or disabled while the thread was at work.
        if not right or not kept or kept != self._kept(address):
            raise UnauthorizedLogin
        self._remembered.add(token)
        return address.key.encode()

    async def _check_cram(self, credentials: ICramMD5Response) -> AvatarId:
        address = _address(credentials.username)
        # A tenth of a millisecond: no thread.
        if not verify_cram(self._kept(address), credentials.challenge, credentials.digest) or address is None:
            raise UnauthorizedLogin
        return address.key.encode()

    def _kept(self, address: Address | None) -> tuple[str, ...]:
        """The hashes of an account that may log in; () when there is none."""
        account = self._directory.account(address) if address is not None else None
        if address is None or account is None or not account.enabled:
            return ()
        return self._directory.credentials(address.key)


class Remembered:
    """
    Logins that were right, as tokens that tell nothing: HMACs under a key that is this process' own.

    clock: gives the time.  lifetime: seconds.  size: when full the oldest makes room.
    """

    def __init__(self, clock: IReactorTime, lifetime: float, size: int = CACHE_SIZE) -> None:
        self._clock = clock
        self._lifetime = lifetime
        self._size = size
        self._secret = os.urandom(32)
        self._until: OrderedDict[bytes, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._until)

    def __contains__(self, token: object) -> bool:
        # Who guesses a token has guessed 256 bits: a dictionary may compare it.
        until = self._until.get(token) if isinstance(token, bytes) else None
        return until is not None and self._clock.seconds() < until

    def token(self, key: str, stored: str, password: str) -> bytes:
        """32 octets for this account, stored hash and password; other ones have another token."""
        # Neither an address nor a hash can hold a NUL, so the text is never ambiguous.
        text = f"{key}\0{stored}\0{password}".encode("utf-8", "surrogatepass")
        return hmac.new(self._secret, text, hashlib.sha256).digest()

    def add(self, token: bytes) -> None:
        """Remember it from now on."""
        if self._lifetime <= 0:
            return
        self._until.pop(token, None)
        self._until[token] = self._clock.seconds() + self._lifetime
        # All live equally long, so the first is the oldest.
        while len(self._until) > self._size or next(iter(self._until.values())) <= self._clock.seconds():
            self._until.popitem(last=False)


@implementer(ICredentialsChecker)
class AnyPassword:
    """
    Development only: everybody is who they say they are.

    The avatar id is the user name, folded (as an address when it is one), in UTF-8.
    """

    # No IScramKeys: nobody's password is known here, and SCRAM cannot do without.
    credentialInterfaces = (IUsernamePassword, ICramMD5Response, IVerifiedUser)

    def requestAvatarId(self, credentials: Any) -> Deferred[AvatarId]:
        """The avatar id.  Fails with UnauthorizedLogin when the name is no UTF-8 text."""
        if not (name := _text(credentials.username)):
            return fail(UnauthorizedLogin())
        address = _address(credentials.username)
        return succeed((address.key if address is not None else fold_local(name)).encode())


def _text(octets: bytes | str) -> str | None:
    """Text as it came from the wire; cred says bytes, yet some give str.  None for what is not UTF-8."""
    if isinstance(octets, str):
        return octets
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return None


def _address(name: bytes | str) -> Address | None:
    text = _text(name)
    if text is None:
        return None
    try:
        return parse_address(text)
    except AddressError:
        return None
