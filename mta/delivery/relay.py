"""The relay agent: SMTP and LMTP to the next host.

RFC 5321 sections 3.6 and 5, RFC 2033.  The hosts of a hop are tried in order until one of them has
accepted the mail, or refused it.
"""

from __future__ import annotations

from zope.interface import implementer

from mta.delivery.dialler import NO_HOST, Dialler, HostAddress, Transfer
from mta.delivery.per_host import PerHost, Suspects, most_telling
from mta.interfaces import IDeliveryAgent, IMailSource
from mta.mail import Hop, Outcome
from mta.queued import HopFailure


@implementer(IDeliveryAgent)
class RelayAgent:
    """Takes mail to MX hosts, smart hosts and LMTP servers."""

    def __init__(self, dialler: Dialler) -> None:
        self._dialler = dialler
        self._suspects = Suspects()

    async def deliver(self, hop: Hop, mail: IMailSource) -> None:
        """See `IDeliveryAgent.deliver`.

        Raises HopFailure where no host took or refused anything.
        """
        per_host = PerHost(mail, self._suspects, self._dialler.seconds)
        failures: list[Outcome] = []
        is_answered = False
        skipped = ""
        async for candidate in self._dialler.addresses(hop, failures):
            if candidate.host == skipped:
                continue
            is_answered = await self._send(hop, candidate, per_host, failures) or is_answered
            if is_answered and per_host.is_done:
                return
            skipped = candidate.host if per_host.is_same_at_all_addresses else ""
            per_host.leave_host()
        if not is_answered:
            raise HopFailure(most_telling(failures or [NO_HOST]))
        per_host.finish(most_telling(failures) if failures else None)

    async def _send(
        self, hop: Hop, candidate: HostAddress, mail: PerHost, failures: list[Outcome]
    ) -> bool:
        """Send mail to one address, on several connections if need be.

        Another one follows where the last settled something and then broke off.  Returns whether
        the host accepted or refused anything, or nothing is left to send.
        """
        transfer = Transfer(mail)
        is_answered = False
        while await mail.begin_connection():
            try:
                await self._dialler.talk(hop, candidate, transfer, mail)
                is_answered = True
            except HopFailure as failure:
                failures.append(failure.outcome)
            is_answered = is_answered or mail.is_content_at_fault
            again = transfer.broke_off or mail.has_unsent
            if mail.is_done or not mail.progress or not again:
                return is_answered
        return True
