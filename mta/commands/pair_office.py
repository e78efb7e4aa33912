"""``mta pair TOKEN``: the office gets to know its relay."""

from __future__ import annotations

import argparse
import secrets
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zope.interface import implementer

from mta import config
from mta.commands.console import Failed, printable, settings_of
from mta.commands.pair import tell_server
from mta.files import atomic_write
from mta.mail import Mailbox
from mta.pairing.entries import office_edits, relay_name
from mta.pairing.request import Granted, PairingRefused
from mta.pairing.token import Token, decoded
from mta.peers.interfaces import ITallyWatch
from mta.peers.tally import Tally
from mta.privileges import act_as_server, owner_of_new_file, require_no_root
from mta.queued import HopFailure
from mta.settings import MINUTE, Peer, Settings

# The server and its reactor take a while: they are imported where they begin.
if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

MAX_TIME = 2 * MINUTE  # seconds: for all of it
MAX_CLOCK_DIFFERENCE = 60.0  # seconds: of which nothing need be said


def run(arguments: argparse.Namespace) -> None:
    """Pair this host with the relay that made the token.  Raises Failed."""
    token = decoded(arguments.what)
    settings = settings_of(arguments, keep_root=True)
    if arguments.manual:
        raise Failed("--manual is for the relay, with the name of an office")
    require_no_root(settings, has_uid=False)
    name = arguments.alias or relay_name(settings, token.host)
    office = _Office(arguments, token, settings, name)
    office.check()
    office.run()


@implementer(ITallyWatch)
class _Office:
    """The steps of a pairing in the office, each with its line.

    A step that fails names itself, and the same command again goes on from there.
    """

    def __init__(
        self, arguments: argparse.Namespace, token: Token, settings: Settings, name: str
    ) -> None:
        self._file: Path = arguments.config.resolve()
        self._mailboxes: list[str] = arguments.mailbox
        self._is_tested = not arguments.no_test
        self._token = token
        self._settings = settings
        self._name = name
        self._step = ""
        self._results: list[Any] = []

    def check(self) -> None:
        """Look whether the entries fit, before anything is said.

        Raises EntryFault and ConfigurationError.
        """
        config.edited(self._file, self._edits(self._token.peer, self._token.fingerprint))

    def run(self) -> None:
        """Take all steps.  Raises Failed."""
        from twisted.internet.task import react

        with suppress(SystemExit):  # react ends with it, always
            react(self._start)
        if not self._results:
            raise Failed(f"{self._step}: interrupted")
        (failure,) = self._results
        if failure is not None:
            raise Failed(printable(f"{self._step}: {self._reason(failure)}"))

    def changed(self, tally: Tally) -> None:
        """See `ITallyWatch.changed`."""

    def _start(self, reactor: Any) -> Deferred[None]:
        from twisted.internet.defer import Deferred

        from mta.service.steady import use_steady_clock

        use_steady_clock(reactor)
        steps = Deferred.fromCoroutine(self._take(reactor))
        return steps.addTimeout(MAX_TIME, reactor).addBoth(self._results.append)

    async def _take(self, reactor: Any) -> None:
        from mta.service.pairing import redeem

        token = self._token
        self._step = f"calling {token.host} port {token.port}"
        nonce = self._nonce()
        granted, pin = await redeem(self._settings, token, nonce, reactor)
        proof = "its certificate is the token's" if pin else "its certificate is verified"
        self._done(f"{proof}; paired as {granted.user}, for {', '.join(token.domains)}")
        _compare_clocks(granted)
        self._step = f"writing {self._file}"
        self._write(granted, pin)
        self._done(f"the relay is the peer {self._name} there, as of now")
        settings = config.load(self._file)
        if self._is_tested:
            act_as_server(settings)
            await self._test(settings, reactor)
        self._step = "the server"
        if tell_server(settings):
            self._done("reads its configuration again, and keeps the link from now on")
        else:
            self._done("does not run: start it, such as by: systemctl enable --now mta")

    async def _test(self, settings: Settings, reactor: Any) -> None:
        """Send a message to ourselves by the relay, and fetch it."""
        from mta.service.exchange import exchange_alone
        from mta.service.pairing import send_trial

        peer = settings.peers[self._name]
        address = Mailbox("postmaster", peer.domains[0])
        self._step = f"a message to {address} by way of the relay"
        await send_trial(settings, peer, address, reactor)
        self._done("the relay has it")
        self._step = f"fetching it from {self._name}"
        tally = await exchange_alone(settings, peer, self, reactor)
        if tally.lost:
            raise PairingRefused(tally.error)
        is_known = self._name in self._settings.peers
        if not tally.received and not is_known:
            raise PairingRefused("the relay had no mail for us, though it took our message")
        fetched = "it is delivered" if tally.received else "the running server has fetched it"
        self._done(f"{fetched}: mail goes both ways")

    def _done(self, text: str) -> None:
        print(printable(f"{self._step}: {text}"), flush=True)

    # --- what is written

    def _edits(self, user: str, pin: str) -> config.Edits:
        token = self._token
        relay = Peer(self._name, tuple(token.domains), connect=token.hop(user), pin=pin)
        return office_edits(self._settings, relay, self._secret_file.name, self._mailboxes)

    @property
    def _secret_file(self) -> Path:
        return self._file.parent / f"{self._name}.secret"

    @property
    def _nonce_file(self) -> Path:
        return self._file.parent / f".{self._name}.pairing"

    def _nonce(self) -> str:
        """The nonce for this token, the same one at a repetition."""
        with suppress(FileNotFoundError, UnicodeDecodeError):
            id, _, nonce = self._nonce_file.read_text("ascii").strip().partition(" ")
            if id == self._token.id and len(nonce) == 32:
                return nonce
        nonce = secrets.token_hex(16)
        atomic_write(self._nonce_file, f"{self._token.id} {nonce}\n".encode())
        return nonce

    def _write(self, granted: Granted, pin: str) -> None:
        """Write the secret, and then the configuration that names it."""
        text = config.edited(self._file, self._edits(granted.user, pin))
        owner = owner_of_new_file(self._secret_file, self._settings)
        atomic_write(self._secret_file, f"{granted.password}\n".encode(), owner=owner)
        if text != self._file.read_text("utf-8"):
            config.save(self._file, text)

    def _reason(self, failure: Any) -> str:
        """The reason of a failure.  Raises what is a fault of our own."""
        from twisted.internet.defer import TimeoutError

        from mta.tls import TLSFault
        from mta.users.file import UserFault

        failure.trap(
            PairingRefused,
            HopFailure,
            TimeoutError,
            OSError,
            TLSFault,
            UserFault,
            config.ConfigurationError,
        )
        error = failure.value
        if isinstance(error, HopFailure):
            return str(error.outcome.reply)
        if isinstance(error, TimeoutError):
            return f"not over after {MAX_TIME:.0f} seconds"
        return str(error)


def _compare_clocks(granted: Granted) -> None:
    difference = time.time() - granted.time
    if abs(difference) > MAX_CLOCK_DIFFERENCE:
        which = "ahead of" if difference > 0 else "behind"
        print(f"the clock here is {abs(difference):.0f} seconds {which} the relay's: set one right")
