"""Users of a Dovecot server: against a scripted one, and against a real one."""

from __future__ import annotations

import errno
import os
from base64 import b64encode
from collections.abc import Coroutine, Sequence
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredQueue, fail, succeed
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mta.interfaces import IUsers
from mta.mail import Mailbox
from mta.session import Session, TLSInfo
from mta.settings import Service
from mta.smtp import sasl
from mta.smtp.sasl import AuthenticationFailed, AuthenticationUnavailable
from mta.testing import FakeRouter
from mta.users.dovecot import MAX_PAUSE, DovecotUsers
from mta.users.dovecot_protocol import ANSWER_TIMEOUT
from tests.interop.dovecot import Dovecot

TLS = TLSInfo("TLSv1.3", "TLS_AES_256_GCM_SHA384")
ROUTER = FakeRouter({}, ours=["example.com"])
GREETING = (
    b"VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nMECH\tLOGIN\tplaintext\n"
    b"MECH\tCRAM-MD5\tdictionary\tactive\nMECH\tSCRAM-SHA-256\tmutual-auth\n"
    b"MECH\tSCRAM-SHA-256-PLUS\tmutual-auth\nMECH\tANONYMOUS\tanonymous\n"
    b"MECH\tEXTERNAL\nMECH\tINTERNAL\tprivate\n"
    b"SPID\t7\nCUID\t1\nCOOKIE\tabcd\nDONE\n"
)


def session(tls: TLSInfo | None = TLS, service: Service = Service.SMTP) -> Session:
    """A session that is about to log in."""
    return Session(service, "192.0.2.1", tls)


@implementer(IStreamClientEndpoint)
class FakeEndpoint:
    """Connects to a Dovecot that the test plays."""

    def __init__(self, greeting: bytes = GREETING) -> None:
        self.greeting = greeting
        self.links: list[Any] = []

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        """Twisted's endpoint interface."""
        link = protocolFactory.buildProtocol(None)
        link.makeConnection(StringTransport())
        self.links.append(link)
        link.dataReceived(self.greeting)
        return succeed(link)


@implementer(IStreamClientEndpoint)
class NoEndpoint:
    """There is no Dovecot."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        """Twisted's endpoint interface."""
        return fail(self.error)


class ScriptedTests(SynchronousTestCase):
    """The protocol, line by line."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.endpoint = FakeEndpoint()
        self.users = self.make_users(self.endpoint)

    def make_users(self, endpoint: IStreamClientEndpoint) -> DovecotUsers:
        """Users behind that endpoint; example.com is ours."""
        return DovecotUsers(endpoint, self.clock, ROUTER)

    def said(self) -> bytes:
        """What we said to Dovecot since the last time."""
        transport = self.endpoint.links[-1].transport
        text: bytes = transport.value()
        transport.clear()
        return text

    def answer(self, line: bytes) -> None:
        """Dovecot says a line."""
        self.endpoint.links[-1].dataReceived(line + b"\n")

    def begin(
        self,
        mechanism: str = sasl.PLAIN,
        initial: bytes | None = b"\0alice\0wonderland",
        *responses: bytes,
        **facts: Any,
    ) -> Deferred[str]:
        """Start a log-in of a client that gives these responses."""
        waiting = list(responses)
        self.challenges: list[bytes] = []

        async def challenge(text: bytes) -> bytes:
            self.challenges.append(text)
            if not waiting:
                raise EOFError
            return waiting.pop(0)

        done = self.users.authenticate(session(**facts), mechanism, initial, challenge)
        return Deferred.fromCoroutine(done)

    def offer(self, **facts: Any) -> Sequence[str]:
        """The mechanisms that a session may use."""
        question: Coroutine[Any, Any, Sequence[str]] = self.users.mechanisms(session(**facts))
        return self.successResultOf(Deferred.fromCoroutine(question))

    def test_interface(self) -> None:
        """Dovecot's users promise what the receiver relies on."""
        verifyObject(IUsers, self.users)

    def test_handshake(self) -> None:
        """We tell our version and process, once for all log-ins."""
        self.offer()
        self.assertEqual(self.said(), b"VERSION\t1\t2\nCPID\t%d\n" % os.getpid())
        self.offer()
        self.assertEqual(len(self.endpoint.links), 1)

    def test_offer(self) -> None:
        """What Dovecot announces is offered: passwords under TLS only, and never what names
        nobody or needs our own view of the connection."""
        self.assertEqual(self.offer(), ["PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256"])
        self.assertEqual(self.offer(tls=None), ["SCRAM-SHA-256"])
        odmr = self.offer(tls=None, service=Service.ODMR)
        self.assertEqual(odmr, ["CRAM-MD5", "SCRAM-SHA-256"])
        clear = session(tls=None)
        clear.cleartext_auth = True
        offered = Deferred.fromCoroutine(self.users.mechanisms(clear))
        self.assertEqual(
            self.successResultOf(offered), ["PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256"]
        )

    def test_log_in(self) -> None:
        """An initial response goes with AUTH as the last parameter; OK names the user."""
        done = self.begin()
        response = b64encode(b"\0alice\0wonderland")
        expected = b"AUTH\t1\tPLAIN\tservice=smtp\tnologin\tsecured\trip=192.0.2.1\tresp=%b\n"
        self.assertTrue(self.said().endswith(expected % response))
        self.answer(b"OK\t1\tuser=alice@example.com\tother")
        self.assertEqual(self.successResultOf(done), "alice@example.com")

    def test_refusals(self) -> None:
        """FAIL is a failed log-in, FAIL for a passing reason is none at all."""
        for parameters, error in (
            (b"user=alice", AuthenticationFailed),
            (b"user=alice\tuser_disabled", AuthenticationFailed),
            (b"user=alice\ttemp", AuthenticationUnavailable),
            (b"code=temp_fail", AuthenticationUnavailable),
        ):
            done = self.begin()
            number = self.said().rsplit(b"AUTH\t")[1].split(b"\t")[0]
            self.answer(b"FAIL\t%b\t%b" % (number, parameters))
            self.failureResultOf(done, error)

    def test_who_failed(self) -> None:
        """An address of ours is surely no password; anything else might be one."""
        for name, is_known in (
            (b"alice@example.com", True),
            (b"alice@elsewhere.example", False),
            (b"wonderland", False),
            (b"\xff", False),
        ):
            done = self.begin()
            number = self.said().rsplit(b"AUTH\t")[1].split(b"\t")[0]
            self.answer(b"FAIL\t%b\tuser=%b" % (number, name))
            failed = self.failureResultOf(done, AuthenticationFailed).value
            self.assertEqual(failed.is_known, is_known, name)
            self.assertEqual(failed.user.encode(), b"" if name == b"\xff" else name)

    def test_dialogue(self) -> None:
        """Challenges and responses pass through as they are."""
        done = self.begin(sasl.LOGIN, None, b"alice", b"wonder\tland")
        self.assertNotIn(b"resp=", self.said())
        self.answer(b"CONT\t1\t" + b64encode(b"Username:"))
        self.assertEqual(self.said(), b"CONT\t1\t%b\n" % b64encode(b"alice"))
        self.answer(b"CONT\t1\t" + b64encode(b"Password:"))
        self.assertEqual(self.said(), b"CONT\t1\t%b\n" % b64encode(b"wonder\tland"))
        self.answer(b"OK\t1\tuser=alice")
        self.assertEqual(self.successResultOf(done), "alice")
        self.assertEqual(self.challenges, [b"Username:", b"Password:"])

    def test_several_at_once(self) -> None:
        """Answers go to the log-in that they are about."""
        first, second = self.begin(), self.begin()
        self.answer(b"OK\t2\tuser=second")
        self.assertNoResult(first)
        self.answer(b"OK\t1\tuser=first")
        self.assertEqual(self.successResultOf(first), "first")
        self.assertEqual(self.successResultOf(second), "second")

    def test_client_cancels(self) -> None:
        """When the client gives up, Dovecot is told."""
        done = self.begin(sasl.LOGIN, None)
        self.answer(b"CONT\t1\t")
        self.failureResultOf(done, EOFError)
        self.assertTrue(self.said().endswith(b"CANCEL\t1\n"))

    def test_silence(self) -> None:
        """Dovecot's silence ends a log-in in time, and its late answer harms nobody."""
        done = self.begin()
        self.clock.advance(ANSWER_TIMEOUT)
        self.failureResultOf(done, AuthenticationUnavailable)
        self.answer(b"OK\t1\tuser=alice")

    def test_lost(self) -> None:
        """A lost connection ends the log-ins under way; the next one makes a new connection."""
        done = self.begin()
        self.endpoint.links[-1].connectionLost(Failure(connectionDone.value))
        self.failureResultOf(done, AuthenticationUnavailable)
        done = self.begin()
        self.assertEqual(len(self.endpoint.links), 2)
        self.answer(b"OK\t1\tuser=alice")
        self.assertEqual(self.successResultOf(done), "alice")

    def test_it_comes_back(self) -> None:
        """A lost connection is made anew, after a pause that a log-in does not wait for."""
        self.offer()
        self.endpoint.links[-1].connectionLost(Failure(connectionDone.value))
        self.assertEqual(len(self.endpoint.links), 1)
        self.clock.advance(MAX_PAUSE)
        self.assertEqual(len(self.endpoint.links), 2)
        self.offer()
        self.assertEqual(len(self.endpoint.links), 2)
        self.users.close()
        self.assertTrue(self.endpoint.links[-1].transport.disconnecting)
        self.endpoint.links[-1].connectionLost(Failure(connectionDone.value))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_slow_greeting(self) -> None:
        """Log-ins that come before the handshake is over share the connection."""
        self.endpoint = FakeEndpoint(b"")
        self.users = self.make_users(self.endpoint)
        first, second = self.begin(), self.begin()
        self.assertEqual(len(self.endpoint.links), 1)
        self.endpoint.links[0].dataReceived(GREETING)
        for number, done in enumerate((first, second), 1):
            self.answer(b"OK\t%d\tuser=alice" % number)
            self.assertEqual(self.successResultOf(done), "alice")

    def test_nonsense(self) -> None:
        """An OK that names nobody and a challenge that is no base64 prove nothing."""
        for line in (b"OK\t1", b"OK\t1\tuser=", b"OK\t1\tuser=\xff", b"CONT\t1\t!"):
            self.setUp()
            done = self.begin()
            self.answer(line)
            self.failureResultOf(done, AuthenticationUnavailable)

    def test_escapes(self) -> None:
        """Dovecot's escapes are undone."""
        done = self.begin()
        self.answer(b"OK\t1\tuser=a\x01tb\x011c")
        self.assertEqual(self.successResultOf(done), "a\tb\x01c")

    def test_mechanism_not_offered(self) -> None:
        """What was not offered is not passed on, whatever it is called."""
        for mechanism in ("ANONYMOUS", "EXTERNAL", "PLAIN\tx=y", "GSSAPI"):
            self.failureResultOf(self.begin(mechanism), AuthenticationFailed)
        self.failureResultOf(self.begin(tls=None), AuthenticationFailed)

    def test_another_version(self) -> None:
        """A server of another protocol is left alone."""
        endpoint = FakeEndpoint(b"VERSION\t2\t0\n")
        self.users = self.make_users(endpoint)
        done = self.begin()
        self.assertTrue(endpoint.links[0].transport.disconnecting)
        endpoint.links[0].connectionLost(Failure(connectionDone.value))
        self.failureResultOf(done, AuthenticationUnavailable)

    def test_greeting_that_never_ends(self) -> None:
        """A server that does not finish its handshake is given up in time."""
        self.endpoint = FakeEndpoint(b"VERSION\t1\t2\n")
        self.users = self.make_users(self.endpoint)
        done = self.begin()
        self.clock.advance(ANSWER_TIMEOUT)
        self.failureResultOf(done, AuthenticationUnavailable)

    def test_unreachable(self) -> None:
        """Without Dovecot nobody can log in, nothing is offered, and the log says so once."""
        for error in (
            ConnectError(string="No such file or directory"),
            OSError(errno.EMFILE, "Too many open files"),  # without a socket
        ):
            self.users = self.make_users(NoEndpoint(error))
            self.failureResultOf(self.begin(), AuthenticationUnavailable)
            with capturedLogs() as events:
                self.assertEqual(self.offer(), ())
                self.assertEqual(self.offer(), ())
            ours = [event for event in events if event["log_namespace"].startswith("mta.")]
            self.assertEqual([event["log_level"].name for event in ours], ["error"])

    def test_may_use(self) -> None:
        """A user of Dovecot's writes as its name, in our domains."""
        self.assertTrue(self.users.may_use("alice", Mailbox("alice", "example.com")))
        self.assertFalse(self.users.may_use("alice", Mailbox("bob", "example.com")))

    def test_nothing_secret_is_logged(self) -> None:
        """No response reaches the log."""
        with capturedLogs() as events:
            done = self.begin()
            self.answer(b"FAIL\t1\tuser=alice")
            self.failureResultOf(done, AuthenticationFailed)
        self.assertNotIn(b64encode(b"\0alice\0wonderland").decode(), repr(events))


class RealTests(TestCase):
    """A Dovecot that we did not write takes our log-ins."""

    timeout = 60

    def setUp(self) -> None:
        dovecot = Dovecot(self, "plain login cram-md5 scram-sha-256")
        endpoint = UNIXClientEndpoint(reactor, str(dovecot.socket))
        self.users = DovecotUsers(endpoint, reactor, ROUTER)  # type: ignore[arg-type]
        self.addCleanup(self.users.close)

    async def log_in(self, mechanism: str, password: str) -> str:
        """Our client's side against Dovecot, through our server's side."""
        responses: DeferredQueue[Any] = DeferredQueue()
        challenges: DeferredQueue[Any] = DeferredQueue()

        async def challenge(text: bytes) -> bytes:
            challenges.put(text)
            return await responses.get()  # type: ignore[no-any-return]

        identities: list[str] = []

        async def serve(first: bytes | None) -> None:
            identity = await self.users.authenticate(session(), mechanism, first, challenge)
            identities.append(identity)
            challenges.put(None)

        started = False

        async def exchange(response: bytes | None) -> bytes | None:
            nonlocal started
            if started:
                responses.put(response)
            else:
                started = True
                Deferred.fromCoroutine(serve(response)).addErrback(challenges.put)
            answer = await challenges.get()
            if isinstance(answer, Failure):
                answer.raiseException()
            return answer  # type: ignore[no-any-return]

        await sasl.respond(mechanism, "alice", password, exchange)
        return identities[0]

    async def test_mechanisms(self) -> None:
        """Every mechanism that it offers and we know proves the user."""
        offers = await self.users.mechanisms(session())
        self.assertEqual(set(offers), {"PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256"})
        for mechanism in offers:
            self.assertEqual(await self.log_in(mechanism, "wonderland"), "alice", mechanism)

    async def test_wrong_password(self) -> None:
        """A wrong password proves nothing, by whatever mechanism."""
        for mechanism in await self.users.mechanisms(session()):
            await self.assertFailure(
                Deferred.fromCoroutine(self.log_in(mechanism, "wrong")), AuthenticationFailed
            )
