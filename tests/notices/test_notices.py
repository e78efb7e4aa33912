"""Delivery status notifications (RFC 3461, RFC 3464, RFC 6522, RFC 6533)."""

from dataclasses import replace
from email import message_from_bytes, policy
from email.message import EmailMessage
from email.message import Message as Part

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mta.interfaces import INotices
from mta.mail import (
    NULL_PATH,
    Agent,
    Body,
    Envelope,
    Hop,
    Mailbox,
    Notify,
    Outcome,
    Recipient,
    Reply,
    Status,
)
from mta.notices import MAX_CONTENT, POSTMASTER, NoticeWriter
from mta.queued import Message, Notice, Progress, Target
from mta.smtp import sevenbit
from mta.smtp.fit import ContentInMemory
from mta.testing import FakeContent

NOW = 1_700_000_000.0
ALICE = Mailbox("alice", "sender.example")
BOB = Mailbox("bob", "rcpt.example")
HOP = Hop(Agent.MX, "rcpt.example")
NO_SUCH_USER = Outcome(
    Status.FAILED, Reply(550, "5.1.1", ("No such user here",)), "mx.rcpt.example"
)
LATER = Outcome(Status.DEFERRED, Reply(451, "4.3.0", ("Try later",)), "mx.rcpt.example")
DONE = Outcome(Status.DELIVERED, Reply(250, "2.0.0", ("OK",)))
RELAYED = Outcome(Status.RELAYED, Reply(250, "2.0.0", ("OK",)), "mx.rcpt.example")
CONTENT = b"Subject: hello\r\nMessage-ID: <1@sender.example>\r\n\r\nThe body.\r\n"


def message(
    *recipients: Recipient,
    reverse_path: Mailbox = ALICE,
    content: bytes = CONTENT,
    ret: str = "",
    envid: str = "",
    smtputf8: bool = False,
) -> Message:
    recipients = recipients or (Recipient(BOB),)
    envelope = Envelope(reverse_path, recipients, ret=ret, envid=envid, smtputf8=smtputf8)
    return Message("Q1", NOW - 60, envelope, FakeContent(content), tuple(map(Progress, recipients)))


class NoticeTestCase(SynchronousTestCase):
    """What the tests share."""

    def setUp(self) -> None:
        self.writer = NoticeWriter("mta.example", lambda: NOW, lambda: "token0123")

    def notice(
        self, message: Message, outcome: Outcome = NO_SUCH_USER, address: Mailbox | None = None
    ) -> Notice | None:
        """The notice about one outcome for all recipients."""
        reports = [
            (Target(number, address or recipient.forward_path, HOP), outcome)
            for number, recipient in enumerate(message.envelope.recipients)
        ]
        return self.successResultOf(self.writer.notice(message, reports, NOW + 3600))

    def parsed(self, *arguments: object, **keywords: object) -> EmailMessage:
        """The notice, as a program for mail reads it."""
        notice = self.notice(*arguments, **keywords)
        assert notice is not None
        parsed = message_from_bytes(notice.content, policy=policy.SMTP)
        for part in parsed.walk():
            self.assertEqual([], part.defects)
        return parsed

    def fields(self, parsed: EmailMessage, place: int = 1) -> Part:
        """A group of fields of the part for programs; 0: those of the message."""
        return parsed.get_payload(1).get_payload(place)


class NoticeTests(NoticeTestCase):
    """What a notice says, and to whom."""

    def test_it_keeps_its_promises(self) -> None:
        """The writer provides INotices."""
        verifyObject(INotices, self.writer)

    def test_report(self) -> None:
        """A failure is a multipart/report of three parts with null reverse-path, to the sender."""
        notice = self.notice(message())
        assert notice is not None
        self.assertEqual(Envelope(NULL_PATH, (Recipient(ALICE),)), notice.envelope)
        parsed = self.parsed(message())
        self.assertEqual("multipart/report", parsed.get_content_type())
        self.assertEqual("delivery-status", parsed.get_param("report-type"))
        self.assertEqual(
            ["text/plain", "message/delivery-status", "text/rfc822-headers"],
            [part.get_content_type() for part in parsed.get_payload()],
        )
        self.assertEqual("Mail Delivery System <MAILER-DAEMON@mta.example>", parsed["From"])
        self.assertEqual("alice@sender.example", parsed["To"])
        self.assertEqual("auto-replied", parsed["Auto-Submitted"])
        self.assertEqual("<token0123@mta.example>", parsed["Message-ID"])
        self.assertEqual("Tue, 14 Nov 2023 22:13:20 +0000", parsed["Date"])

    def test_fields(self) -> None:
        """The part for programs has the fields of RFC 3464."""
        parsed = self.parsed(message(Recipient(BOB, original="rfc822;b@old.example"), envid="E+1"))
        self.assertEqual(
            {
                "Reporting-MTA": "dns; mta.example",
                "Original-Envelope-Id": "E+1",
                "Arrival-Date": "Tue, 14 Nov 2023 22:12:20 +0000",
            },
            dict(self.fields(parsed, 0).items()),
        )
        self.assertEqual(
            {
                "Original-Recipient": "rfc822;b@old.example",
                "Final-Recipient": "rfc822; bob@rcpt.example",
                "Action": "failed",
                "Status": "5.1.1",
                "Remote-MTA": "dns; mx.rcpt.example",
                "Diagnostic-Code": "smtp; 550 5.1.1 No such user here",
                "Last-Attempt-Date": "Tue, 14 Nov 2023 22:13:20 +0000",
            },
            dict(self.fields(parsed).items()),
        )

    def test_words(self) -> None:
        """The part for people says what happened, to whom, and what to do."""
        text = self.parsed(message()).get_payload(0).get_content()
        for words in (
            "could not be delivered",
            "bob@rcpt.example",
            "mx.rcpt.example said:",
            "No such user here",
            "Check the address",
        ):
            self.assertIn(words, text)

    def test_alias(self) -> None:
        """An address that the sender never wrote is told together with the one that he did."""
        text = self.parsed(message(), address=Mailbox("b", "else.example")).get_payload(0)
        self.assertIn("bob@rcpt.example (which stands for b@else.example)", text.get_content())

    def test_own_words(self) -> None:
        """A reply of our own isn't passed off as a server's."""
        outcome = Outcome(Status.FAILED, Reply(554, "5.4.7", ("Gave up",)))
        fields = self.fields(self.parsed(message(), outcome))
        self.assertEqual("x-mta; 554 5.4.7 Gave up", fields["Diagnostic-Code"])
        self.assertNotIn("Remote-MTA", fields)

    def test_status_without_enhanced_code(self) -> None:
        """Where the peer gave no enhanced code, the status is a general one."""
        outcome = Outcome(Status.FAILED, Reply(550, "", ("No",)), "mx.rcpt.example")
        self.assertEqual("5.0.0", self.fields(self.parsed(message(), outcome))["Status"])

    def test_the_class_of_a_status(self) -> None:
        """What is delayed has a status of that class, though a log-in was refused for good."""
        refused = Outcome(Status.DEFERRED, Reply(535, "5.7.8", ("Wrong password",)), "relay")
        self.assertEqual(self.fields(self.parsed(message(), refused))["Status"], "4.7.8")

    def test_delay(self) -> None:
        """A delay warning says until when the message is tried."""
        parsed = self.parsed(message(), LATER)
        self.assertEqual("delayed", self.fields(parsed)["Action"])
        self.assertEqual("Tue, 14 Nov 2023 23:13:20 +0000", self.fields(parsed)["Will-Retry-Until"])
        self.assertIn("need not send it again", parsed.get_payload(0).get_content())

    def test_success(self) -> None:
        """Success is told as delivered or relayed."""
        asked = message(Recipient(BOB, frozenset({Notify.SUCCESS})))
        for outcome, action in ((DONE, "delivered"), (RELAYED, "relayed")):
            fields = self.fields(self.parsed(asked, outcome))
            self.assertEqual(action, fields["Action"])
            self.assertNotIn("Diagnostic-Code", fields)

    def test_never_about_a_notice(self) -> None:
        """There is no notice to a null reverse-path: a failure is the postmaster's, whole, and
        anything less is nobody's (RFC 5321 section 6.1)."""
        lost = message(reverse_path=NULL_PATH)
        notice = self.notice(lost)
        assert notice is not None
        self.assertEqual(Envelope(NULL_PATH, (POSTMASTER,)), notice.envelope)
        parsed = self.parsed(lost)
        self.assertEqual("Postmaster@mta.example", parsed["To"])
        self.assertEqual("A notice could not be delivered", parsed["Subject"])
        self.assertIn(b"The body.", notice.content)
        self.assertIsNone(self.notice(lost, LATER))

    def test_no_loop(self) -> None:
        """What the postmaster should have been told and can't is told to the log alone."""
        lost = message(POSTMASTER, reverse_path=NULL_PATH)
        with capturedLogs() as events:
            self.assertIsNone(self.notice(lost))
        self.assertEqual(["Q1"], [event["queue_id"] for event in events])

    def test_notice_not_wanted(self) -> None:
        """NOTIFY=NEVER holds for the postmaster too."""
        quiet = Recipient(BOB, frozenset({Notify.NEVER}))
        self.assertIsNone(self.notice(message(quiet, reverse_path=NULL_PATH)))

    def test_what_was_asked_for(self) -> None:
        """NOTIFY decides which notices are sent; failures and delays are unless it says else."""
        for outcome, condition, unasked in (
            (NO_SUCH_USER, Notify.FAILURE, True),
            (LATER, Notify.DELAY, True),
            (DONE, Notify.SUCCESS, False),
        ):
            for notify in (Notify.NEVER, Notify.SUCCESS, Notify.DELAY, Notify.FAILURE):
                asked = message(Recipient(BOB, frozenset({notify})))
                is_sent = self.notice(asked, outcome) is not None
                self.assertEqual(notify is condition, is_sent, (outcome, notify))
            self.assertEqual(unasked, self.notice(message(), outcome) is not None)

    def test_only_who_wants_it(self) -> None:
        """Recipients with NOTIFY=NEVER don't appear among others."""
        carol = Recipient(Mailbox("carol", "rcpt.example"), frozenset({Notify.NEVER}))
        notice = self.notice(message(Recipient(BOB), carol))
        assert notice is not None
        self.assertNotIn(b"carol", notice.content)

    def test_header_alone(self) -> None:
        """Unless RET=FULL asks for more, the header section is returned."""
        returned = self.parsed(message()).get_payload(2)
        self.assertEqual("text/rfc822-headers", returned.get_content_type())
        self.assertEqual(
            CONTENT.partition(b"\r\n\r\n")[0] + b"\r\n", returned.get_payload(decode=True)
        )

    def test_whole_message(self) -> None:
        """RET=FULL returns the message of a failure, octet by octet."""
        notice = self.notice(message(ret="FULL"))
        assert notice is not None
        self.assertIn(b"Content-Type: message/rfc822\r\n", notice.content)
        self.assertIn(b"\r\n\r\n" + CONTENT + b"\r\n--=_token0123--\r\n", notice.content)

    def test_what_must_not_travel_without_tls(self) -> None:
        """Its body does not come back, and the notice is to be kept from prying eyes as well
        (RFC 8689 section 5)."""
        demanding = message(ret="FULL")
        envelope = replace(demanding.envelope, require_tls=True)
        notice = self.notice(replace(demanding, envelope=envelope))
        assert notice is not None
        self.assertNotIn(b"The body.", notice.content)
        self.assertTrue(notice.envelope.require_tls)

    def test_no_message_with_a_warning(self) -> None:
        """RET concerns failures only (RFC 3461 section 4.3)."""
        notice = self.notice(message(ret="FULL"), LATER)
        assert notice is not None
        self.assertNotIn(b"The body.", notice.content)

    def test_large_message(self) -> None:
        """Of a large message the header section is returned, whatever RET says."""
        notice = self.notice(message(ret="FULL", content=CONTENT + b"x\r\n" * MAX_CONTENT))
        assert notice is not None
        self.assertIn(b"text/rfc822-headers", notice.content)
        self.assertLess(len(notice.content), 5000)

    def test_content_that_can_not_be_returned(self) -> None:
        """Binary content, or overlong lines, are not put into a notice."""
        for octets in (CONTENT + b"\0\r\n", CONTENT + b"a\nb\r\n", CONTENT + b"x" * 999 + b"\r\n"):
            notice = self.notice(message(ret="FULL", content=octets))
            assert notice is not None
            self.assertIn(b"text/rfc822-headers", notice.content)

    def test_eight_bit(self) -> None:
        """A returned message with octets over 127 makes the notice 8BITMIME."""
        notice = self.notice(message(ret="FULL", content=CONTENT + b"\xe9\r\n"))
        assert notice is not None
        self.assertIs(Body.EIGHT_BIT, notice.envelope.body)
        self.assertIn(b"Content-Transfer-Encoding: 8bit", notice.content)

    def test_lost_content(self) -> None:
        """A sender hears of a failure even where the spool lost the content."""
        content = FakeContent(size=100, failure=OSError("damaged"))
        lost = Message("Q1", NOW, message().envelope, content, message().progress)
        parsed = self.parsed(lost)
        self.assertEqual(2, len(parsed.get_payload()))

    def test_internationalised(self) -> None:
        """Internationalised addresses give the parts of RFC 6533."""
        sender, recipient = Mailbox("jürgen", "sender.example"), Mailbox("用户", "rcpt.example")
        notice = self.notice(
            message(Recipient(recipient), reverse_path=sender, smtputf8=True, content=CONTENT)
        )
        assert notice is not None
        self.assertTrue(notice.envelope.smtputf8)
        self.assertIn(b"Content-Type: message/global-delivery-status\r\n", notice.content)
        self.assertIn(b"Content-Type: message/global-headers\r\n", notice.content)
        self.assertIn("Final-Recipient: utf-8; 用户@rcpt.example\r\n".encode(), notice.content)
        self.assertIn("To: <jürgen@sender.example>\r\n".encode(), notice.content)

    @given(st.text(), st.text(), st.text(max_size=5000), st.binary())
    def test_nothing_gets_in(self, envid: str, remote: str, text: str, header: bytes) -> None:
        """Whatever peers write: the same fields, ASCII lines under 998, ended by CRLF."""
        outcome = Outcome(Status.FAILED, Reply(550, "5.1.1", tuple(text.split("\n"))), remote)
        content = (b"Subject: " + header).replace(b"\r\n\r\n", b"")
        notice = self.notice(message(content=content + b"\r\n\r\n", envid=envid), outcome)
        assert notice is not None
        self.assertTrue(notice.content.isascii())
        self.assertNotIn(b"\n", notice.content.replace(b"\r\n", b""))
        self.assertNotIn(b"\r", notice.content.replace(b"\r\n", b""))
        self.assertLessEqual(max(map(len, notice.content.split(b"\r\n"))), 998)
        parsed = message_from_bytes(notice.content, policy=policy.SMTP)
        self.assertEqual(3, len(parsed.get_payload()))
        allowed = {"Final-Recipient", "Action", "Status", "Remote-MTA", "Diagnostic-Code"}
        fields = self.fields(parsed)
        self.assertEqual(set(fields) - allowed, {"Last-Attempt-Date"})
        self.assertEqual(len(set(fields)), len(fields))


class OutsiderTests(NoticeTestCase):
    """Senders that are neither users nor hosts of ours are told of what they named, and no more."""

    HR, EVE = Mailbox("hr", "rcpt.example"), Mailbox("eve", "private.example")
    INSIDE = Hop(Agent.SMTP, "exchange01", 25)

    def told(
        self,
        *reports: tuple[Mailbox, Outcome],
        content: bytes = CONTENT,
        notify: frozenset[Notify] = frozenset(),
        settled: frozenset[str] = frozenset(),
    ) -> EmailMessage | None:
        """The notice about mail to hr, who stands for those addresses."""
        recipient = Recipient(self.HR, notify)
        original = message(recipient, ret="FULL", content=content)
        original = replace(
            original,
            envelope=replace(original.envelope, outside=True),
            progress=(Progress(recipient, settled=settled),),
        )
        targets = [(Target(0, address, self.INSIDE), outcome) for address, outcome in reports]
        notice = self.successResultOf(self.writer.notice(original, targets, NOW + 3600))
        return notice and message_from_bytes(notice.content, policy=policy.SMTP)

    def test_no_content(self) -> None:
        """Of the message its header section goes back, whatever RET said."""
        for content in (CONTENT, b"Subject: x\r\nThe body.\r\n", b"The body.\r\n\r\n"):
            told = self.told((self.HR, NO_SUCH_USER), content=content)
            self.assertNotIn("The body.", str(told))
            self.assertEqual(told.get_payload(2).get_content_type(), "text/rfc822-headers")

    def test_nobody_behind_an_address(self) -> None:
        """One report for an alias, under the name that was asked for; no host, no reply."""
        failed = Outcome(
            Status.FAILED,
            Reply(550, "5.1.1", ("<eve@private.example>: unknown at mail.inside [10.0.0.5]",)),
            "mail.inside",
        )
        told = self.told((self.EVE, failed), (Mailbox("mallory", "x.example"), failed))
        text = str(told)
        for secret in ("eve", "private", "mallory", "inside", "10.0.0.5", "exchange01", "stands"):
            self.assertNotIn(secret, text)
        self.assertEqual(text.count("Final-Recipient: rfc822; hr@rcpt.example"), 1)
        self.assertIn("Diagnostic-Code: x-mta; 550 5.1.1 The address is not known", text)
        self.assertIn("Status: 5.1.1", text)

    def test_no_hosts_of_ours(self) -> None:
        """A reply about the address itself is told, without names and addresses of hosts."""
        for said, remote, shown in (
            ("hr@rcpt.example: no such user", "exchange01", "hr@rcpt.example: no such user"),
            ("<HR@rcpt.example> unknown here", "x", "<HR@rcpt.example> unknown here"),
            ("Cannot connect to 10.0.0.5: refused", "", "Cannot connect to [...] refused"),
            ("at [fd00::5] of mx.inside.lan now", "", "at [...] of [...] now"),
            ("Exchange01 says no to bob@rcpt.example", "", "[...] says no to [...]"),
            ("I am mail7, no", "mail7", "I am [...] no"),
            ("no " + "a." * 900, "", "no [...]"),
            ("by store01:24, later", "mx", "by [...] later"),
            ("to (lmtp:backend:2424)", "mx", "to [...]"),
            ("/srv/mail/hr: no space", "", "[...] no space"),
            ("open '/etc/x' failed and/or 5.2.2: no", "", "open [...] failed and/or 5.2.2: no"),
            ("file:///srv/mail or unix:/run/lmtp", "", "[...] or [...]"),
            ("C:\\mail\\hr is full", "", "[...] is full"),
        ):
            outcome = Outcome(Status.FAILED, Reply(550, "5.1.1", (said,)), remote)
            told = str(self.told((self.HR, outcome)))
            self.assertIn(f"550 5.1.1 {shown}", told)
            self.assertNotIn("Remote-MTA", told)
        late = Reply(554, "5.4.7", ("Gave up after 5 days", "(exchange01 said: 451 not now)"))
        told = str(self.told((self.HR, Outcome(Status.FAILED, late))))
        self.assertIn("554 5.4.7 Gave up after 5 days\n", told.replace("\r\n", "\n"))
        self.assertNotIn("exchange01", told)

    def test_success_of_an_alias(self) -> None:
        """Told once, as expanded where it stands for several."""
        notify = frozenset({Notify.SUCCESS})
        one = str(self.told((self.EVE, RELAYED), notify=notify))
        self.assertIn("Action: relayed", one)
        two = str(self.told((self.EVE, RELAYED), (BOB, DONE), notify=notify))
        self.assertEqual(two.count("Action: "), 1)
        self.assertIn("Action: expanded", two)
        self.assertNotIn("private.example", one + two)
        settled = frozenset({"bob@rcpt.example"})
        self.assertIsNone(self.told((self.EVE, RELAYED), notify=notify, settled=settled))

    def test_the_postmaster_is_told_all(self) -> None:
        """Mail with a null reverse-path that is lost is our own business."""
        original = message(Recipient(self.HR), reverse_path=NULL_PATH)
        original = replace(original, envelope=replace(original.envelope, outside=True))
        reports = [(Target(0, self.EVE, self.INSIDE), NO_SUCH_USER)]
        notice = self.successResultOf(self.writer.notice(original, reports, NOW))
        self.assertIn(b"eve@private.example", notice.content)
        self.assertIn(b"The body.", notice.content)


class ConvertibleTests(NoticeTestCase):
    """A notice reaches its reader over any server."""

    SIGNED = (
        b"MIME-Version: 1.0\r\nContent-Type: multipart/signed; boundary=s\r\n\r\n"
        b"--s\r\n\r\nsch\xc3\xb6n\r\n--s\r\n\r\nx\r\n--s--\r\n"
    )

    def test_8_bit_content(self) -> None:
        """What is returned in full can be converted; of what can't, the header goes back."""
        text = b"MIME-Version: 1.0\r\nSubject: x\r\n\r\nsch\xc3\xb6n\r\n"
        for utf8 in (False, True):
            for content in (text, self.SIGNED, b"Subject: sch\xc3\xb6n\r\n\r\nx\r\n"):
                notice = self.notice(message(ret="FULL", content=content, smtputf8=utf8))
                converting = sevenbit.converted(ContentInMemory(notice.content))
                converted = self.successResultOf(Deferred.fromCoroutine(converting))
                self.assertIsNotNone(converted, (utf8, content))
                kind = message_from_bytes(notice.content).get_payload(2).get_content_type()
                full = "message/global" if utf8 else "message/rfc822"
                is_full = utf8 or content is text
                self.assertEqual(kind, full if is_full else "text/rfc822-headers")

    def test_many_recipients(self) -> None:
        """A notice about thousands is written quickly enough, and names each."""
        people = [Recipient(Mailbox(f"user{number}", "rcpt.example")) for number in range(3000)]
        notice = self.notice(message(*people))
        self.assertEqual(notice.content.count(b"Final-Recipient"), 3000)
