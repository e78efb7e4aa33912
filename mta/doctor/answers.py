"""The answers to a peer that asks what we see of it.

They tell of the domains that are the peer's here, and of nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from mta import __version__
from mta.doctor import names
from mta.doctor.authentication import outgoing_addresses, spf_of
from mta.doctor.examined import Examined
from mta.doctor.look_files import LookFiles
from mta.doctor.result import Result, State, bad, ok, unknown, warn
from mta.interfaces import IFarEndSource, ResolutionFailed
from mta.mail import Agent, Hop, is_among
from mta.pairing.mailboxes import MailboxFiles, told_domains
from mta.peers.status_files import PeerStatusFiles
from mta.session import Observation
from mta.settings import Peer

ANSWER_TIMEOUT = 8.0  # seconds: the peer's operator waits
MAX_CLOCK_DIFFERENCE = 60.0  # seconds: of which nothing need be said
MAX_DOMAINS = 100  # in one question

Answering = Callable[[Peer, str], Awaitable[Sequence[Result]]]


@implementer(IFarEndSource)
class Answers:
    """The view that this host has of its peers.

    `now` gives seconds since the epoch.
    """

    log = Logger()

    def __init__(
        self, examined: Examined, clock: IReactorTime, now: Callable[[], float] = time.time
    ) -> None:
        self._examined = examined
        self._settings = examined.settings
        self._clock = clock
        self._now = now
        spool = Path(self._settings.spool)
        self._looks = LookFiles(spool, now)
        self._mailbox_files = MailboxFiles(spool)
        self._status_files = PeerStatusFiles(spool)
        self._table: Mapping[str, Answering] = {
            "clock": self._of_clock,
            "domains": self._of_domains,
            "exchanger": self._of_exchanger,
            "link": self._of_link,
            "mailboxes": self._of_mailboxes,
            "spf": self._of_spf,
            "version": self._of_version,
        }

    async def answer(self, peer: Peer, question: str, argument: str) -> Sequence[Observation]:
        """See `IFarEndSource.answer`."""
        if question not in self._table:
            return [Observation(State.UNKNOWN.value, "this host does not know that")]
        looking = Deferred.fromCoroutine(_results(self._table[question](peer, argument)))
        try:
            results = await looking.addTimeout(ANSWER_TIMEOUT, self._clock)
        except TimeoutError:
            results = [unknown(f"no answer within {ANSWER_TIMEOUT:.0f} seconds")]
        except (ResolutionFailed, OSError) as error:
            results = [unknown(str(error))]
        return [Observation(each.state.value, each.text) for each in results]

    async def keep(self, peer: Peer, observations: Sequence[Observation]) -> None:
        """See `IFarEndSource.keep`."""
        try:
            await self._examined.in_thread(self._looks.keep, peer.name, observations)
        except OSError as error:
            self.log.warn("the look of {peer}: {error}", peer=peer.name, error=str(error))

    async def _of_clock(self, peer: Peer, argument: str) -> Sequence[Result]:
        """`argument`: the time there, in seconds since the epoch."""
        if not argument.isdecimal():
            return [unknown("that is no time")]
        difference = int(argument) - self._now()
        if abs(difference) <= MAX_CLOCK_DIFFERENCE:
            return [ok("the clocks of both ends agree")]
        which = "ahead of" if difference > 0 else "behind"
        return [warn(f"the clock at your end is {abs(difference):.0f} seconds {which} ours")]

    async def _of_spf(self, peer: Peer, argument: str) -> Sequence[Result]:
        """`argument`: a domain of the peer, whose mail leaves from here."""
        domain = argument.lower()
        if not is_among(domain, peer.domains):
            return [unknown(f"{domain} is not among your domains here")]
        addresses = await outgoing_addresses(self._examined)
        if not addresses:
            return [unknown("the addresses that mail leaves from are not known here")]
        return [await spf_of(self._examined, domain, address) for address in addresses]

    async def _of_version(self, peer: Peer, argument: str) -> Sequence[Result]:
        """`argument`: the version there."""
        if argument == __version__:
            return [ok(f"both ends have version {__version__}")]
        return [warn(f"your end has version {argument}, this one {__version__}")]

    async def _of_domains(self, peer: Peer, argument: str) -> Sequence[Result]:
        """`argument`: the domains that the peer asks mail for."""
        theirs = argument.lower().split(",")[:MAX_DOMAINS]
        found = []
        for domain in theirs:
            entry = self._settings.domains.get(domain)
            if not is_among(domain, peer.domains):
                found.append(bad(f"{domain} is not among your domains here"))
            elif entry is not None and entry.deliver != Hop(Agent.HOLD, peer.name):
                found.append(bad(f"{domain}: its mail is not held for you here"))
            elif entry is None and not domain.startswith("."):
                found.append(bad(f"{domain}: its mail is not taken here"))
        found.extend(
            warn(f"{domain} is yours here, and you do not ask for its mail")
            for domain in peer.domains
            if not is_among(domain, theirs)
        )
        return found[: 2 * MAX_DOMAINS] or [ok(f"the domains agree: {', '.join(theirs)}")]

    async def _of_exchanger(self, peer: Peer, argument: str) -> Sequence[Result]:
        """`argument`: a domain of the peer."""
        domain = argument.lower()
        if not is_among(domain, peer.domains):
            return [unknown(f"{domain} is not among your domains here")]
        hosts = await names.exchanger_hosts(self._examined, domain)
        if isinstance(hosts, Result):
            return [hosts]
        here = self._settings.hostname
        if await names.includes_us(self._examined, hosts):
            return [ok(f"mail for {domain} is sent to {here}, as this end sees the DNS")]
        return [bad(f"mail for {domain} is sent to {', '.join(hosts)}, and not to {here}")]

    async def _of_link(self, peer: Peer, argument: str) -> Sequence[Result]:
        """Return how the exchanges go, as this end sees it."""
        since = await self._examined.in_thread(self._status_files.link_since, peer.name)
        status = await self._examined.in_thread(self._status_files.read, peer.name)
        if since is not None:
            return [ok("the link stands")]
        if status.last_error:
            return [warn(f"the last exchange failed: {status.last_error}")]
        if status.last_exchange is None:
            return [warn("there was no exchange yet")]
        minutes = max(0.0, self._now() - status.last_exchange) / 60
        return [ok(f"the last exchange was {minutes:.0f} minutes ago")]

    async def _of_mailboxes(self, peer: Peer, argument: str) -> Sequence[Result]:
        """`argument`: the name of the list there."""
        told = [
            name for name, source in told_domains(self._settings).items() if source == peer.name
        ]
        if not told:
            return [ok("the mailboxes are configured at this end, or any name is taken")]
        digest = await self._examined.in_thread(self._mailbox_files.digest, peer.name)
        if digest == argument:
            return [ok("both ends have the same mailboxes")]
        if not digest:
            return [warn("no mailboxes were told to this end: it takes mail for any name")]
        return [warn("this end has another list of mailboxes: the next exchange brings yours")]


async def _results(answering: Awaitable[Sequence[Result]]) -> Sequence[Result]:
    return await answering
