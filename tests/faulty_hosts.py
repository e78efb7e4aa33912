"""Next hosts that follow the protocol, but for one fault in one phase."""

from __future__ import annotations

import re
from collections.abc import Collection

from tests.next_hops import Connection, NextHops

PHASES = (
    *("greeting", "EHLO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "BDAT"),
    *("content", "end", "QUIT"),
)
FAULTS = (
    *("reset", "close", "stall", "garbage", "early", "late", "double", "missing", "421", "wrong"),
)
# What is said in place of a reply, or of a part of one, by the name of the fault.
ODD_REPLIES = {
    "nothing but an end": b"\r\n",
    "code 000": b"000 fine\r\n",
    "code 999": b"999 fine\r\n",
    "code 199": b"199 fine\r\n",
    "code of two digits": b"25 fine\r\n",
    "code of nine digits": b"250250250 fine\r\n",
    "digits of another script": "\N{FULLWIDTH DIGIT TWO}50 fine\r\n".encode(),
    "blank before the code": b" 250 fine\r\n",
    "NUL before the code": b"\0250 fine\r\n",
    "NULs": b"\0" * 3000 + b"\r\n",
    "ends in LF alone": b"250 fine\n",
    "ends in CR alone": b"250 fine\r",
    "changes its code": b"250-fine\r\n550 no\r\n",
    "never ends": b"250-and more\r\n" * 3000,
    "line of a megabyte": b"250 " + b"x" * 2**20 + b"\r\n",
    "line that does not end": b"250 " + b"x" * 2**17,
    "354": b"354 go ahead\r\n",
    "334": b"334 \r\n",
    "220": b"220 peer ESMTP\r\n",
    "221": b"221 2.0.0 bye\r\n",
    "TLS record": b"\x15\x03\x03\x00\x02\x02\x28",
}
# Replies that are odd, and can be understood.
STRANGE_REPLIES = {
    "code alone": b"{code}\r\n",
    "not ASCII": b"{code} 2.0.0 \xff\xfe\x80 fein\r\n",
    "NUL in the text": b"{code} 2.0.0 fi\0ne\r\n",
    "escape sequences": b"{code} \x1b[2J\x1b]0;x\x07\r\n",
    "many lines": b"{code}-more\r\n" * 99 + b"{code} fine\r\n",
    "code of another class": b"{code} 5.7.1 no\r\n",
}
LATE = 100.0  # seconds, fewer than any step may take
REPLIES = {
    "greeting": "220 peer ESMTP",
    "STARTTLS": "220 go ahead",
    "AUTH": "235 2.7.0 welcome",
    "MAIL": "250 2.1.0 fine",
    "RCPT": "250 2.1.5 fine",
    "DATA": "354 go ahead",
    "RSET": "250 2.0.0 fine",
    "NOOP": "250 2.0.0 fine",
    "QUIT": "221 2.0.0 bye",
}


class Peer:
    """One connection of a host; `taken` are the names of the messages that it took over.

    `phase` and `fault`: what goes wrong, each time the phase comes; empty: nothing.
    """

    def __init__(
        self,
        connection: Connection,
        keywords: Collection[str],
        taken: list[str],
        phase: str = "",
        fault: str = "",
    ) -> None:
        self._connection = connection
        self._keywords = keywords
        self._taken = taken
        self._phase = phase
        self._fault = fault
        self._octets = b""
        self._content: bytes | None = None  # while DATA goes on
        self._envelope: list[str] = []
        self._greeted = False
        self._deaf = False  # it has closed, reset or stalled
        self._later: list[bytes] = []

    def work(self) -> bool:
        """Do what there is to do; whether there was anything."""
        if self._deaf:
            return False
        if not self._greeted:
            self._greeted = True
            self._reply("greeting")
            return True
        self._octets += self._connection.transport.taken()
        return self._content_goes_on() if self._content is not None else self._command()

    def tick(self) -> None:
        """Say what comes late."""
        count = 1 if self._fault == "drips" else len(self._later)
        later, self._later = self._later[:count], self._later[count:]
        for octets in later:
            self._connection.say(octets)

    # --- what it hears

    def _command(self) -> bool:
        line, end, rest = self._octets.partition(b"\r\n")
        if not end:
            return False
        self._octets = rest
        verb, _, argument = line.decode("latin-1").partition(" ")
        match verb:
            case "EHLO":
                self._reply("EHLO", "\r\n".join(self._ehlo()))
            case "MAIL" | "RSET":
                self._envelope = [argument] * (verb == "MAIL")
                self._reply(verb)
            case "RCPT":
                self._envelope.append(argument)
                self._reply("RCPT")
            case "DATA":
                self._content = b""
                self._reply("DATA")
                if (self._phase, self._fault) == ("DATA", "wrong"):
                    self._content = None
            case "BDAT":
                return self._chunk(int(argument.split()[0]))
            case "STARTTLS" if not self._deaf:
                self._reply("STARTTLS")
                if not self._deaf and self._connection.link is not None:
                    self._connection.link.handshakeCompleted()
            case _ if verb in REPLIES:
                self._reply(verb)
                self._deaf = self._deaf or verb == "QUIT"
                if verb == "QUIT":
                    self._connection.close()
            case _:
                self._connection.say(b"500 5.5.1 what?\r\n")
        return True

    def _ehlo(self) -> list[str]:
        lines = ["peer", *self._keywords]
        return [f"250-{line}" for line in lines[:-1]] + [f"250 {lines[-1]}"]

    def _chunk(self, size: int) -> bool:
        if self._breaks_at("BDAT"):
            return True
        if len(self._octets) < size:
            self._octets = b"BDAT %d LAST\r\n" % size + self._octets
            return False
        content, self._octets = self._octets[:size], self._octets[size:]
        self._take_over(content, "BDAT")
        return True

    def _content_goes_on(self) -> bool:
        if self._octets and self._breaks_at("content"):
            return True
        content, end, rest = self._octets.partition(b"\r\n.\r\n")
        if not end:
            return False
        self._octets = rest
        self._content = None
        self._take_over(content, "end")
        return True

    def _take_over(self, content: bytes, phase: str) -> None:
        name = re.search(rb"Subject: (\w+)", content)
        assert name is not None, "content of nothing that we sent"
        if len(self._envelope) < 2:
            self._connection.say(b"503 5.5.1 no envelope\r\n")
            return
        if self._phase != phase or self._fault not in ("wrong", "421", "refuses and closes"):
            self._taken.append(name[1].decode())
        self._envelope = []
        self._reply(phase, "250 2.0.0 taken")

    # --- what it says

    def _breaks_at(self, phase: str) -> bool:
        """Break off before the phase has come to its reply, where that is the fault."""
        if self._phase != phase or self._fault not in ("reset", "close", "stall", "421", "garbage"):
            return False
        self._reply(phase)
        self._phase = ""  # once
        return True

    def _reply(self, phase: str, text: str = "") -> None:
        octets = (text or REPLIES.get(phase, "250 2.0.0 fine")).encode() + b"\r\n"
        if self._early(phase):
            octets += b"250 2.0.0 already\r\n"
        if phase != self._phase:
            self._connection.say(octets)
            return
        match self._fault:
            case "reset" | "close":
                self._deaf = True
                (self._connection.reset if self._fault == "reset" else self._connection.close)()
            case "stall":
                self._deaf = True
            case "garbage":
                self._connection.say(b"\x16\x03\x01 what is this?\r\n")
            case "late":
                self._later.append(octets)
            case "double":
                self._connection.say(octets + octets)
            case "missing":
                pass
            case "421":
                self._connection.say(b"421 4.3.2 closing\r\n")
                self._deaf = True
                self._connection.close()
            case "wrong":
                self._envelope = []
                self._connection.say(b"499 4.0.0 not so\r\n")
            case "refuses and closes":
                self._deaf = True
                self._connection.say(b"554 5.7.1 no\r\n")
                self._connection.close()
            case "drips":
                self._later.extend(bytes([octet]) for octet in octets)
            case "half":
                self._deaf = True
                self._connection.say(octets[:7])
                self._connection.close()
            case odd if odd in ODD_REPLIES:
                self._connection.say(ODD_REPLIES[odd])
            case strange if strange in STRANGE_REPLIES and phase != "EHLO":
                self._connection.say(STRANGE_REPLIES[strange].replace(b"{code}", octets[:3]))
            case _:
                self._connection.say(octets)

    def _early(self, phase: str) -> bool:
        """Whether this is the phase before the one whose reply comes too early."""
        if self._fault != "early" or self._phase not in PHASES:
            return False
        order = [*PHASES, ""]
        following = order[order.index(phase) + 1] if phase in order else ""
        return following == self._phase


class Hosts:
    """Plays the hosts of a hop: the one at `bad` has the fault, all others have none."""

    def __init__(
        self, hops: NextHops, keywords: Collection[str], bad: str, phase: str, fault: str
    ) -> None:
        self.taken: list[str] = []
        self.dialled: list[str] = []
        self._hops = hops
        self._keywords = keywords
        self._fault = {bad: (phase, fault)}
        self._peers: list[Peer] = []

    def run(self, names: Collection[str], longest: float) -> float:
        """Let time pass until all these messages have an outcome; returns how much did."""
        passed = 0.0
        while True:
            while self._accept() or any(peer.work() for peer in self._peers):
                pass
            if all(name in self._hops.outcomes for name in names) or passed > longest:
                return passed
            step = LATE / 10
            self._hops.reactor.advance(step)
            passed += step
            if passed % LATE == 0:
                for peer in self._peers:
                    peer.tick()

    def _accept(self) -> bool:
        connection = self._hops.next_connection()
        if connection is None:
            return False
        self.dialled.append(connection.address)
        connection.accept()
        phase, fault = self._fault.get(connection.address, ("", ""))
        self._peers.append(Peer(connection, self._keywords, self.taken, phase, fault))
        return True
