"""A host in memory that speaks SMTP, and errs where a test lets it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

from tests.next_hops import Connection, NextHops

Twist = Callable[["Session", str, bytes], bytes]
REPLIES = {
    "greeting": b"220 host ESMTP\r\n",
    "MAIL": b"250 2.1.0 mail\r\n",
    "RCPT": b"250 2.1.5 rcpt\r\n",
    "DATA": b"354 go\r\n",
    "RSET": b"250 2.0.0 reset\r\n",
    "NOOP": b"250 2.0.0 noop\r\n",
    "QUIT": b"221 2.0.0 bye\r\n",
    "end": b"250 2.0.0 taken\r\n",
}
AFTERWARDS = 10  # seconds in which idle connections end
NO_RECIPIENTS = b"554 5.5.1 no valid recipients\r\n"


class Host:
    """What all sessions with one host share.

    `twist` makes of each reply what is sent, by the phase that it belongs to.  `behind_dot` says
    what becomes of commands that came in one piece with the end of content: ``taken``,
    ``dropped`` (as by Courier and chasquid) or ``refused`` (as by Haraka).  `no_chunk` is the reply
    to a chunk, which is then read as commands: always, or where nobody was taken
    (`needs_recipients`).  With LMTP, `for_refused` is said for those, too, that RCPT refused.
    """

    def __init__(
        self,
        keywords: str = "PIPELINING",
        *,
        twist: Twist = lambda session, phase, reply: reply,
        behind_dot: str = "taken",
        no_chunk: bytes = b"",
        needs_recipients: bool = False,
        lmtp: bool = False,
        for_refused: bytes = b"",
    ) -> None:
        self.keywords = keywords.split()
        self.twist = twist
        self.behind_dot = behind_dot
        self.no_chunk = no_chunk
        self.needs_recipients = needs_recipients
        self.lmtp = lmtp
        self.for_refused = for_refused
        self.counts: Counter[str] = Counter()  # of replies, by phase, in all sessions
        self.delivered: list[str] = []  # recipient and subject
        self.sessions: list[Session] = []


class Session:
    """One connection to the host."""

    def __init__(self, host: Host, connection: Connection) -> None:
        self.host = host
        self.heard: list[str] = []
        self.closed = False
        self._connection = connection
        self._input = b""
        self._out = b""
        self._content: bytes | None = None
        self._reset()
        host.sessions.append(self)
        self.reply("greeting")
        self._flush()

    def _reset(self) -> None:
        self._mail = False
        self._recipients: list[str] = []
        self._refused = 0

    def reply(self, phase: str, octets: bytes = b"") -> None:
        """Say something, twisted as the host does it."""
        self.host.counts[phase] += 1
        self._out += self.host.twist(self, phase, octets or REPLIES[phase])

    def _flush(self) -> None:
        out, self._out = self._out, b""
        if out:
            self._connection.say(out)

    def pump(self) -> bool:
        """Take what was sent, and answer; whether there was something."""
        if self.closed:
            return False
        octets = self._connection.transport.taken()
        self._input += octets
        while not self.closed and self._step():
            pass
        self._flush()
        if self.closed or self._connection.transport.disconnecting:
            self.closed = True
            if not self._connection.transport.disconnecting:
                self._connection.close()
            return True
        return bool(octets)

    def _step(self) -> bool:
        """One command, or one content."""
        if self._content is not None:
            content, dot, rest = self._input.partition(b"\r\n.\r\n")
            if not dot and self._input[:3] == b".\r\n":
                content, dot, rest = b"", b".", self._input[3:]
            if not dot:
                return False
            self._content, self._input = None, rest
            self._end(content)
            self._behind_dot()
            return True
        line, end, rest = self._input.partition(b"\r\n")
        if not end:
            return False
        self._input = rest
        self._command(line.decode("utf-8", "replace"))
        return True

    def _behind_dot(self) -> None:
        commands = self._input.count(b"\r\n")
        if self.host.behind_dot != "taken":
            self._input = b""
        if self.host.behind_dot == "refused":
            for _ in range(commands):
                self.reply("behind dot", b"503 pipelined after end of DATA\r\n")

    def _command(self, line: str) -> None:
        self.heard.append(line)
        verb = line.partition(" ")[0].upper()
        match verb:
            case "EHLO" | "LHLO":
                lines = ["host", *self.host.keywords]
                last = len(lines) - 1
                text = "".join(
                    f"250{' ' if number == last else '-'}{one}\r\n"
                    for number, one in enumerate(lines)
                )
                self._reset()
                self.reply("EHLO", text.encode())
            case "MAIL":
                self._mail = True
                self.reply("MAIL")
            case "RCPT":
                self._rcpt(line)
            case "DATA":
                if self._recipients:
                    self._content = b""
                    self.reply("DATA")
                else:
                    self.reply("DATA", NO_RECIPIENTS)
            case "BDAT":
                self._bdat(int(line.split()[1]))
            case "RSET":
                self._reset()
                self.reply("RSET")
            case "NOOP":
                self.reply("NOOP")
            case "QUIT":
                self.reply("QUIT")
                self._flush()
                self.closed = True
            case _:
                self.reply("unknown", b"500 5.5.1 what?\r\n")

    def _rcpt(self, line: str) -> None:
        found = re.search(r"<(.*)@", line)
        name = found[1] if found else "?"
        if not self._mail:
            self.reply("RCPT", b"503 5.5.1 need MAIL\r\n")
        elif name == "nobody":
            self._refused += 1
            self.reply("RCPT", b"550 5.1.1 who?\r\n")
        elif name == "later":
            self.reply("RCPT", b"450 4.2.1 later\r\n")
        else:
            self._recipients.append(name)
            self.reply("RCPT")

    def _bdat(self, size: int) -> None:
        host = self.host
        if host.no_chunk and not (host.needs_recipients and self._recipients):
            self.reply("end", host.no_chunk)  # and what follows is read as commands
            return
        content, self._input = self._input[:size], self._input[size:]
        self._end(content)

    def _end(self, content: bytes) -> None:
        found = re.search(rb"Subject: (.*)", content)
        subject = found[1].decode().strip() if found else "?"
        if not self._recipients:
            self.reply("end", NO_RECIPIENTS)
        elif subject == "spam":
            self.reply("end", b"554 5.7.1 spam\r\n")
        else:
            self.host.delivered += [f"{name} {subject}" for name in self._recipients]
            for _ in range(self._refused if self.host.for_refused else 0):
                self.reply("end", self.host.for_refused)
            for _ in self._recipients if self.host.lmtp else [0]:
                self.reply("end")
        self._reset()


class Network:
    """Our delivery and the hosts it reaches, all of them the same one."""

    def __init__(self, hops: NextHops, host: Host) -> None:
        self.hops = hops
        self.host = host
        self.seconds = 0.0
        self._sessions: list[Session] = []

    def run(self, most: float = 100.0) -> None:
        """Carry everything, and let time pass: until all messages have an outcome, and a little."""
        self.hops.dispatch()
        self._carry_all()
        while not self.hops.is_idle and self.seconds < most:
            self._let_pass_a_second()
            self.seconds += 1
        for _ in range(AFTERWARDS):
            self._let_pass_a_second()

    def _let_pass_a_second(self) -> None:
        self.hops.reactor.advance(1.0)
        self._carry_all()

    def _carry_all(self) -> None:
        while self._carry():
            pass

    def _carry(self) -> bool:
        moved = False
        while (connection := self.hops.next_connection()) is not None:
            connection.accept()
            self._sessions.append(Session(self.host, connection))
            moved = True
        for session in self._sessions:
            moved = session.pump() or moved
        self.hops.reactor.advance(0)
        return moved
