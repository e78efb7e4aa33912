"""The spool: drafts, leases, and the record of attempts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from zope.interface import Interface

from mta.mail import Envelope, Recipient
from mta.queued import IDraft, Message, Settlement
from mta.session import Origin


class ISpool(Interface):
    """The store of accepted mail.  What was committed survives a power loss."""

    def draft() -> IDraft:
        """A place to write a body that arrives.

        Raises OSError where no mail can be taken now (answer 451).
        """

    async def commit(
        draft: IDraft, envelope: Envelope, header: bytes, origin: Origin, hold: str = ""
    ) -> Message:
        """Take responsibility for a message (RFC 5321 section 6.1).

        `header` is its header section, with the empty line behind it, and `draft` has its body;
        `hold` says why it is kept for the operator.  Returns once all of it is on stable storage;
        the message is leased to this process, or on hold.  Raises SpoolFull (answer 452) or
        OSError (answer 451); then nothing is left behind.

        What has an id by which it may come again (`is_remembered` of `origin`) is remembered for a
        week, for each recipient, in the same transaction.  The message is without recipients that
        have it by the same id; where none is left, raises AlreadyTaken, and nothing is left behind.
        """


class ITakenMail(Interface):
    """The memory of what peers have brought on connections that they turned."""

    async def has_taken(origin: Origin, recipients: Collection[Recipient]) -> bool:
        """Tell whether all of these have the message, as `ISpool.commit` remembers it.

        Raises OSError.
        """


class IPreviews(ISpool):
    """A store whose messages can be read before they are committed."""

    async def preview(
        draft: IDraft, envelope: Envelope, header: bytes, origin: Origin
    ) -> Message | None:
        """Return the message that `commit` would, to be read before.

        None: it could not be committed now, or would be on hold.  The draft must then be committed
        or discarded, with the same envelope, header and origin; after a commit, the content of this
        message can still be read.  Raises OSError.
        """


class ILentMail(Interface):
    """Uncommitted messages, for other processes of the same spool to read."""

    async def lent(message: Message) -> bytes:
        """Return a message of `IPreviews.preview` as octets.

        Raises ValueError where no other process can read it, or OSError.
        """

    def borrowed(octets: bytes) -> Message:
        """Return the message that another process lent.  Raises ValueError."""


class ILeases(Interface):
    """Queued messages, leased to one process at a time."""

    async def lease_due(limit: int) -> Sequence[Message]:
        """Lease at most `limit` messages that are due, the longest overdue first."""

    async def lease(ids: Collection[str]) -> Sequence[Message]:
        """Lease those of these messages that are free, due or not."""

    async def next_due() -> float | None:
        """The time at which the next message is due; None: nothing waits.

        In seconds since the epoch.
        """

    async def release(dues: Mapping[str, float]) -> None:
        """Give up leases without an attempt.

        Each message is due, for any process, at its time: seconds since the epoch, past for
        at once.
        """


class IHeldLeases(Interface):
    """Messages that wait for a peer.

    Only what waits with a final address in `domains` counts (or below, for ``.domain``;
    anywhere, for ``.``).
    """

    async def lease_held(
        peer: str, domains: Collection[str], limit: int, before: float
    ) -> Sequence[Message]:
        """Lease at most `limit` messages to be offered to a peer.

        First come those that it was never offered, then those that it was offered longest ago,
        and before `before`, seconds since the epoch; of these the oldest.
        """

    async def count_held(peer: str, domains: Collection[str], limit: int) -> int:
        """Count the messages that wait for a peer, up to `limit`."""

    async def peers_with_mail(peers: Collection[str]) -> Collection[str]:
        """Those of these peers for which free messages are held."""


class IAttemptRecords(Interface):
    """The record of what became of messages that are leased to us."""

    async def settle(settlement: Settlement) -> Sequence[Message]:
        """Record an attempt and give up the lease.

        Returns its notices, leased to us.
        """

    async def remove(ids: Collection[str], delay: float) -> None:
        """Remove messages with which nothing is left to do.

        It may take `delay` seconds until that is recorded.  Raises OSError; then none is
        removed, and we keep the leases.
        """

    async def recalled(ids: Collection[str]) -> Collection[str]:
        """Those of these messages that the operator removed or put on hold."""

    async def postpone(
        dues: Mapping[str, float], warn_after: float, give_up_after: float
    ) -> Mapping[str, int]:
        """Put off messages that are due and wait for these hops alone.

        `dues`: when the mail of each hop, as `str` writes it, is due anew, seconds since the epoch;
        no message is put off past the time at which its sender has to be told, by the seconds
        that follow.  Returns how many messages of a bounded portion, by hop.  Raises OSError.
        """


class IQueue(ILeases, IHeldLeases, IAttemptRecords):
    """The runner's side of the spool."""


class ISpoolListener(Interface):
    """Hears, in the reactor, what happens to the spool."""

    def wake() -> None:
        """Look for work: mail may be due, or held for a peer."""

    def retry() -> None:
        """Try mail for hops that were down, too.  The operator asked for it; `wake` follows."""

    def recall() -> None:
        """Ask which messages are recalled.  Some may be removed, on hold, or no more ours."""

    def reload() -> None:
        """Read the configuration again, which a command has changed."""


class IAttempts(Interface):
    """The messages that this process tries at this moment.

    A process that takes over from it may ask.
    """

    def begin_attempt(id: str) -> bool:
        """Note that an attempt for a message leased to us begins.

        Several may go on at once.  Returns False where we stood still for so long that another
        process may have the message: do not try it.
        """

    def end_attempt(id: str) -> None:
        """Note that one of them is over, however it went."""
