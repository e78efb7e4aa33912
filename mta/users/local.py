"""The server's view of the users file.

It is read anew when it changes; passwords are hashed in threads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar

from twisted.internet.defer import DeferredSemaphore
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from mta.files import Stamp
from mta.interfaces import IPasswords, IRouter, IUsers
from mta.limited_log import LimitedLog
from mta.mail import Mailbox
from mta.session import Session
from mta.settings import Account, Service
from mta.smtp import sasl
from mta.smtp.sasl import (
    AuthenticationFailed,
    AuthenticationUnavailable,
    ICredentials,
    ScramKeys,
)
from mta.users.addresses import is_own
from mta.users.file import UserFault, UserFile, UsersUnreadable
from mta.users.renewed import RenewedPasswords
from mta.users.roster import HASH_SIZE, SALT_SIZE, PasswordHash, Roster, User

CONCURRENT_HASHES = 2  # 16 MiB and a processor each
MAX_WAITING = 100  # log-ins that may wait for their hash

_NO_PASSWORD = PasswordHash(bytes(SALT_SIZE), bytes(HASH_SIZE))

T = TypeVar("T")

_AS_THEY_WERE = "{fault}; the users stay as they were"


@implementer(IUsers, IPasswords, ICredentials)
class Users:
    """The users of a file, and the secrets behind their log-ins (`ICredentials`).

    `router` knows the domains that we are the last stop for.  `certificates`: the users that
    client certificates stand for, by SHA-256 fingerprint.  `channel_binding`: all clients are
    offered SCRAM-SHA-256-PLUS.  `renewed` are passwords that count beside the file's.  `is_first`:
    this is the process that tells of a changed file.  The file is read at once: raises UserFault.
    """

    log = Logger()

    def __init__(
        self,
        file: UserFile,
        router: IRouter,
        reactor: IReactorFromThreads,
        threads: ThreadPool,
        certificates: Mapping[str, str] = MappingProxyType({}),
        *,
        channel_binding: bool = True,
        renewed: RenewedPasswords | None = None,
        is_first: bool = True,
    ) -> None:
        self._file = file
        self._router = router
        self._reactor = reactor
        self._threads = threads
        self._certificates = certificates
        self._channel_binding = channel_binding
        self._is_first = is_first
        self._hashing = DeferredSemaphore(CONCURRENT_HASHES)
        self._renewing: set[str] = set()  # names of users
        self._may_renew = True
        self._renewed = renewed
        self._limited = LimitedLog(self.log)
        self._is_unread = False  # the files could not be read
        self._stamp = self._stamps()
        self._roster = self._load()

    async def mechanisms(self, session: Session) -> Sequence[str]:
        """See `IUsers.mechanisms`."""
        await self._refresh()
        users = self._roster.users.values()
        external = bool(self._certificate_user(session))
        names = sasl.offered(
            session.service,
            session.tls,
            cram_md5=any(user.cram_md5 for user in users),
            external=external,
            scram=self._file.scram and any(user.scram for user in users),
            cleartext=session.cleartext_auth,
            channel_binding=self._binds(session),
        )
        return names if users else names[: int(external)]

    async def authenticate(
        self, session: Session, mechanism: str, initial: bytes | None, challenge: sasl.Challenge
    ) -> str:
        """See `IUsers.authenticate`.  The identity is the name as the file has it."""
        await self._refresh()
        try:
            name = await sasl.authenticate(
                mechanism,
                initial,
                challenge,
                self,
                bindings=(
                    session.tls.bindings
                    if session.tls and self._binds(session)
                    else sasl.NO_BINDINGS
                ),
                external=self._certificate_user(session),
            )
        except AuthenticationFailed as failed:
            named = self._roster.find(failed.user)
            name = named.name if named else failed.user
            raise AuthenticationFailed(str(failed), name, is_known=named is not None) from None
        user = self._roster.find(name)
        return user.name if user else name

    async def account(self, identity: str) -> Account:
        """See `IUsers.account`."""
        await self._refresh()
        user = self._roster.find(identity)
        return user.account if user else Account()

    def may_use(self, identity: str, address: Mailbox) -> bool:
        """See `IUsers.may_use`."""
        user = self._roster.find(identity)
        addresses = user.addresses if user else ()
        return is_own(address, identity, addresses, self._router)

    # --- new passwords

    async def renew(self, user: str, password: str) -> bool:
        """See `IPasswords.renew`."""
        await self._refresh()
        known = self._roster.find(user)
        if self._renewed is None or known is None or known.cram_md5:
            return False
        try:
            await self._hashing.run(self._in_thread, self._add_successor, known.name, password)
        except (OSError, UserFault) as error:
            self.log.error("{user} can't have a new password: {error}", user=user, error=str(error))
            return False
        self.log.info("{user} has a new password beside the old one", user=known.name)
        return True

    def _add_successor(self, name: str, password: str) -> None:
        assert self._renewed is not None
        self._renewed.renew(self._file.load(), name, password)

    async def _use_successor(self, user: User) -> None:
        """Let the old password of a user count no more."""
        try:
            is_done = await self._in_thread(self._drop_old, user)
        except (OSError, UserFault) as error:
            self.log.error(
                "the old password of {user} counts on: {error}", user=user.name, error=str(error)
            )
            return
        if is_done:
            self.log.info("{user} used its new password: the old one is over", user=user.name)

    def _drop_old(self, user: User) -> bool:
        assert self._renewed is not None
        assert user.successor is not None
        return self._renewed.use(self._file.load(), user.name, user.successor)

    def _stamps(self) -> tuple[Stamp | None, Stamp | None]:
        return self._file.stamp(), self._renewed.stamp() if self._renewed else None

    def _load(self) -> Roster:
        """The users as they count now.  Blocks.  Raises UserFault."""
        roster = self._file.load()
        if self._renewed is None:
            return roster
        try:
            return self._renewed.applied(roster)
        except OSError as error:
            # Without a number it is what the text of the file says, until that changes.
            kind = UserFault if error.errno is None else UsersUnreadable
            raise kind(str(error)) from None

    # --- ICredentials

    async def verify_password(self, user: str, password: str) -> bool:
        """See `ICredentials.verify_password`."""
        if len(self._hashing.waiting) >= MAX_WAITING:
            raise AuthenticationUnavailable("too many log-ins at once")
        known = self._roster.find(user)
        expected = known.password if known else _NO_PASSWORD
        matches: bool = await self._hashing.run(self._in_thread, expected.matches, password)
        if known is None:
            return False
        if not matches and known.successor is not None:
            expected = known.successor.password
            matches = await self._hashing.run(self._in_thread, expected.matches, password)
            if matches:
                await self._use_successor(known)
        elif matches and known.successor is None and self._file.is_outdated(known):
            self._renew_hashes(known, password)
        return matches

    def _renew_hashes(self, user: User, password: str) -> None:
        """Bring a user's hashes up to date, after a log-in."""
        if self._may_renew and user.name not in self._renewing:
            self._renewing.add(user.name)
            done = self._hashing.run(self._in_thread, self._file.renew, user, password)
            done.addErrback(self._not_renewed).addBoth(lambda _: self._renewing.discard(user.name))

    def _not_renewed(self, failure: Failure) -> None:
        """Tell once that the server may not write there, perhaps."""
        failure.trap(UserFault)
        self._may_renew = False
        self.log.info(
            "the hashes of users stay as they were until `mta user passwd`: {fault}",
            fault=failure.getErrorMessage(),
        )

    async def proved(self, user: str, keys: ScramKeys) -> None:
        """See `ICredentials.proved`."""
        known = self._roster.find(user)
        if known is not None and known.successor is not None and keys == known.successor.scram:
            await self._use_successor(known)

    async def scram_keys(self, user: str) -> ScramKeys:
        """See `ICredentials.scram_keys`."""
        return self._roster.scram_keys(user)

    async def cram_secret(self, user: str) -> str | None:
        """See `ICredentials.cram_secret`."""
        known = self._roster.find(user)
        return known.cram_md5 or None if known else None

    async def _refresh(self) -> None:
        """Take up a changed file; one that can't be read changes nothing.

        Where its text is at fault, it is read again once that has changed.
        """
        try:
            stamps = self._stamps()
            if stamps == self._stamp and not self._is_unread:
                return
            is_file = stamps[0] != self._stamp[0] or self._is_unread
            self._stamp, self._is_unread = stamps, False
            self._roster = await self._in_thread(self._load)
        except UsersUnreadable as fault:
            self._is_unread = True
            self._limited.error("users", _AS_THEY_WERE, fault=str(fault))
            return
        except UserFault as fault:
            self.log.error(_AS_THEY_WERE, fault=str(fault))
            return
        if self._is_first and is_file:
            self.log.info("{path} read anew", path=str(self._file.path))

    def _binds(self, session: Session) -> bool:
        """Tell whether log-ins may be bound to TLS: those of servers always."""
        return self._channel_binding or session.service is Service.ODMR

    def _certificate_user(self, session: Session) -> str:
        if session.tls is None or not session.tls.certificate:
            return ""
        return self._certificates.get(session.tls.certificate, "")

    def _in_thread(self, function: Callable[..., T], *arguments: Any) -> Any:
        return deferToThreadPool(self._reactor, self._threads, function, *arguments)
