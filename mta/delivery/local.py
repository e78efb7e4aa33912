"""The agents `discard` and `reject`, which deliver nowhere."""

from __future__ import annotations

from zope.interface import implementer

from mta.interfaces import IDeliveryAgent, IMailSource
from mta.mail import Hop, Outcome, Reply, Status


@implementer(IDeliveryAgent)
class DiscardAgent:
    """Takes messages over and forgets them."""

    async def deliver(self, hop: Hop, mail: IMailSource) -> None:
        """See `IDeliveryAgent.deliver`."""
        await _settle_all(mail, Outcome(Status.DELIVERED, Reply(250, "2.0.0", ("Discarded",))))


@implementer(IDeliveryAgent)
class RejectAgent:
    """Fails messages with the text that is the next hop."""

    async def deliver(self, hop: Hop, mail: IMailSource) -> None:
        """See `IDeliveryAgent.deliver`."""
        await _settle_all(mail, Outcome(Status.FAILED, Reply(550, "5.7.1", (hop.next_hop,))))


async def _settle_all(mail: IMailSource, outcome: Outcome) -> None:
    while delivery := await mail.next():
        mail.report(delivery, [outcome] * len(delivery.targets))
