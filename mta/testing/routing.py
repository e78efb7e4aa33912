"""Tables in place of router, DNS, notices and others."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from zope.interface import implementer

from mta.dns_answer import Answer, RecordType, ReverseName
from mta.interfaces import (
    DomainNotFound,
    IHeldMailWatch,
    INotices,
    IResolver,
    IReverseNames,
    IRouter,
    ResolutionFailed,
)
from mta.mail import NULL_PATH, Envelope, Hop, Mailbox, Outcome, Recipient, Reply
from mta.queued import Message, Notice, Target
from mta.smtp import replies
from mta.smtp.errors import Refusal


@implementer(IRouter)
class FakeRouter:
    """Routes by tables: `hops` by domain, `aliases` and `refusals` by address.

    `elsewhere` is the hop of all other domains; without one they are refused.  The domains of
    `hops` are ours, unless `ours` says which.
    """

    def __init__(
        self,
        hops: Mapping[str, Hop],
        elsewhere: Hop | None = None,
        ours: Collection[str] | None = None,
    ) -> None:
        self.hops = dict(hops)
        self.elsewhere = elsewhere
        self.ours = set(hops if ours is None else ours)
        self.aliases: dict[str, list[str]] = {}
        self.refusals: dict[str, Reply] = {}

    def is_ours(self, domain: str) -> bool:
        """Return whether the table has the domain as ours."""
        return domain in self.ours

    def route(
        self, address: Mailbox, reverse_path: Mailbox = NULL_PATH
    ) -> Sequence[tuple[Mailbox, Hop]]:
        """Return the final addresses with their hops.  Raises Refusal as `refusals` says."""
        if str(address) in self.refusals:
            raise Refusal(self.refusals[str(address)])
        aliases = self.aliases.get(str(address))
        final = [Mailbox(*each.split("@")) for each in aliases] if aliases else [address]
        return [(each, self._hop(each.domain)) for each in final]

    def _hop(self, domain: str) -> Hop:
        hop = self.hops.get(domain, self.elsewhere)
        if hop is None:
            raise Refusal(replies.NO_SUCH_USER)
        return hop

    def rewritten(self, reverse_path: Mailbox, forwarder: Mailbox) -> Mailbox:
        """Return the reverse-path as it is."""
        return reverse_path


@implementer(IResolver)
class FakeResolver:
    """The DNS as tables: MX records by domain, addresses by host.

    `answers` has others, by name and type.  What is in none does not exist.  A host with ``none``
    for an address does not exist, one with ``unknown`` gets no answer.
    """

    def __init__(
        self, records: Mapping[str, Sequence[tuple[int, str]]], known: Mapping[str, Sequence[str]]
    ) -> None:
        self.records = records
        self.known = known
        self.answers: dict[tuple[str, RecordType], Answer] = {}
        self.asked: list[str] = []

    async def mx(self, domain: str) -> Sequence[tuple[int, str]]:
        """Return the MX records of the table."""
        if domain not in self.records:
            raise DomainNotFound(domain)
        return self.records[domain]

    async def addresses(self, host: str) -> Sequence[str]:
        """Return the addresses of the table."""
        self.asked.append(host)
        found = self.known.get(host, ["none"])
        if found == ["none"]:
            raise DomainNotFound(host)
        if found == ["unknown"]:
            raise ResolutionFailed(f"{host}: timed out")
        return found

    async def query(self, name: str, kind: RecordType) -> Answer:
        """Return the answer that was put into `answers`."""
        return self.answers.get((name, kind), Answer(exists=False))


@implementer(IReverseNames)
class FakeReverseNames:
    """Names of addresses, which are all confirmed.  `asked` records the addresses."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = names
        self.asked: list[str] = []

    async def of(self, address: str) -> ReverseName:
        """Return the name of the table, empty where there is none."""
        self.asked.append(address)
        name = self._names.get(address, "")
        return ReverseName(name, name)


@implementer(INotices)
class FakeNotices:
    """Notices of one line for each target.  `asked` records what they are about."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[str], float]] = []

    async def notice(
        self, message: Message, reports: Sequence[tuple[Target, Outcome]], expires: float
    ) -> Notice | None:
        """Return a notice to the sender; None for the null reverse-path."""
        lines = [f"{target.address} {outcome.status.value}" for target, outcome in reports]
        self.asked.append((message.id, lines, expires))
        if message.envelope.reverse_path.is_null:
            return None
        recipient = Recipient(message.envelope.reverse_path)
        return Notice(Envelope(NULL_PATH, (recipient,)), b"", "\n".join(lines).encode())


@implementer(IHeldMailWatch)
class FakeHeldMailWatch:
    """A record of the peers for which mail came."""

    def __init__(self) -> None:
        self.peers: list[str] = []

    def mail_came(self, peer: str) -> None:
        """Add the peer."""
        self.peers.append(peer)
