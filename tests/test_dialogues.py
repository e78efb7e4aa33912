r"""The golden dialogues, held with a real Link and a Receiver.

Each file in ``tests/dialogues`` holds conversations.  ``== title`` begins one; then come
settings (``service: lmtp``), and the dialogue line by line:

====================  ==========================================================================
``C: text``           the client sends a line; ``C: a | b`` sends two in one segment
``C raw: text``       it sends just these octets; ``\r \n \0 \t \\ \xNN`` as in Python, and
                      ``{text * 1000}`` a thousand times the text
``S: text``           the next line of the replies starts with this
``S* 250``            the next lines are one reply of this code
``S: (closed)``       the server closes the connection
``S: (nothing)``      there is no reply yet
``W: 1``              the replies since the last ``C:`` came in so many writes
``T: 300``            so many seconds pass
``E: event``          something happens, see `Conversation.event`
``M: A -> B, C``      the next message accepted has this envelope; ``M: A -> B: text`` and this
                      in its content
====================  ==========================================================================

All replies must be told before the client speaks again.  Every conversation is held twice, the
second time with each octet in a segment of its own, but for those with ``drip: no``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mta.interfaces import ChannelLost, Message, SpoolFull
from mta.link import Link
from mta.mail import Reply
from mta.settings import Limits, ListenerTLS, Service
from mta.smtp.receiver import Receiver
from tests.doubles import FakeGate, FakeReversal, FakeTLS, FakeUsers, Transport, reception
from tests.fakes import FakeSpool

FOLDER = Path(__file__).parent / "dialogues"
_STEP = re.compile(r"(C raw|S\*|[CSWTEM]):? ?(.*)")
_REPEATED = re.compile(rb"\{(.*?) \* (\d+)\}", re.DOTALL)


class Conversation:
    """One conversation with a receiver: what was sent, replied and accepted.

    Raises AssertionError where it is not what was expected.
    """

    def __init__(self, settings: dict[str, str], *, dripped: bool) -> None:
        self.spool = FakeSpool()
        self.gate = FakeGate(Reply(554, "5.7.1", ("Go away",)) if "gate" in settings else None)
        self.accepted: list[Message] = []
        self.clock, self.transport = Clock(), Transport(lenient=True)
        self.replies = b""
        self.writes = 0
        self._dripped = dripped
        limits = Limits(
            message_size=int(settings.get("message_size", Limits.message_size)),
            recipients=int(settings.get("recipients", Limits.recipients)),
            errors=int(settings.get("errors", Limits.errors)),
        )
        shared = reception(
            self.spool,
            self.accepted.append,
            service=Service(settings.get("service", "smtp")),
            tls=ListenerTLS(settings.get("tls", "off")),
            limits=limits,
            gate=self.gate,
            users=FakeUsers() if "users" in settings else None,
            reversal=FakeReversal() if "reversal" in settings else None,
        )
        partner = settings.get("partner", "")
        implicit = shared.tls is ListenerTLS.IMPLICIT
        self.link = Link(
            lambda _: Receiver(shared, partner=partner), self.clock, FakeTLS(), tls_at_once=implicit
        )
        self.problems: list[Failure] = []
        self.link.ended.addErrback(self.problems.append)
        self.link.makeConnection(self.transport)

    def send(self, octets: bytes) -> None:
        """The client sends a segment."""
        self.expect_silence()
        self.transport.writes = 0
        size = 1 if self._dripped else len(octets)
        for start in range(0, len(octets), size or 1):
            if not self.transport.disconnecting:
                self.link.dataReceived(octets[start : start + size])

    def expect_silence(self) -> None:
        """Nothing more was replied."""
        self.replies += self.transport.taken()
        assert not self.replies, f"also replied: {self.replies!r}"

    def expect_line(self, start: str) -> str:
        """The next line of the replies."""
        self.replies += self.transport.taken()
        line, crlf, self.replies = self.replies.partition(b"\r\n")
        assert crlf and line.startswith(start.encode()), f"replied: {line!r}"
        return line.decode()

    def expect_reply(self, code: str) -> None:
        """A whole reply of that code."""
        while self.expect_line(code)[3:4] == "-":
            pass

    def expect_writes(self, number: str) -> None:
        """How many writes there were."""
        assert self._dripped or self.transport.writes == int(number), (
            f"{self.transport.writes} writes"
        )

    def expect_closed(self) -> None:
        """The connection is closed, and everything of the session is put away."""
        self.expect_silence()
        assert self.transport.disconnecting, "the connection is open"
        assert self.gate.sessions == 0, "the gate still counts the session"

    def expect_message(self, text: str) -> None:
        """A message was accepted and is in the spool."""
        assert self.accepted, "no message was accepted"
        message = self.accepted.pop(0)
        assert message in self.spool.messages, "the message is not in the spool"
        envelope = message.envelope
        path = f"<{envelope.reverse_path}>"
        paths = ", ".join(f"<{one.forward_path}>" for one in envelope.recipients)
        wanted, mark, content = text.partition(">: ")
        wanted += ">" if mark else ""
        assert wanted == f"{path} -> {paths}", f"accepted: {path} -> {paths}"
        draft = next(draft for draft in self.spool.drafts if draft.id == message.id)
        assert octets(content) in draft.data, f"content: {draft.data!r}"

    def event(self, name: str) -> None:
        """Something happens that the client does not do."""
        events: dict[str, Callable[[], object]] = {
            "the service stops": self.link.close_gently,
            "TLS begins": self.link.handshakeCompleted,
            "the client closes": lambda: self.link.connectionLost(Failure(ConnectionDone())),
            "the client sends no more": self.link.readConnectionLost,
            "the spool is full": lambda: setattr(self.spool, "failure", SpoolFull("full")),
            "the spool fails": lambda: setattr(self.spool, "failure", OSError("broken")),
            "the spool works": lambda: setattr(self.spool, "failure", None),
            "the spool is slow": self.spool.pause,
            "the spool is done": self.spool.resume,
        }
        events[name]()

    def step(self, kind: str, text: str) -> None:
        """One line of a dialogue."""
        match kind, text:
            case "C", _:
                self.send(b"".join(line.strip(" ").encode() + b"\r\n" for line in text.split("|")))
            case "C raw", _:
                self.send(octets(text))
            case "S", "(closed)":
                self.expect_closed()
            case "S", "(nothing)":
                self.expect_silence()
            case "S", _:
                self.expect_line(text)
            case "S*", _:
                self.expect_reply(text)
            case "W", _:
                self.expect_writes(text)
            case "T", _:
                self.clock.advance(float(text))
            case "E", _:
                self.event(text)
            case _:
                self.expect_message(text)

    def end(self) -> None:
        """The dialogue is over: nothing is left over, nothing went wrong in our own code."""
        self.expect_silence()
        assert not self.accepted, f"also accepted: {self.accepted}"
        if not self.transport.disconnecting:
            self.link.connectionLost(Failure(ConnectionDone()))
        assert self.gate.sessions == 0, "the gate still counts the session"
        for problem in self.problems:
            problem.trap(ChannelLost)


def octets(text: str) -> bytes:
    """The octets that an escaped text means."""
    plain = text.encode("utf-8").decode("unicode_escape").encode("latin-1")
    return _REPEATED.sub(lambda match: match[1] * int(match[2]), plain)


class Script:
    """A conversation in a file: its title, settings and steps with their line numbers."""

    def __init__(self, path: Path, title: str) -> None:
        self.path = path
        self.title = title
        self.settings: dict[str, str] = {}
        self.steps: list[tuple[int, str, str]] = []

    @property
    def name(self) -> str:
        """What its test is called."""
        return re.sub(r"\W+", "_", f"test_{self.path.stem}_{self.title}").rstrip("_")

    def hold(self, *, dripped: bool) -> None:
        """Hold the conversation.  Raises AssertionError with the place in the file."""
        conversation = Conversation(self.settings, dripped=dripped)
        number = 0
        try:
            for number, kind, text in self.steps:
                conversation.step(kind, text)
            conversation.end()
        except AssertionError as error:
            raise AssertionError(f"{self.path}:{number}: {error}") from None


def scripts(path: Path) -> Iterator[Script]:
    """The conversations in one file."""
    script: Script | None = None
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if line.startswith("== "):
            if script:
                yield script
            script = Script(path, line.removeprefix("== "))
        elif line and not line.startswith("#"):
            assert script is not None, f"{path}:{number}: before the first =="
            step = _STEP.fullmatch(line)
            if step:
                script.steps.append((number, step[1], step[2]))
            else:
                name, colon, value = line.partition(": ")
                assert colon and not script.steps, f"{path}:{number}: not understood"
                script.settings[name] = value
    if script:
        yield script


class DialogueTests(SynchronousTestCase):
    """One test for each conversation, and one for the same in single octets."""


def _add(script: Script) -> None:
    def held(self: DialogueTests) -> None:
        script.hold(dripped=False)

    def dripped(self: DialogueTests) -> None:
        script.hold(dripped=True)

    for name, test in ((script.name, held), (f"{script.name}_dripped", dripped)):
        if test is held or script.settings.get("drip") != "no":
            assert not hasattr(DialogueTests, name), f"two conversations are called {name}"
            test.__doc__ = f"{script.path.stem}: {script.title}."
            test.__name__ = name
            setattr(DialogueTests, name, test)


for _path in sorted(FOLDER.glob("*.txt")):
    for _script in scripts(_path):
        _add(_script)
