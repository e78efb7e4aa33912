"""New passwords of users, beside the old ones until they were used."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs
from zope.interface.verify import verifyObject

from mta.interfaces import IPasswords
from mta.session import Session
from mta.settings import Service
from mta.smtp import sasl
from mta.smtp.sasl import AuthenticationFailed
from mta.users.local import Users
from mta.users.renewed import NAME, RenewedPasswords
from tests.users.test_users import ROUTER, TLS, FakeReactor, FakeThreads, FileTestCase

OLD, NEW, NEWER = "wonderland", "n" * 32, "N" * 32


class RenewedTests(FileTestCase):
    """Two processes, with one users file and one spool."""

    def setUp(self) -> None:
        super().setUp()
        self.file.add("Office", OLD)
        self.users, self.others = self.process(), self.process()

    def process(self) -> Users:
        """The users as a process sees them."""
        return Users(
            self.file,
            ROUTER,
            FakeReactor(),  # type: ignore[arg-type]
            FakeThreads(),  # type: ignore[arg-type]
            renewed=RenewedPasswords(self.folder),
        )

    def now(self, coroutine: Any) -> Any:
        """The result of a coroutine that need not wait."""
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def renew(self, password: str, user: str = "office") -> bool:
        """Let one process take a new password."""
        return bool(self.now(self.users.renew(user, password)))

    def opens(self, password: str, users: Users | None = None) -> bool:
        """Log in by PLAIN; return whether that went."""
        done = (users or self.others).authenticate(
            Session(Service.SUBMISSION, "192.0.2.1", TLS),
            sasl.PLAIN,
            f"\0office\0{password}".encode(),
            _silent,
        )
        result: list[Any] = []
        Deferred.fromCoroutine(done).addBoth(result.append)
        if isinstance(result[0], str):
            return True
        result[0].trap(AuthenticationFailed)
        return False

    def test_interface(self) -> None:
        """Users promises what renewals rely on."""
        verifyObject(IPasswords, self.users)

    def test_both_until_the_new_one_was_used(self) -> None:
        """The old one counts after the renewal, and no more after a use of the new one."""
        self.assertTrue(self.renew(NEW))
        self.assertFalse(self.opens(NEWER))
        self.assertTrue(self.opens(OLD))
        self.assertTrue(self.opens(NEW))
        self.assertFalse(self.opens(OLD))
        self.assertFalse(self.opens(OLD, self.users))
        self.assertTrue(self.opens(NEW, self.process()))

    def test_scram(self) -> None:
        """Both have one salt, and the proof of the new one ends the old one."""
        self.renew(NEW)
        keys = self.now(self.users.scram_keys("office"))
        self.assertIsNone(keys.successor)  # not read yet: the next EHLO does
        self.now(self.others.mechanisms(Session(Service.SUBMISSION, "192.0.2.1", TLS)))
        keys = self.now(self.others.scram_keys("office"))
        self.assertEqual(keys.successor, sasl.scram_keys(NEW, keys.salt, keys.iterations))
        self.now(self.others.proved("office", keys))
        self.assertTrue(self.opens(OLD))
        self.now(self.others.proved("office", keys.successor))
        self.assertFalse(self.opens(OLD))
        self.assertEqual(self.now(self.others.scram_keys("office")), keys.successor)

    def test_again(self) -> None:
        """A newer one takes the place of one that was never used, and of one that was."""
        self.renew(NEW)
        self.renew(NEWER)
        self.assertFalse(self.opens(NEW))
        self.assertTrue(self.opens(OLD))
        self.assertTrue(self.opens(NEWER))
        self.renew(NEW)
        self.assertFalse(self.opens(OLD))
        self.assertTrue(self.opens(NEWER))
        self.assertTrue(self.opens(NEW))
        self.assertFalse(self.opens(NEWER))

    def test_checked_by_a_person(self) -> None:
        """A person who asks about a password hears what the server would say."""
        renewed = RenewedPasswords(self.folder)
        self.renew(NEW)
        for password in (OLD, NEW):
            self.assertTrue(self.file.check("office", password, renewed))
        self.opens(NEW)
        self.assertEqual(
            [self.file.check("office", password, renewed) for password in (OLD, NEW, NEWER)],
            [False, True, False],
        )

    def test_the_operator_s_word(self) -> None:
        """A password in the users file ends those that peers have chosen."""
        self.renew(NEW)
        self.opens(NEW)
        self.file.set_password("office", "looking-glass")
        self.assertTrue(self.opens("looking-glass"))
        self.assertFalse(self.opens(NEW))
        self.assertFalse(self.opens(OLD))

    def test_who_has_none(self) -> None:
        """No user, and none whose password is kept as it is, for CRAM-MD5."""
        self.file.add("fetchmail", "hush", cram_md5=True)
        self.assertFalse(self.renew(NEW, "nobody"))
        self.assertFalse(self.renew(NEW, "fetchmail"))
        self.assertFalse((self.folder / NAME).exists())

    def test_without_scram(self) -> None:
        """A user without keys for SCRAM has none of the new password either."""
        self.file.scram = False
        self.file.set_password("office", OLD)
        self.renew(NEW)
        self.assertTrue(self.opens(NEW))
        self.assertFalse(self.opens(OLD))

    def test_no_password_inside(self) -> None:
        """It can't be read back, and the file is for the server alone."""
        self.renew(NEW)
        text = (self.folder / NAME).read_text()
        self.assertNotIn(NEW, text)
        self.assertEqual((self.folder / NAME).stat().st_mode & 0o777, 0o600)

    def test_a_damaged_file(self) -> None:
        """The users stay as they were, and the log says so."""
        self.renew(NEW)
        for text in ("[", "[]", '{"office": 1}', '{"office": {"replaces": "x", "next": {}}}'):
            (self.folder / NAME).write_text(text)
            with capturedLogs() as events:
                self.assertTrue(self.opens(OLD), text)
            self.assertIn("is damaged", str(events))
            self.assertFalse(self.renew(NEW))

    def test_what_is_told(self) -> None:
        """A line for each change, and no secret in it."""
        with capturedLogs() as events:
            self.renew(NEW)
            self.opens(NEW)
            self.opens(NEW)
        formats = [event["log_format"] for event in events]
        self.assertEqual(
            formats,
            [
                "{user} has a new password beside the old one",
                "{user} used its new password: the old one is over",
            ],
        )
        self.assertNotIn(NEW, str(events))


async def _silent(text: bytes) -> bytes:
    raise AssertionError("nothing is asked")
