"""``mta pair TOKEN``: the office gets to know its relay."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zope.interface import implementer

from mta import config
from mta.commands.console import Failed, settings_of
from mta.commands.errand import IErrand, Progress, run
from mta.commands.pair_files import LinkFiles, prepare_folders, require_name
from mta.commands.running_server import server_runs, tell_server
from mta.mail import Mailbox
from mta.pairing.entries import office_edits, relay_name
from mta.pairing.request import Granted
from mta.pairing.token import Token, decoded
from mta.privileges import act_as_server, require_no_root
from mta.settings import MINUTE, Peer, Settings

MAX_TIME = 3 * MINUTE  # seconds: for all of it, and a message for each of 50 domains
LINK_CHECKS = "peers."  # how the names of checks begin that concern links
MAX_CLOCK_DIFFERENCE = 60.0  # seconds: of which nothing need be said


def pair(arguments: argparse.Namespace) -> None:
    """Pair this host with the relay that made the token.  Raises Failed."""
    token = decoded(arguments.what)
    settings = settings_of(arguments, keep_root=True)
    if arguments.manual:
        raise Failed("--manual is for the relay, with the name of an office")
    require_no_root(settings, has_uid=False)
    name = arguments.alias or relay_name(settings, token.host)
    require_name(name)
    office = _Office(arguments, token, settings, name)
    office.check()
    count = run(office, MAX_TIME).problems
    if count:
        raise Failed(f"paired, with {count} thing{'' if count == 1 else 's'} to mend: see above")


@implementer(IErrand)
class _Office:
    """The steps of a pairing in the office.

    A step that fails names itself, and the same command again goes on from there.
    """

    def __init__(
        self, arguments: argparse.Namespace, token: Token, settings: Settings, name: str
    ) -> None:
        self._file: Path = arguments.config.resolve()
        self._mailboxes: list[str] = arguments.mailbox
        self._links: int = arguments.links
        self._is_tested = not arguments.no_test
        self._token = token
        self._settings = settings
        self._name = name
        self._files = LinkFiles(self._file, name)
        self._secret = self._files.secret()

    def check(self) -> None:
        """Look whether the entries fit, before anything is said.

        Raises EntryFault and ConfigurationError.
        """
        config.edited(self._file, self._edits(self._token.peer, self._token.fingerprint))

    async def take(self, reactor: Any, progress: Progress) -> None:
        """See `IErrand.take`."""
        from mta.service.pairing import redeem

        token = self._token
        progress.step = f"calling {token.host} port {token.port}"
        nonce = self._files.nonce(token.id)
        granted, pin = await redeem(self._settings, token, nonce, reactor)
        proof = "its certificate is the token's" if pin else "its certificate is verified"
        progress.done(f"{proof}; paired as {granted.user}, for {', '.join(token.domains)}")
        _compare_clocks(granted)
        progress.step = f"writing {self._file}"
        self._write(granted, pin)
        progress.done(f"the relay is the peer {self._name} there, as of now")
        settings = config.load(self._file)
        _prepare_folders(settings, token.domains, progress)
        act_as_server(settings)
        if self._is_tested:
            await self._try(settings, reactor, progress)
        progress.step = "the server"
        if tell_server(settings):
            progress.done("reads its configuration again, and keeps the link from now on")
        else:
            progress.done("does not run: start it, such as by: systemctl enable --now mta")
        await _examine(settings, reactor, progress)

    async def _try(self, settings: Settings, reactor: Any, progress: Progress) -> None:
        """Send ourselves a message for each domain, and fetch them."""
        from mta.service.trial import Trial

        peer = settings.peers[self._name]
        trial = Trial(settings, peer, reactor)
        addresses = [Mailbox("postmaster", name) for name in peer.domains if name[0] != "."]
        shown = ", ".join(map(str, addresses))
        progress.step = f"a message to {shown} by way of the relay"
        refused = await trial.send(addresses)
        for address, reason in refused.items():
            progress.problem(f"to {address}: {reason}")
        taken = [address for address in addresses if address not in refused]
        if not taken:
            return
        progress.done("the relay has it" if len(taken) == 1 else f"the relay has all {len(taken)}")
        progress.step = f"fetching from {self._name}"
        is_linked = self._name in self._settings.peers and server_runs(settings)
        arrived = await trial.fetch(taken)
        for address, reason in arrived.items():
            if reason:
                progress.problem(f"the message to {address} came, and is not delivered: {reason}")
        missing = [address for address in taken if address not in arrived]
        if missing and is_linked:
            progress.done("the running server has fetched it: mta log shows it")
        for address in () if is_linked else missing:
            progress.problem(f"no message to {address} came: mta queue list there says why")
        if not any(arrived.values()) and not missing:
            progress.done("delivered: mail goes both ways")

    # --- what is written

    def _edits(self, user: str, pin: str) -> config.Edits:
        token = self._token
        relay = Peer(self._name, tuple(token.domains), connect=token.hop(user), pin=pin)
        file = self._files.name_of(self._secret)
        return office_edits(self._settings, relay, file, self._mailboxes, self._links)

    def _write(self, granted: Granted, pin: str) -> None:
        """Write the secret, and then the configuration that names it."""
        text = config.edited(self._file, self._edits(granted.user, pin))
        self._files.write_secret(self._secret, granted.password, self._settings)
        if text != self._file.read_text("utf-8"):
            config.save(self._file, text)


def _prepare_folders(settings: Settings, domains: Sequence[str], progress: Progress) -> None:
    for folder, remedy in prepare_folders(settings, domains):
        progress.step = folder
        if remedy:
            progress.problem(f"the server may not write there: {remedy}")
        else:
            progress.done("made, for the mailboxes")


async def _examine(settings: Settings, reactor: Any, progress: Progress) -> None:
    """Look at the link as `mta doctor` does; say what is wrong."""
    from mta.doctor.examination import CHECKS, examine
    from mta.doctor.probe import examined_by
    from mta.doctor.result import State

    progress.step = "a look at the link"
    checks = [check for check in CHECKS if check.id.startswith(LINK_CHECKS)]
    examined = await examine(examined_by(reactor, settings), reactor, checks=checks)
    results = [result for _, found in examined for result in found]
    for result in results:
        advice = f" -> {result.remedy}" if result.remedy else ""
        if result.state is State.BAD:
            progress.problem(f"{result.text}{advice}")
        elif result.state is not State.OK:
            progress.done(f"{result.state.value}: {result.text}{advice}")
    if all(result.state is State.OK for result in results):
        progress.done("all is well (mta doctor looks at the rest)")


def _compare_clocks(granted: Granted) -> None:
    difference = time.time() - granted.time
    if abs(difference) > MAX_CLOCK_DIFFERENCE:
        which = "ahead of" if difference > 0 else "behind"
        print(f"the clock here is {abs(difference):.0f} seconds {which} the relay's: set one right")
