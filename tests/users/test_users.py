"""The users file, the server's view of it, and who may write as whom."""

from __future__ import annotations

import stat
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mta.interfaces import IUsers
from mta.mail import Agent, Hop, Mailbox
from mta.session import Session, TLSInfo
from mta.settings import Account, Service, UserLimits
from mta.smtp import sasl
from mta.smtp.sasl import AuthenticationFailed, AuthenticationUnavailable
from mta.testing import FakeRouter
from mta.users import local as local_module
from mta.users.addresses import is_own
from mta.users.file import UserFault, UserFile
from mta.users.local import Users

ROUTER = FakeRouter({}, ours=["example.com"])
ROUNDS = sasl.ITERATIONS  # before the tests make them cheap
TLS = TLSInfo("TLSv1.3", "TLS_AES_256_GCM_SHA384")

ROUTER = FakeRouter({"example.com": Hop(Agent.DISCARD)})


class FileTestCase(SynchronousTestCase):
    """What the tests share: a users file in a folder of its own, with cheap SCRAM keys."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.path = self.folder / "users.yaml"
        self.file = UserFile(self.path)
        self.patch(sasl, "ITERATIONS", 4096)

    def told(self, action: Callable[..., object], *arguments: Any, **named: Any) -> str:
        """The one line that a person is told when that can't be done."""
        error = self.assertRaises(UserFault, action, *arguments, **named)
        self.assertNotIn("\n", str(error))
        return str(error)


class UserFileTests(FileTestCase):
    """What ``mta user`` does to the file."""

    def test_add_and_check(self) -> None:
        """A user who was added has that password, and no other."""
        self.file.add("alice", "wonderland")
        self.assertTrue(self.file.check("alice", "wonderland"))
        self.assertFalse(self.file.check("alice", "looking-glass"))

    def test_nobody_yet(self) -> None:
        """Where there is no file there is nobody."""
        self.assertEqual(self.file.list(), [])
        self.assertIn("no user alice", self.told(self.file.check, "alice", "x"))

    def test_accounts(self) -> None:
        """Limits and suspensions stay when the file is written, and mistakes are told."""
        self.file.add("alice", "wonderland")
        text = self.path.read_text()
        for lines, account in (
            ("", Account()),
            ("    suspended: true\n", Account(is_suspended=True)),
            (
                "    limits: {recipients_per_day: 5, failures_per_hour: 0}\n",
                Account(limits=UserLimits(recipients_per_day=5, failures_per_hour=0)),
            ),
        ):
            self.path.write_text(text.replace("  alice:\n", f"  alice:\n{lines}"))
            self.assertEqual(self.file.existing("Alice").account, account)
            self.file.set_password("alice", "looking-glass")
            self.file.add("bob", "builder")
            self.file.delete("bob")
            self.assertEqual(self.file.existing("alice").account, account)
        for line in (
            "suspended: 1",
            "limits: 5",
            "limits: {recipients_per_day: many}",
            "limits: {recipients_per_day: true}",
            "limits: {recipients_per_day: -1}",
            "limits: {per_day: 1}",
        ):
            self.path.write_text(text.replace("  alice:\n", f"  alice:\n    {line}\n"))
            self.assertIn("user alice: expected what", self.told(self.file.load), line)

    def test_edit(self) -> None:
        """An edit that makes no users file is refused, and changes nothing."""
        self.file.add("alice", "wonderland")
        text = self.path.read_text()
        self.file.edit(lambda text: f"{text}# seen\n")
        self.assertEqual(self.path.read_text(), f"{text}# seen\n")
        self.assertIn("users.yaml", self.told(self.file.edit, lambda text: "users: 5\n"))
        self.assertIn("# seen", self.path.read_text())

    def test_mode(self) -> None:
        """The file is for its owner alone, and nothing else is left in the folder."""
        self.file.add("alice", "wonderland")
        self.file.add("bob", "builder")
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)
        self.assertEqual(list(self.folder.iterdir()), [self.path])

    def test_no_password_inside(self) -> None:
        """The password can't be read back from the file."""
        self.file.add("alice", "wonderland")
        self.assertNotIn(b"wonderland", self.path.read_bytes())

    def test_costs(self) -> None:
        """A guess from a stolen file takes scrypt with 16 MiB, or 600,000 rounds of PBKDF2."""
        self.patch(sasl, "ITERATIONS", ROUNDS)
        self.file.add("alice", "wonderland")
        text = self.path.read_text()
        self.assertIn("$scrypt$ln=14,r=8,p=1$", text)
        self.assertIn("SCRAM-SHA-256$600000:", text)

    def test_cram_md5(self) -> None:
        """Only for a user who asked for CRAM-MD5 the password is kept, and it is kept up."""
        self.file.add("carla", "secret-one", cram_md5=True)
        self.file.set_password("carla", "secret-two")
        (carla,) = self.file.list()
        self.assertEqual(carla.cram_md5, "secret-two")
        self.assertNotIn("secret-two", repr(carla))

    def test_everything_survives(self) -> None:
        """What was written is what is read: addresses, keys, hashes."""
        self.file.add("alice", "wonderland", ["Alice@Example.com", "@other.example", "*"])
        (alice,) = self.file.list()
        self.assertEqual(alice.addresses, ("alice@example.com", "@other.example", "*"))
        expected = sasl.scram_keys("wonderland", alice.scram.salt, alice.scram.iterations)
        self.assertEqual(alice.scram, expected)
        self.assertGreaterEqual(alice.scram.iterations, 4096)
        self.assertEqual(alice.password.cost, 14)

    def test_new_password_keeps_addresses(self) -> None:
        """A new password changes nothing else, and the old one is gone."""
        self.file.add("alice", "wonderland", ["alice@example.com"])
        self.file.set_password("ALICE", "looking-glass")
        (alice,) = self.file.list()
        self.assertEqual((alice.name, alice.addresses), ("alice", ("alice@example.com",)))
        self.assertFalse(self.file.check("alice", "wonderland"))
        self.assertTrue(self.file.check("alice", "looking-glass"))

    def test_delete(self) -> None:
        """A deleted user is gone, the others stay."""
        self.file.add("alice", "wonderland")
        self.file.add("bob", "builder")
        self.file.delete("alice")
        self.assertEqual([user.name for user in self.file.list()], ["bob"])

    def test_refusals(self) -> None:
        """A person is told in one line why something can't be done; the file stays as it was."""
        self.file.add("alice", "wonderland")
        before = self.path.read_bytes()
        self.assertIn("already a user", self.told(self.file.add, "Alice", "x"))
        self.assertIn("no user bob", self.told(self.file.delete, "bob"))
        self.assertIn("no user bob", self.told(self.file.set_password, "bob", "x"))
        self.assertIn("address", self.told(self.file.add, "bob", "x", ["bob"]))
        self.assertIn("forbids", self.told(self.file.add, "b\nob", "x"))
        self.assertIn("empty", self.told(self.file.add, "bob", ""))
        self.assertEqual(self.path.read_bytes(), before)

    def test_broken_files(self) -> None:
        """A file that ``mta user`` did not write is refused, and where it breaks is named."""
        for text, words in (
            ("users: [", "users.yaml:2:1: this is not YAML"),
            ("hello", "expected what `mta user add` writes"),
            ("decoy: AAAA\nusers: {alice: {}}", "user alice: expected"),
            ("decoy: AAAA\nusers: {alice: 5}", "user alice: expected"),
            ("decoy: 5\nusers: {}", "expected base64"),
            ("users: !!python/object/apply:os.system [id]", "not YAML"),
        ):
            self.path.write_text(text)
            self.assertIn(words, self.told(self.file.load))

    def test_twice_the_same_name(self) -> None:
        """Two names that differ in case only are one name."""
        self.file.add("alice", "wonderland")
        text = self.path.read_text()
        entry = text[text.index("  alice:") :]
        self.path.write_text(text + entry.replace("alice", "ALICE"))
        self.assertIn("the same name", self.told(self.file.load))

    def test_unwritable(self) -> None:
        """Where the folder is missing, one line says so."""
        lost = UserFile(self.folder / "missing" / "users.yaml")
        self.assertIn("No such file", self.told(lost.add, "alice", "x"))

    def test_failing_disk(self) -> None:
        """A disk that fails leaves the old file, and no rubbish."""
        self.file.add("alice", "wonderland")
        before = self.path.read_bytes()
        with patch("os.fsync", side_effect=OSError(5, "Input/output error")):
            self.assertIn("Input/output", self.told(self.file.add, "bob", "builder"))
        self.assertEqual(self.path.read_bytes(), before)
        self.assertEqual(list(self.folder.iterdir()), [self.path])


def mailbox(text: str) -> Mailbox:
    local_part, _, domain = text.rpartition("@")
    return Mailbox(local_part, domain)


class OwnAddressTests(SynchronousTestCase):
    """Which addresses are a user's own."""

    def own(self, address: str, name: str, *addresses: str) -> bool:
        """Whether it is, where example.com is ours."""
        return is_own(mailbox(address), name, addresses, ROUTER)

    def test_configured(self) -> None:
        """With addresses, these and no others; letters of either case."""
        self.assertTrue(self.own("Alice@example.com", "al", "alice@example.com"))
        self.assertFalse(self.own("al@example.com", "al", "alice@example.com"))
        self.assertTrue(self.own("any@office.example", "office", "@office.example"))
        self.assertFalse(self.own("any@sub.office.example", "office", "@office.example"))
        self.assertTrue(self.own("any@where.example", "office", "*"))

    def test_by_name(self) -> None:
        """Without addresses, the name: as an address, or in our domains."""
        self.assertTrue(self.own("alice@example.com", "Alice"))
        self.assertFalse(self.own("alice@elsewhere.example", "alice"))
        self.assertFalse(self.own("bob@example.com", "alice"))
        self.assertTrue(self.own("alice@elsewhere.example", "alice@elsewhere.example"))
        self.assertFalse(self.own("alice@example.com", "alice@elsewhere.example"))

    def test_no_way_to_look_like_another(self) -> None:
        """A local part that looks like an address or an entry is only a local part."""
        self.assertFalse(self.own("*@where.example", "al", "alice@example.com"))
        self.assertFalse(self.own("alice@example.com@x.example", "al", "alice@example.com"))


class FakeThreads:
    """Runs what is given to a thread when the test says so, or at once."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] | None = None

    def callInThreadWithCallback(
        self, on_result: Any, function: Any, *arguments: Any, **named: Any
    ) -> None:
        def work() -> None:
            try:
                result = function(*arguments, **named)
            except Exception:  # what a thread pool does
                from twisted.python.failure import Failure

                on_result(False, Failure())
            else:
                on_result(True, result)

        if self.waiting is None:
            work()
        else:
            self.waiting.append(work)


class FakeReactor(Clock):
    """A clock that is in the reactor's thread already."""

    def callFromThread(self, function: Any, *arguments: Any) -> None:
        function(*arguments)


class UsersTests(FileTestCase):
    """The server's view of the file."""

    def setUp(self) -> None:
        super().setUp()
        self.file.add("Alice", "wonderland", ["alice@example.com"])
        self.threads = FakeThreads()
        self.users = self.make_users()

    def make_users(self, **certificates: str) -> Users:
        """The server's view, with example.com as ours."""
        return Users(
            self.file,
            ROUTER,
            FakeReactor(),  # type: ignore[arg-type]
            self.threads,  # type: ignore[arg-type]
            certificates,
        )

    def session(self, tls: TLSInfo | None = TLS, service: Service = Service.SMTP) -> Session:
        """A session that is about to log in."""
        return Session(service, "192.0.2.1", tls)

    def now(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """The result of a coroutine that need not wait."""
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def plain(self, name: str, password: str) -> Deferred[str]:
        """A log-in by PLAIN."""
        response = f"\0{name}\0{password}".encode()
        done = self.users.authenticate(self.session(), sasl.PLAIN, response, _silent)
        return Deferred.fromCoroutine(done)

    def test_interface(self) -> None:
        """Users promises what the receiver relies on."""
        verifyObject(IUsers, self.users)

    def test_log_in(self) -> None:
        """The right password proves the user, under the name that the file has."""
        self.assertEqual(self.successResultOf(self.plain("aLICE", "wonderland")), "Alice")

    def test_wrong_password_and_unknown_name(self) -> None:
        """Neither proves anything, and both cost one hash."""
        with patch.object(
            local_module.PasswordHash, "_hash", autospec=True, return_value=bytes(32)
        ) as hashing:
            self.failureResultOf(self.plain("alice", "wrong"), AuthenticationFailed)
            self.failureResultOf(self.plain("nobody", "wrong"), AuthenticationFailed)
        self.assertEqual(hashing.call_count, 2)
        known, unknown = (call.args[0] for call in hashing.call_args_list)
        costs = [(each.cost, each.block_size, each.parallel) for each in (known, unknown)]
        self.assertEqual(costs[0], costs[1])

    def test_hashes_are_bounded(self) -> None:
        """Few hashes run at once, few wait, and what is more is turned away at once."""
        self.threads.waiting = []
        with patch.object(local_module, "MAX_WAITING", 3):
            logins = [self.plain("alice", "wonderland") for _ in range(5)]
            self.assertEqual(len(self.threads.waiting), local_module.CONCURRENT_HASHES)
            self.failureResultOf(self.plain("alice", "wonderland"), AuthenticationUnavailable)
        while self.threads.waiting:
            self.threads.waiting.pop(0)()
        self.assertEqual([self.successResultOf(login) for login in logins], ["Alice"] * 5)

    def test_unknown_names_look_alike(self) -> None:
        """SCRAM answers an unknown name with a salt that stays the same, in every process."""
        first = self.now(self.users.scram_keys("nobody"))
        self.assertEqual(first, self.now(self.make_users().scram_keys("nobody")))
        known = self.now(self.users.scram_keys("alice"))
        self.assertEqual(len(first.salt), len(known.salt))
        self.assertEqual(first.iterations, known.iterations)
        self.assertNotEqual(first.salt, self.now(self.users.scram_keys("somebody")).salt)

    def test_unknown_names_look_alike_among_old_keys(self) -> None:
        """They have the rounds of some user: no number is theirs alone."""
        self.patch(sasl, "ITERATIONS", 8192)
        self.file.add("bob", "builder")
        rounds = {
            self.now(self.make_users().scram_keys(f"nobody{n}")).iterations for n in range(50)
        }
        self.assertEqual(rounds, {4096, 8192})
        users = self.make_users()
        first, again = (self.now(users.scram_keys("nobody")).iterations for _ in range(2))
        self.assertEqual(first, again)

    def test_old_keys_are_renewed(self) -> None:
        """By the log-in that shows the password; not by a wrong one, nor twice."""
        self.patch(sasl, "ITERATIONS", 8192)
        before = self.path.read_bytes()
        self.failureResultOf(self.plain("alice", "wrong"), AuthenticationFailed)
        self.assertEqual(self.path.read_bytes(), before)
        self.assertEqual(self.successResultOf(self.plain("alice", "wonderland")), "Alice")
        (alice,) = self.file.list()
        assert alice.scram is not None
        self.assertEqual(alice.scram, sasl.scram_keys("wonderland", alice.scram.salt, 8192))
        self.assertEqual(alice.addresses, ("alice@example.com",))
        after = self.path.stat()
        self.assertEqual(self.successResultOf(self.plain("alice", "wonderland")), "Alice")
        self.assertEqual(self.path.stat().st_ino, after.st_ino)

    def test_a_password_that_was_changed_meanwhile(self) -> None:
        """The new one stays."""
        old = self.file.load().users["alice"]
        self.file.set_password("alice", "looking-glass")
        self.patch(sasl, "ITERATIONS", 8192)
        self.file.renew(old, "wonderland")
        self.assertTrue(self.file.check("alice", "looking-glass"))
        (alice,) = self.file.list()
        assert alice.scram is not None
        self.assertEqual(alice.scram.iterations, 4096)

    def test_a_file_that_can_not_be_renewed(self) -> None:
        """Users log in all the same, and the log says it once."""
        self.patch(sasl, "ITERATIONS", 8192)
        with (
            patch.object(UserFile, "renew", side_effect=UserFault("not ours")) as renew,
            capturedLogs() as events,
        ):
            for _ in range(3):
                self.assertEqual(self.successResultOf(self.plain("alice", "wonderland")), "Alice")
        self.assertEqual(renew.call_count, 1)
        self.assertEqual(len([event for event in events if "fault" in event]), 1)

    def test_no_scram(self) -> None:
        """It is not offered, new users get no keys, and old ones lose theirs."""
        self.file = UserFile(self.path, scram=False)
        self.file.add("bob", "builder")
        self.users = self.make_users()
        self.assertEqual(self.now(self.users.mechanisms(self.session())), ("PLAIN", "LOGIN"))
        self.assertEqual(self.now(self.users.mechanisms(self.session(tls=None))), ())
        self.assertEqual(self.successResultOf(self.plain("alice", "wonderland")), "Alice")
        self.assertEqual([user.scram for user in self.file.list()], [None, None])
        self.assertNotIn("SCRAM", self.path.read_text())
        self.assertNotIn("SCRAM-SHA-256", self.now(self.make_users().mechanisms(self.session())))

    def test_without_channel_binding(self) -> None:
        """It is offered to servers alone, and who supposes that we lack it gets in elsewhere."""
        self.users = Users(
            self.file,
            ROUTER,
            FakeReactor(),  # type: ignore[arg-type]
            self.threads,  # type: ignore[arg-type]
            channel_binding=False,
        )
        tls = replace(TLS, bindings={"tls-exporter": b"x" * 32})
        initial = b"y,,n=alice,r=nonce"
        for service, binds in (
            (Service.SMTP, False),
            (Service.SUBMISSION, False),
            (Service.ODMR, True),
        ):
            session = self.session(tls, service)
            offered = self.now(self.users.mechanisms(session))
            self.assertEqual(sasl.SCRAM_PLUS in offered, binds, service)
            self.assertIn(sasl.SCRAM, offered)
            asked: list[bytes] = []

            async def challenge(data: bytes, asked: list[bytes] = asked) -> bytes:
                asked.append(data)
                return b""

            log_in = self.users.authenticate(session, sasl.SCRAM, initial, challenge)
            self.failureResultOf(Deferred.fromCoroutine(log_in), AuthenticationFailed)
            self.assertEqual(bool(asked), not binds, service)

    def test_scram_and_cram(self) -> None:
        """SCRAM works for everybody, CRAM-MD5 for who asked for it."""
        self.file.add("carla", "secret", cram_md5=True)
        self.assertIn(sasl.CRAM_MD5, self.now(self.users.mechanisms(self.session())))
        self.assertEqual(self.now(self.users.cram_secret("carla")), "secret")
        self.assertIsNone(self.now(self.users.cram_secret("alice")))
        self.assertIsNone(self.now(self.users.cram_secret("nobody")))

    def test_offer(self) -> None:
        """What is offered depends on TLS, and on whom there is."""
        offer = self.now(self.users.mechanisms(self.session()))
        self.assertEqual(offer, ("SCRAM-SHA-256", "PLAIN", "LOGIN"))
        self.assertEqual(self.now(self.users.mechanisms(self.session(None))), ("SCRAM-SHA-256",))
        self.file.delete("alice")
        self.assertEqual(self.now(self.users.mechanisms(self.session())), ())

    def test_external(self) -> None:
        """A certificate that stands for a user lets it in by EXTERNAL; another does not."""
        self.users = self.make_users(abcd="office")
        known = self.session(TLSInfo("TLSv1.3", "x", "abcd"))
        other = self.session(TLSInfo("TLSv1.3", "x", "ef01"))
        self.assertIn(sasl.EXTERNAL, self.now(self.users.mechanisms(known)))
        self.assertNotIn(sasl.EXTERNAL, self.now(self.users.mechanisms(other)))
        done = self.users.authenticate(known, sasl.EXTERNAL, b"", _silent)
        self.assertEqual(self.now(done), "office")
        refused = self.users.authenticate(other, sasl.EXTERNAL, b"", _silent)
        self.failureResultOf(Deferred.fromCoroutine(refused), AuthenticationFailed)

    def test_changed_file(self) -> None:
        """A user who was added a moment ago can log in."""
        self.file.add("bob", "builder")
        self.assertEqual(self.successResultOf(self.plain("bob", "builder")), "bob")

    def test_broken_file(self) -> None:
        """A file that breaks under a running server is told once, and the users stay."""
        self.path.write_text("users: [")
        with capturedLogs() as events:
            self.assertEqual(self.successResultOf(self.plain("alice", "wonderland")), "Alice")
            self.assertEqual(self.successResultOf(self.plain("alice", "wonderland")), "Alice")
        self.assertEqual([event["log_level"].name for event in events], ["error"])

    def test_broken_file_at_start(self) -> None:
        """A server does not start on a broken file."""
        self.path.write_text("users: [")
        self.assertRaises(UserFault, self.make_users)

    def test_may_use(self) -> None:
        """A user may use its own addresses, a stranger none."""
        self.assertTrue(self.users.may_use("Alice", mailbox("alice@example.com")))
        self.assertFalse(self.users.may_use("Alice", mailbox("bob@example.com")))

    def test_nothing_secret_is_logged(self) -> None:
        """No log-in, good or bad, leaves its password in the log."""
        with capturedLogs() as events:
            self.successResultOf(self.plain("alice", "wonderland"))
            self.failureResultOf(self.plain("alice", "looking-glass"), AuthenticationFailed)
        self.assertNotIn("wonderland", repr(events))
        self.assertNotIn("looking-glass", repr(events))


async def _silent(text: bytes) -> bytes:
    raise AssertionError("nothing to ask")
