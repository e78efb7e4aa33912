"""Reading the configuration again, on SIGHUP."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mta import config
from mta.files import in_words
from mta.logs.file import reason
from mta.logs.writer import LogWriter
from mta.pairing.mailboxes import domains_with_mailboxes, lists_for_relays
from mta.sealing.keys import SealKeyFault
from mta.service.configured import configure
from mta.service.effects import in_force
from mta.service.findings import findings, warnings
from mta.service.process import STOP_TIMEOUT, IConfigurable, IReloader, Process
from mta.settings import Domain, Settings
from mta.tls import TLSFault
from mta.users.file import UserFault


@dataclass(frozen=True, slots=True)
class _Read:
    """The settings after a reload, and the findings about them.

    `restart` has the keys of those that changed and take a restart; `domains` are with the
    mailboxes that peers told, `mailbox_lists` tell ours to peers.
    """

    settings: Settings
    domains: Mapping[str, Domain]
    mailbox_lists: Mapping[str, bytes]
    restart: tuple[str, ...]
    warnings: tuple[str, ...]


@implementer(IReloader)
class Reloader(Service):
    """Reads the configuration file when asked to, and lets `parts` use it."""

    log = Logger()

    def __init__(
        self,
        path: Path,
        process: Process,
        parts: Sequence[IConfigurable],
        writer: LogWriter | None,
    ) -> None:
        self._path = path
        self._process = process
        self._parts = parts
        self._writer = writer
        self._reading: Deferred[None] | None = None
        self._is_asked_again = False

    def ask(self) -> None:
        """See `IReloader.ask`.  It comes after the reading that is under way."""
        if self._reading is not None:
            self._is_asked_again = True
            return
        self._reading = Deferred.fromCoroutine(self._reload())
        self._reading.addErrback(self._failed).addCallback(self._finished)

    def _finished(self, _: object) -> None:
        self._reading = None
        if self._is_asked_again:
            self._is_asked_again = False
            self.ask()

    async def _reload(self) -> None:
        """Use the configuration as it is now; a bad one changes nothing."""
        old = self._process.configured
        try:
            read = await self._in_thread(self._read, old.settings)
            if not self.running:
                return  # the service stops
            new = configure(read.settings, self._process, read.mailbox_lists)
            new.router.use(read.domains)
        except config.ConfigurationError as error:
            for problem in error.problems:
                self.log.error("{problem}", problem=str(problem))
        except (TLSFault, UserFault, SealKeyFault) as error:
            self.log.error("{error}", error=str(error))
        except OSError as error:  # a file that the server has written itself
            self.log.error("{error}", error=in_words(error))
        else:
            Deferred.fromCoroutine(old.close(STOP_TIMEOUT)).addErrback(self._failed)
            for part in self._parts:
                part.use(new)
            self._tell(read)
            return
        self.log.error("the configuration stays as it was")

    def _read(self, old: Settings) -> _Read:
        """Read the file.  Blocks.  Raises ConfigurationError or OSError."""
        settings, restart = in_force(config.load(self._path), old)
        found = warnings(self._path, findings(settings))
        domains = domains_with_mailboxes(settings)
        lists = lists_for_relays(settings)
        return _Read(settings, domains, lists, tuple(restart), tuple(found))

    def _tell(self, read: _Read) -> None:
        if self._process.is_first:
            self._tell_all(read)
        if self._writer is not None:
            try:
                self._writer.configure(read.settings.log)
            except OSError as error:
                self.log.error("the log stays as it was: {reason}", reason=reason(error))

    def _tell_all(self, read: _Read) -> None:
        """Tell what every process of the server finds."""
        self.log.info("{path} read again", path=str(self._path))
        for line in read.warnings:
            self.log.warn("{finding}", finding=line)
        if read.restart:
            keys = ", ".join(f"`{key}`" for key in read.restart)
            self.log.warn("what changed of {keys} takes a restart", keys=keys)

    def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        process = self._process
        return deferToThreadPool(process.reactor, process.threads, function, *arguments)

    def _failed(self, failure: Failure) -> None:
        self.log.failure("a reload failed", failure)
