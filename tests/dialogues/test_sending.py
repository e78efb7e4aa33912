r"""The golden dialogues of the sending side: the hosts of a hop, and what becomes of the mail.

Each file in ``tests/dialogues/sending`` holds conversations.  ``== title`` begins one; then come
settings, and the dialogue line by line:

=======================  =======================================================================
``mx: 10 a, 20 b``       the MX records of peer.example, without which it has none
``host: a 192.0.2.1``    a host and its addresses; ``none``: the name does not exist; ``unknown``:
                         no name server answers.  Each line adds one to ``hosts``
``hop: smtp a``          the hop, where it is not ``mx``
``mail: M1 bob, M2``     the messages, with their recipients at peer.example (bob, if none)
``D: 192.0.2.1``         a connection to that address is asked for, and made
``D: 192.0.2.1 refused`` it is asked for, and refused
``D: (none)``            no connection is asked for
``S: a | b``             the host says two lines, one after the other
``C: a | b``             it has heard just these
``C: (closed)``          we have closed the connection
``T: 300``               so many seconds pass
``E: closed``            the host closes the connection; ``E: reset`` resets it
``E: send M3 carol``     another message comes
``O: M1: relayed 250``   what became of a message: for each recipient, separated by ``|``
``O: (none)``            nothing became of any message yet
=======================  =======================================================================

All connections and outcomes must be told.
"""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mta.mail import Agent, Hop, Security
from mta.testing import FakeResolver
from tests.dialogues.test_receiving import Playable, Script, add_tests
from tests.next_hops import DOMAIN, Connection, NextHops

FOLDER = Path(__file__).parent / "sending"


class Sending:
    """One conversation of our delivery with the hosts of a hop."""

    def __init__(self, settings: dict[str, str], *, dripped: bool) -> None:
        records = [
            (int(preference), host)
            for preference, _, host in (
                one.strip().partition(" ") for one in settings.get("mx", "").split(",") if one
            )
        ]
        hosts = {
            host: addresses
            for host, *addresses in (one.split() for one in settings["hosts"].split(","))
        }
        agent, _, host = settings.get("hop", f"mx {DOMAIN}").partition(" ")
        port = 25 if agent == "smtp" else 0
        hop = Hop(Agent(agent), host, port, security=Security(settings.get("tls", "off")))
        self.hops = NextHops(FakeResolver({DOMAIN: records}, hosts), hop=hop)
        self._dripped = dripped
        self._connection: Connection | None = None
        for one in settings["mail"].split(","):
            self.hops.send(*one.split())
        self.hops.dispatch()

    @property
    def connection(self) -> Connection:
        """The connection at hand."""
        assert self._connection is not None, "no connection was made"
        return self._connection

    def step(self, kind: str, text: str) -> None:
        """One line of a dialogue."""
        match kind, text:
            case "D", "(none)":
                self._expect_no_connection()
            case "D", _:
                self._dialled(*text.split())
            case "S", _:
                self._say(text)
            case "C", "(closed)":
                assert not self._heard(), "something was said"
                assert self.connection.transport.disconnecting, "the connection is open"
            case "C", _:
                heard = self._heard()
                assert heard == [one.strip() for one in text.split("|")], f"heard {heard}"
            case "T", _:
                self.hops.reactor.advance(float(text))
            case "E", "closed":
                self.connection.close()
            case "E", "reset":
                self.connection.reset()
            case "E", _:
                self.hops.send(*text.split()[1:])
                self.hops.dispatch()
            case "O", "(none)":
                assert not self.hops.outcomes, f"became {self.hops.outcomes}"
            case _:
                self._expect_outcomes(*text.split(": ", 1))

    def end(self) -> None:
        """The dialogue is over: nothing is left over."""
        self._expect_no_connection()
        assert not self.hops.outcomes, f"also became {self.hops.outcomes}"
        self.hops.stop()

    def _dialled(self, address: str, refused: str = "") -> None:
        connection = self.hops.next_connection()
        assert connection is not None, "no connection was asked for"
        assert connection.address == address, f"dialled {connection.address}"
        if refused:
            connection.refuse()
        else:
            self._connection = connection
            connection.accept()

    def _expect_no_connection(self) -> None:
        connection = self.hops.next_connection()
        assert connection is None, f"also dialled {connection and connection.address}"

    def _say(self, text: str) -> None:
        for line in text.split("|"):
            octets = line.strip().encode() + b"\r\n"
            size = 1 if self._dripped else len(octets)
            for start in range(0, len(octets), size):
                self.connection.say(octets[start : start + size])

    def _heard(self) -> list[str]:
        return self.connection.transport.taken().decode().replace("\r\n", "\n").splitlines()

    def _expect_outcomes(self, name: str, text: str) -> None:
        assert name in self.hops.outcomes, f"nothing became of {name}"
        outcomes = [
            f"{outcome.status.value} {outcome.reply}" for outcome in self.hops.outcomes.pop(name)
        ]
        expected = [one.strip() for one in text.split("|")]
        pairs = list(zip(outcomes, expected, strict=False))
        assert len(outcomes) == len(expected) and all(a.startswith(b) for a, b in pairs), outcomes


class SendingScript(Script):
    """A conversation of the sending side."""

    STEP = re.compile(r"([DSCTEO]): (.*)")

    def begin(self, *, dripped: bool) -> Playable:
        """See `Script.begin`."""
        return Sending(self.settings, dripped=dripped)


class SendingDialogueTests(SynchronousTestCase):
    """One test for each conversation, and one in which the hosts speak in single octets."""


add_tests(SendingDialogueTests, FOLDER, SendingScript)
