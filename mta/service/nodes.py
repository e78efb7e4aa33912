"""The exchange of this node with the others that share its spool."""

from __future__ import annotations

from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from mta.limited_log import LimitedLog
from mta.service.process import Process
from mta.shared_tables.copies import Copies
from mta.users.renewed import RenewedPasswords


class NodeExchange:
    """The things that nodes tell each other, but for mail.

    These are the lists of mailboxes that peers told, and their new passwords.
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
        self._limited = LimitedLog(self.log)

    async def run(self) -> None:
        """Tell others the news of this node, and take theirs."""
        if not self._process.configured.settings.peers:
            return
        try:
            await deferToThreadPool(self._process.reactor, self._process.threads, self._exchange)
        except OSError as error:
            self._limited.warn("nodes", "other nodes: {error}", error=str(error))

    def _exchange(self) -> None:
        for copies in self._copies:
            copies.exchange()
