"""The keys that mail is sealed to, by peer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mta.interfaces import IRouter
from mta.mail import NULL_PATH, Agent, Mailbox, Recipient
from mta.sealing.keys import PublicKey, public_keys
from mta.settings import Peer
from mta.smtp.errors import Refusal


class Seals:
    """The public keys of peers, for the mail that waits for these."""

    def __init__(self, router: IRouter, keys: Mapping[str, Sequence[PublicKey]]) -> None:
        self._router = router
        self._keys = keys

    def peers(self, recipient: Recipient, reverse_path: Mailbox = NULL_PATH) -> frozenset[str]:
        """The peers to which mail for a recipient is sealed.

        There is none where it waits for no peer with a key, or goes elsewhere as well, by an
        alias.
        """
        try:
            routed = self._router.route(recipient.forward_path, reverse_path)
        except Refusal:
            return frozenset()
        hops = {hop for _, hop in routed}
        if all(hop.agent is Agent.HOLD and hop.next_hop in self._keys for hop in hops):
            return frozenset(hop.next_hop for hop in hops)
        return frozenset()

    def keys(self, peers: Iterable[str]) -> Sequence[PublicKey]:
        """The keys of peers, each once."""
        return [*dict.fromkeys(key for peer in sorted(peers) for key in self._keys[peer])]


def seals(router: IRouter, peers: Iterable[Peer]) -> Seals | None:
    """The keys of these peers; None where none has one.  Raises SealKeyFault."""
    keys = {peer.name: public_keys(Path(peer.seal)) for peer in peers if peer.mail_is_sealed}
    return Seals(router, keys) if keys else None
