"""The names that programs of this host and its proxies use."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from zope.interface import implementer

from mta.access import hosts
from mta.interfaces import IClientNames
from mta.mail import Mailbox
from mta.session import LOCAL_ADDRESS, Session
from mta.settings import Network


@implementer(IClientNames)
class ClientNames:
    """Makes reverse-paths of this host's own programs valid elsewhere.

    `networks` are our own, `proxies` those whose clients may use XCLIENT, `tellers` XFORWARD.
    """

    def __init__(
        self,
        networks: Sequence[Network],
        proxies: Sequence[Network],
        local_names: Collection[str],
        home_domain: str,
        tellers: Sequence[Network] = (),
    ) -> None:
        self._networks = networks
        self._proxies = proxies
        self._local_names = local_names
        self._home_domain = home_domain
        self._tellers = tellers

    def is_proxy(self, address: str) -> bool:
        """See `IClientNames.is_proxy`."""
        return hosts.is_in(address, self._proxies)

    def tells_origins(self, address: str) -> bool:
        """See `IClientNames.tells_origins`."""
        return hosts.is_in(address, self._tellers)

    def qualified(self, session: Session, reverse_path: Mailbox) -> Mailbox:
        """See `IClientNames.qualified`.

        `root@localhost`, and an address at this host's name where that is no domain of ours, is in
        the home domain then.  So it is for clients in our networks only, without a log-in.
        """
        if reverse_path.domain not in self._local_names:
            return reverse_path
        is_near = session.client == LOCAL_ADDRESS or hosts.is_in(session.client, self._networks)
        is_known = session.turned_peer or session.identity or session.outsider is not None
        if is_known or not is_near:
            return reverse_path
        return Mailbox(reverse_path.local_part, self._home_domain)
