"""Hosts whose replies may belong to something else: they are no verdicts.

Each host errs in one way, in one phase.  Whatever it is: nothing good bounces, nothing that was
refused counts as sent, and nothing waits for minutes.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mta.mail import Agent, Hop, Security, Status
from mta.testing import FakeResolver
from tests.erring_host import REPLIES, Host, Network, Session, Twist
from tests.next_hops import NextHops

MANNERS = ("PIPELINING", "PIPELINING CHUNKING", "SIZE")
PHASES = ("greeting", "EHLO", "MAIL", "RCPT", "DATA", "end", "RSET", "QUIT")
GOOD = ("G1", "G2", "G3", "G4")
MAIL = {
    "G1": ("bob",),
    "R1": ("nobody",),
    "G2": ("carol",),
    "R2": ("nobody",),
    "S1": ("bob",),
    "G3": ("dave", "erin"),
    "L1": ("later",),
    "G4": ("bob",),
}


def content(name: str) -> bytes:
    """A message that has its name as the subject, or is spam."""
    subject = "spam" if name[0] == "S" else name
    return f"Received: from x by y\r\nSubject: {subject}\r\n\r\nNOOP\r\nQUIT\r\n{name}\r\n".encode()


def network(host: Host, *, agent: Agent = Agent.SMTP, names: tuple[str, ...] = ()) -> Network:
    """All of the mail, on its way to that host."""
    hop = Hop(agent, "host.example", 25, security=Security.OFF)
    hops = NextHops(FakeResolver({}, {"host.example": ["192.0.2.1"]}), hop=hop)
    for name in names or MAIL:
        hops.send(name, *MAIL[name], content=content(name))
    return Network(hops, host)


def doubled(phase: str, only: int = 0) -> Twist:
    """Says its replies to one phase twice; only the one with that number, or all."""

    def twist(session: Session, current: str, reply: bytes) -> bytes:
        is_meant = current == phase and only in (0, session.host.counts[phase])
        return reply * 2 if is_meant else reply

    return twist


def with_more(phase: str, more: bytes) -> Twist:
    """Adds something to its replies to one phase."""
    return lambda session, current, reply: reply + more if current == phase else reply


def instead(phase: str, other: bytes, only: int = 0) -> Twist:
    """Says something else in one phase; only in the reply with that number, or in all."""

    def twist(session: Session, current: str, reply: bytes) -> bytes:
        is_meant = current == phase and only in (0, session.host.counts[phase])
        return other if is_meant else reply

    return twist


def early(phase: str) -> Twist:
    """Says the reply to one phase before it is asked, and then nothing."""
    before = PHASES[max(0, PHASES.index(phase) - 1)]
    reply_to = REPLIES[phase]

    def twist(session: Session, current: str, reply: bytes) -> bytes:
        if current == before:
            return reply + reply_to
        return b"" if current == phase else reply

    return twist


class OutOfStepTests(SynchronousTestCase):
    """Rows of hosts that err."""

    def statuses(self, played: Network, name: str) -> set[Status]:
        """What became of a message."""
        return {outcome.status for outcome in played.hops.outcomes[name]}

    def assert_no_wrong_verdict(self, played: Network, place: object) -> None:
        """Nothing good failed; nothing refused was relayed; what was relayed has arrived."""
        for name, outcomes in played.hops.outcomes.items():
            text = f"{place}: {name}: {[str(one.reply) for one in outcomes]}"
            statuses = self.statuses(played, name)
            if name[0] == "G":
                self.assertNotIn(Status.FAILED, statuses, text)
                if Status.RELAYED in statuses:
                    people = MAIL[name]
                    self.assertTrue(
                        all(f"{one} {name}" in played.host.delivered for one in people), text
                    )
            else:
                self.assertNotIn(Status.RELAYED, statuses, text)
                if name[0] == "L":
                    self.assertEqual(statuses, {Status.DEFERRED}, text)
            if Status.FAILED in statuses:
                self.assertIn(outcomes[0].reply.enhanced, ("5.1.1", "5.5.1", "5.7.1"), text)

    def assert_all_well(self, played: Network, place: object, copies: int = 1) -> None:
        """Each has what is due to it."""
        self.assert_no_wrong_verdict(played, place)
        for name, people in MAIL.items():
            if name not in played.hops.outcomes:
                continue
            expected = {
                "G": Status.RELAYED,
                "R": Status.FAILED,
                "S": Status.FAILED,
                "L": Status.DEFERRED,
            }[name[0]]
            self.assertEqual(self.statuses(played, name), {expected}, f"{place}: {name}")
            if name[0] == "G":
                for one in people:
                    count = played.host.delivered.count(f"{one} {name}")
                    self.assertIn(count, range(1, copies + 1), f"{place}: {name}")

    def test_hosts_that_do_not_err(self) -> None:
        """In every manner; on one connection."""
        for keywords in MANNERS:
            played = network(Host(keywords))
            played.run()
            self.assert_all_well(played, keywords)
            self.assertEqual(len(played.host.sessions), 1, keywords)

    def test_a_chunk_that_is_read_as_commands(self) -> None:
        """Whatever the host says to BDAT, always or where nobody was taken."""
        for code in (500, 501, 502, 503, 504, 550, 554, 451):
            for needs_recipients in (True, False):
                if not needs_recipients and code in (550, 554, 451):
                    continue  # then it is a verdict
                for order in (tuple(MAIL), tuple(reversed(MAIL)), ("R1",), ("R1", "G1")):
                    host = Host(
                        "PIPELINING CHUNKING",
                        no_chunk=b"%d no\r\n" % code,
                        needs_recipients=needs_recipients,
                    )
                    played = network(host, names=order)
                    played.run()
                    self.assert_all_well(played, (code, needs_recipients, order), copies=2)

    def test_commands_behind_the_final_dot(self) -> None:
        """Dropped as by Courier and chasquid, refused as by Haraka: no bounce, no stall."""
        for behind_dot in ("taken", "dropped", "refused"):
            for order in (tuple(MAIL), tuple(reversed(MAIL)), GOOD):
                played = network(Host(behind_dot=behind_dot), names=order)
                played.run()
                self.assert_all_well(played, (behind_dot, order))
                self.assertLess(played.seconds, 10, behind_dot)
                self.assertLessEqual(len(played.host.sessions), 2, behind_dot)

    def test_a_host_that_changes_its_mind(self) -> None:
        """It took what came behind the dot, and does no more: it is asked again."""
        for behind_dot in ("dropped", "refused"):
            host = Host()
            played = network(host, names=GOOD[:3])
            played.run()
            self.assertEqual(len(host.sessions), 1)
            host.behind_dot = behind_dot
            for name in ("R1", "G4", "S1", "R2", "L1"):
                played.hops.send(name, *MAIL[name], content=content(name))
            played.run()
            self.assert_all_well(played, behind_dot)
            self.assertLess(played.seconds, 60)

    def test_double_replies(self) -> None:
        """In every phase."""
        for keywords in MANNERS:
            for phase in PHASES:
                played = network(Host(keywords, twist=doubled(phase)))
                played.run()
                self.assert_no_wrong_verdict(played, ("double", keywords, phase))

    def test_one_double_reply(self) -> None:
        """Any one of each phase."""
        for keywords in MANNERS:
            for phase in PHASES:
                for only in range(1, 8):
                    played = network(Host(keywords, twist=doubled(phase, only)))
                    played.run()
                    self.assert_no_wrong_verdict(played, ("one double", keywords, phase, only))

    def test_replies_to_nothing(self) -> None:
        """Of any kind, after the reply of any phase."""
        for keywords in MANNERS:
            for phase in PHASES:
                for more in (
                    b"250 ok\r\n",
                    b"550 no\r\n",
                    b"354 go\r\n",
                    b"eh?\r\n",
                    b"250-more\r\n",
                ):
                    played = network(Host(keywords, twist=with_more(phase, more)))
                    played.run()
                    self.assert_no_wrong_verdict(played, (keywords, phase, more))

    def test_replies_after_421(self) -> None:
        """They count for nothing."""
        for keywords in MANNERS:
            for phase in PHASES:
                for more in (b"250 ok\r\n", b"550 no\r\n"):
                    twist = instead(phase, b"421 closing\r\n" + more)
                    played = network(Host(keywords, twist=twist))
                    played.run()
                    self.assert_no_wrong_verdict(played, (keywords, phase, more))

    def test_odd_replies(self) -> None:
        """That answer something else, or nothing."""
        odd = (
            b"354 go\r\n",
            b"334 ?\r\n",
            b"220 hi\r\n",
            b"221 bye\r\n",
            b"235 in\r\n",
            b"eh?\r\n",
        )
        for keywords in MANNERS:
            for phase in ("MAIL", "RCPT", "DATA", "end", "RSET"):
                for reply in (*odd, b"250-a\r\n550 b", b"500 what?", b"503 order"):
                    for only in (1, 2):
                        if phase == "DATA" and reply == odd[0]:
                            continue
                        played = network(
                            Host(keywords, twist=instead(phase, reply + b"\r\n", only))
                        )
                        played.run()
                        place = (keywords, phase, reply, only)
                        if reply[:1] == b"5" and keywords == "SIZE":
                            continue  # each reply was awaited: it is a verdict
                        self.assert_no_wrong_verdict(played, place)

    def test_replies_that_never_come(self) -> None:
        """One of each phase: those to other commands are not taken for it."""
        for keywords in MANNERS:
            for phase in ("MAIL", "RCPT", "DATA", "end", "RSET"):
                for only in range(1, 5):
                    played = network(Host(keywords, twist=instead(phase, b"", only)))
                    played.run(most=1500)
                    self.assert_no_wrong_verdict(played, (keywords, phase, only))

    def test_early_replies(self) -> None:
        """Before the command was sent, or its end."""
        for keywords in MANNERS:
            for phase in ("MAIL", "RCPT", "DATA", "end"):
                played = network(Host(keywords, twist=early(phase)))
                played.run(most=700)
                self.assert_no_wrong_verdict(played, (keywords, phase))

    def test_lmtp_with_too_many_replies(self) -> None:
        """One for each RCPT, also for those it refused: nobody knows which is whose."""
        for keywords in ("PIPELINING", "SIZE"):
            for extra in (b"550 5.1.1 who?\r\n", b"250 2.1.5 also\r\n"):
                host = Host(keywords, lmtp=True, for_refused=extra)
                hop = Hop(Agent.LMTP, "host.example", 24, security=Security.OFF)
                hops = NextHops(FakeResolver({}, {"host.example": ["192.0.2.1"]}), hop=hop)
                hops.send("G3", "nobody", "dave", "erin", content=content("G3"))
                played = Network(hops, host)
                played.run()
                nobody, dave, erin = hops.outcomes["G3"]
                self.assertEqual(nobody.status, Status.FAILED)
                self.assertNotIn(Status.FAILED, {dave.status, erin.status}, (keywords, extra))

    def test_lmtp_with_too_few_replies(self) -> None:
        """Those without one wait; no other command's reply is theirs."""
        for keywords in ("PIPELINING", "SIZE"):

            def twist(session: Session, phase: str, reply: bytes) -> bytes:
                return b"" if phase == "end" and session.host.counts["end"] == 2 else reply

            host = Host(keywords, twist=twist, lmtp=True)
            hop = Hop(Agent.LMTP, "host.example", 24, security=Security.OFF)
            hops = NextHops(FakeResolver({}, {"host.example": ["192.0.2.1"]}), hop=hop)
            hops.send("G3", "dave", "erin", content=content("G3"))
            hops.send("G4", "bob", content=content("G4"))
            played = Network(hops, host)
            played.run(most=1300)
            dave, erin = hops.outcomes["G3"]
            self.assertEqual((dave.status, erin.status), (Status.DELIVERED, Status.DEFERRED))
            self.assertIn(hops.outcomes["G4"][0].status, (Status.DELIVERED, Status.DEFERRED))
