"""The exchange of this node with the others that share its spool."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from mta.limited_log import LimitedLog
from mta.peers.node_states import NodeStates
from mta.service.process import Process
from mta.shared_tables.copies import Copies
from mta.users.renewed import RenewedPasswords


class NodeExchange:
    """The things that nodes tell each other, but for mail.

    These are the lists of mailboxes that peers told, their new passwords, and their status here.
    """

    log = Logger()

    def __init__(self, process: Process) -> None:
        self._process = process
        store = process.tables
        self._copies = (
            Copies("mailboxes", process.mailbox_files, store, removes=True),
            # One that the users file does not go with is left out of our file, and not of others.
            Copies("passwords", RenewedPasswords(process.folder), store),
        )
        self._states = NodeStates(store, process.place.node_name)
        self._limited = LimitedLog(self.log)

    async def run(self) -> None:
        """Tell others the news of this node, and take theirs."""
        process = self._process
        peers = [*process.configured.settings.peers]
        try:
            await deferToThreadPool(process.reactor, process.threads, self._exchange, peers)
        except OSError as error:
            self._limited.warn("nodes", "other nodes: {error}", error=str(error))

    def _exchange(self, peers: Sequence[str]) -> None:
        if peers:
            for copies in self._copies:
                copies.exchange()
        self._states.tell(self._process.peer_status_files, peers)
