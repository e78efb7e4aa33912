"""SASL mechanisms: both sides against each other, the RFCs' vectors and another implementation."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import secrets
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st
from scramp import ScramClient, ScramException, ScramMechanism
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mta.session import TLSInfo
from mta.settings import Service
from mta.smtp import sasl
from mta.smtp.sasl import AuthenticationFailed, ScramKeys, scram, server
from mta.smtp.saslprep import prepare

EXPORTER = {"tls-exporter": b"e" * 32}
END_POINT = {"tls-server-end-point": b"s" * 32}
TLS = TLSInfo("TLSv1.3", "TLS_AES_256_GCM_SHA384", bindings={**EXPORTER, **END_POINT})
SALT = b"0123456789abcdef"


class KnownUsers:
    """Credentials of two users: alice knows a password, tim a CRAM-MD5 secret."""

    def __init__(self) -> None:
        self.keys = sasl.scram_keys("wonderland", SALT, 4096)
        self.proved_keys: ScramKeys | None = None
        self.asked: list[str] = []

    async def verify_password(self, user: str, password: str) -> bool:
        self.asked.append(user)
        return (user, password) == ("alice", "wonderland")

    async def scram_keys(self, user: str) -> ScramKeys:
        self.asked.append(user)
        return self.keys if user == "alice" else sasl.scram_keys("?", SALT, 4096)

    async def proved(self, user: str, keys: ScramKeys) -> None:
        self.proved_keys = keys

    async def cram_secret(self, user: str) -> str | None:
        return "tanstaaftanstaaf" if user == "tim" else None


def script(*responses: bytes) -> tuple[Callable[[bytes], Awaitable[bytes]], list[bytes]]:
    """A client that gives these responses; returns it with the challenges that it saw."""
    challenges: list[bytes] = []
    waiting = list(responses)

    async def challenge(text: bytes) -> bytes:
        challenges.append(text)
        return waiting.pop(0)

    return challenge, challenges


class _Wire:
    """The server's side of an exchange, as the client's side sees it."""

    def __init__(self, server: Callable[..., Coroutine[Any, Any, str]]) -> None:
        self.identity: str | None = None
        self._server = server
        self._running: Coroutine[Any, Any, str] | None = None

    async def exchange(self, response: bytes | None) -> bytes | None:
        """Hand a response to the server's coroutine; return its next challenge."""
        try:
            if self._running is None:
                self._running = self._server(response, _ask)
                return self._running.send(None)  # type: ignore[no-any-return]
            return self._running.send(response)  # type: ignore[no-any-return]
        except StopIteration as stop:
            self.identity = stop.value
            return None


class _Asked:
    def __init__(self, text: bytes) -> None:
        self._text = text

    def __await__(self) -> Any:
        return (yield self._text)


async def _ask(text: bytes) -> bytes:
    return await _Asked(text)  # type: ignore[no-any-return]


class SaslTestCase(SynchronousTestCase):
    """What the tests of mechanisms share."""

    def run_now(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """The result of a coroutine that waits for nothing."""
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def fails(self, coroutine: Coroutine[Any, Any, Any]) -> str:
        """The reason for which a coroutine raised AuthenticationFailed."""
        failure = self.failureResultOf(Deferred.fromCoroutine(coroutine), AuthenticationFailed)
        return str(failure.value)

    def converse(
        self,
        mechanism: str,
        user: str = "alice",
        secret: str = "wonderland",
        *,
        bindings: Any = sasl.NO_BINDINGS,
        server_bindings: Any = None,
        external: str = "",
        users: KnownUsers | None = None,
    ) -> Any:
        """A coroutine in which our client talks to our server; results in the identity."""
        users = users or KnownUsers()

        def server(initial: bytes | None, ask: sasl.Challenge) -> Coroutine[Any, Any, str]:
            return sasl.authenticate(
                mechanism,
                initial,
                ask,
                users,
                bindings=bindings if server_bindings is None else server_bindings,
                external=external,
            )

        wire = _Wire(server)

        async def both() -> str | None:
            await sasl.respond(mechanism, user, secret, wire.exchange, bindings=bindings)
            return wire.identity

        return both()


class PairTests(SaslTestCase):
    """Our client against our server."""

    def test_each_mechanism_proves_the_user(self) -> None:
        """Every mechanism ends with the identity of the user."""
        for mechanism in (sasl.PLAIN, sasl.LOGIN, sasl.SCRAM):
            self.assertEqual(self.run_now(self.converse(mechanism)), "alice", mechanism)
        cram = self.converse(sasl.CRAM_MD5, "tim", "tanstaaftanstaaf")
        self.assertEqual(self.run_now(cram), "tim")
        external = self.converse(sasl.EXTERNAL, "", "", external="office")
        self.assertEqual(self.run_now(external), "office")

    def test_each_mechanism_refuses_a_wrong_secret(self) -> None:
        """A wrong password or secret proves nothing."""
        for mechanism in (sasl.PLAIN, sasl.LOGIN, sasl.SCRAM):
            self.fails(self.converse(mechanism, secret="looking-glass"))
        self.fails(self.converse(sasl.CRAM_MD5, "tim", "wrong"))

    def test_a_new_password_beside_the_old_one(self) -> None:
        """Both prove the user with one salt, and the server hears which of them did."""
        users, old = KnownUsers(), KnownUsers().keys
        new = sasl.scram_keys("looking-glass", SALT, 4096)
        users.keys = replace(old, successor=new)
        for secret, keys in (("wonderland", users.keys), ("looking-glass", new)):
            done = self.converse(sasl.SCRAM, secret=secret, users=users)
            self.assertEqual(self.run_now(done), "alice")
            self.assertEqual(users.proved_keys, keys)
        users.proved_keys = None
        self.fails(self.converse(sasl.SCRAM, secret="neither", users=users))
        self.assertIsNone(users.proved_keys)

    def test_each_mechanism_refuses_an_unknown_user(self) -> None:
        """A user name that does not exist proves nothing."""
        for mechanism in (sasl.PLAIN, sasl.LOGIN, sasl.SCRAM, sasl.CRAM_MD5):
            self.fails(self.converse(mechanism, "nobody"))

    def test_channel_binding(self) -> None:
        """SCRAM-SHA-256-PLUS works over either binding."""
        for bindings in (EXPORTER, END_POINT, TLS.bindings):
            done = self.converse(sasl.SCRAM_PLUS, bindings=bindings)
            self.assertEqual(self.run_now(done), "alice")

    def test_channel_binding_of_another_connection(self) -> None:
        """A proof that was made for another TLS connection is refused: somebody sits between."""
        other = {"tls-exporter": b"x" * 32}
        reason = self.fails(
            self.converse(sasl.SCRAM_PLUS, bindings=EXPORTER, server_bindings=other)
        )
        self.assertIn("another connection", reason)

    def test_hidden_channel_binding(self) -> None:
        """A client that could bind and was not offered it says so, and the server notices."""
        reason = self.fails(self.converse(sasl.SCRAM, bindings=EXPORTER))
        self.assertIn("hid", reason)

    def test_names_with_commas(self) -> None:
        """The characters that SCRAM itself uses may occur in a user name."""
        users = KnownUsers()
        wire = _Wire(lambda first, ask: sasl.authenticate(sasl.SCRAM, first, ask, users))
        self.fails(sasl.respond(sasl.SCRAM, "a=b,c", "secret", wire.exchange))
        self.assertEqual(users.asked, ["a=b,c"])

    def test_names_and_passwords_are_prepared(self) -> None:
        """Compatible forms of a name or a password are the same one (RFC 4013)."""
        for mechanism in (sasl.PLAIN, sasl.LOGIN, sasl.SCRAM):
            done = self.converse(mechanism, "al\u00adice", "\uff57onderland")
            self.assertEqual(self.run_now(done), "alice", mechanism)


class ServerTests(SaslTestCase):
    """The server's side against clients that misbehave."""

    def authenticate(
        self, mechanism: str, initial: bytes | None, *responses: bytes, **known: Any
    ) -> tuple[Coroutine[Any, Any, str], list[bytes]]:
        """The server's side, with a client that gives these responses."""
        challenge, challenges = script(*responses)
        return (
            sasl.authenticate(mechanism, initial, challenge, KnownUsers(), **known),
            challenges,
        )

    def test_first_message_is_asked_for(self) -> None:
        """Without an initial response, an empty challenge asks for it (RFC 4954 section 4)."""
        done, challenges = self.authenticate(sasl.PLAIN, None, b"\0alice\0wonderland")
        self.assertEqual(self.run_now(done), "alice")
        self.assertEqual(challenges, [b""])

    def test_login_prompts(self) -> None:
        """LOGIN asks for name and password, or for the password alone after a name."""
        done, challenges = self.authenticate(sasl.LOGIN, None, b"alice", b"wonderland")
        self.assertEqual(self.run_now(done), "alice")
        self.assertEqual(challenges, [b"Username:", b"Password:"])
        done, challenges = self.authenticate(sasl.LOGIN, b"alice", b"wonderland")
        self.assertEqual(self.run_now(done), "alice")
        self.assertEqual(challenges, [b"Password:"])

    def test_acting_for_oneself(self) -> None:
        """An authorization identity may be named where it is the user's own."""
        done, _ = self.authenticate(sasl.PLAIN, b"alice\0alice\0wonderland")
        self.assertEqual(self.run_now(done), "alice")
        done, _ = self.authenticate(sasl.EXTERNAL, b"office", external="office")
        self.assertEqual(self.run_now(done), "office")

    def test_acting_for_another(self) -> None:
        """Nobody may act for another user, with whatever mechanism."""
        done, _ = self.authenticate(sasl.PLAIN, b"bob\0alice\0wonderland")
        self.assertIn("another user", self.fails(done))
        done, _ = self.authenticate(sasl.EXTERNAL, b"bob", external="office")
        self.assertIn("another user", self.fails(done))

    def test_external_without_certificate(self) -> None:
        """EXTERNAL proves nothing where there is no certificate."""
        done, _ = self.authenticate(sasl.EXTERNAL, b"alice")
        self.fails(done)

    def test_malformed_messages(self) -> None:
        """What is not of the mechanism's form is a failed authentication, nothing worse."""
        for mechanism, initial in (
            (sasl.PLAIN, b""),
            (sasl.PLAIN, b"alice\0wonderland"),
            (sasl.PLAIN, b"\0alice\0wonder\0land"),
            (sasl.PLAIN, b"\0\xff\0wonderland"),
            (sasl.PLAIN, b"\0\0"),
            (sasl.LOGIN, b"\xff"),
            (sasl.CRAM_MD5, b"too early"),
            (sasl.SCRAM, b""),
            (sasl.SCRAM, b"n,,n=alice"),
            (sasl.SCRAM, b"n,,m=ext,n=alice,r=abc"),
            (sasl.SCRAM, b"n,,n=al=ice,r=abc"),
            (sasl.SCRAM, b"n,,n=alice,r=a\x00c"),
            (sasl.SCRAM, b"x,,n=alice,r=abc"),
            (sasl.SCRAM, b"p=tls-exporter,,n=alice,r=abc"),
            (sasl.SCRAM_PLUS, b"n,,n=alice,r=abc"),
            (sasl.SCRAM_PLUS, b"p=tls-unique,,n=alice,r=abc"),
            ("NTLM", b""),
        ):
            done, _ = self.authenticate(mechanism, initial, b"", bindings=EXPORTER)
            self.fails(done)

    def test_malformed_scram_proofs(self) -> None:
        """A final message with another nonce, no proof or a short proof fails."""
        for final in (b"", b"c=biws,r=abc,p=AAAA", b"c=biws,r=abc", b"c=?,r=abc,p=AAAA", b"*"):
            done, _ = self.authenticate(sasl.SCRAM, b"n,,n=alice,r=abc", final)
            self.fails(done)

    def test_scram_nonce_of_another_exchange(self) -> None:
        """A client that knows the password must prove it in this exchange, not in another."""
        salted = hashlib.pbkdf2_hmac("sha256", b"wonderland", SALT, 4096)
        client_key = hmac.digest(salted, b"Client Key", "sha256")

        async def challenge(server_first: bytes) -> bytes:
            signed = b"n=alice,r=abc," + server_first + b",c=biws,r=abcdef"
            stored_key = hashlib.sha256(client_key).digest()
            signature = hmac.digest(stored_key, signed, "sha256")
            proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
            return b"c=biws,r=abcdef,p=" + b64encode(proof)

        done = sasl.authenticate(sasl.SCRAM, b"n,,n=alice,r=abc", challenge, KnownUsers())
        self.assertIn("another connection", self.fails(done))

    def test_cram_md5_garbage(self) -> None:
        """A response without name or digest fails."""
        for response in (b"", b"tim", b" ", b"tim \xff"):
            done, _ = self.authenticate(sasl.CRAM_MD5, None, response)
            self.fails(done)

    def test_challenges_never_repeat(self) -> None:
        """No CRAM-MD5 challenge and no SCRAM nonce can be used again."""
        seen = set()
        for mechanism, initial in ((sasl.CRAM_MD5, None), (sasl.SCRAM, b"n,,n=alice,r=abc")):
            for _ in range(5):
                done, challenges = self.authenticate(mechanism, initial, b"")
                self.fails(done)
                seen.add(challenges[0])
        self.assertEqual(len(seen), 10)

    @given(
        st.sampled_from((sasl.PLAIN, sasl.LOGIN, sasl.CRAM_MD5, sasl.SCRAM, sasl.SCRAM_PLUS)),
        st.none() | st.binary() | st.from_regex(scram.CLIENT_FIRST, fullmatch=True),
        st.binary() | st.from_regex(scram.CLIENT_FINAL, fullmatch=True),
    )
    def test_no_garbage_proves_anything(
        self, mechanism: str, initial: bytes | None, response: bytes
    ) -> None:
        """Whatever a client sends without the secret, it fails, and in no other way."""
        done, _ = self.authenticate(mechanism, initial, response, response, bindings=EXPORTER)
        self.fails(done)


class ClientTests(SaslTestCase):
    """The client's side against servers that misbehave."""

    def respond(self, mechanism: str, *answers: bytes | None, **known: Any) -> Any:
        """Our client, with a server that gives these answers."""
        waiting = list(answers)
        self.sent: list[bytes | None] = []

        async def exchange(response: bytes | None) -> bytes | None:
            self.sent.append(response)
            return waiting.pop(0)

        return sasl.respond(mechanism, "alice", "wonderland", exchange, **known)

    def test_plain(self) -> None:
        """PLAIN is one message (RFC 4616 section 2)."""
        self.run_now(self.respond(sasl.PLAIN, None))
        self.assertEqual(self.sent, [b"\0alice\0wonderland"])

    def test_server_asks_for_more(self) -> None:
        """A server that goes on asking after the mechanism's end is not followed."""
        for mechanism, answers in (
            (sasl.PLAIN, (b"",)),
            (sasl.LOGIN, (b"", b"", b"")),
            (sasl.EXTERNAL, (b"",)),
        ):
            self.fails(self.respond(mechanism, *answers))

    def test_scram_server_without_proof(self) -> None:
        """A server that says yes without proving that it knows the user is a stranger."""
        with patch.object(secrets, "token_bytes", lambda size: bytes(size)):
            nonce = b"A" * 24
            first = b"r=" + nonce + b"xyz,s=c2FsdHNhbHRzYWx0,i=4096"
            for answers in (
                (None,),
                (first, None),
                (first, b"v=AAAA"),
                (first, b"e=other-error"),
            ):
                self.fails(self.respond(sasl.SCRAM, *answers))

    def test_scram_server_nonsense(self) -> None:
        """Another nonce, too few or too many iterations end the exchange before any proof."""
        with patch.object(secrets, "token_bytes", lambda size: bytes(size)):
            nonce = b"A" * 24
            for first in (
                b"",
                b"r=other,s=c2FsdA==,i=4096",
                b"r=" + nonce + b",s=c2FsdA==,i=4096",
                b"r=" + nonce + b"x,s=c2FsdA==,i=1",
                b"r=" + nonce + b"x,s=c2FsdA==,i=999999999",
                b"r=" + nonce + b"x,s=A,i=4096",
            ):
                self.fails(self.respond(sasl.SCRAM, first))
                self.assertEqual(len(self.sent), 1)

    def test_no_binding(self) -> None:
        """SCRAM-SHA-256-PLUS needs something to bind to."""
        self.fails(self.respond(sasl.SCRAM_PLUS))

    def test_unknown_mechanism(self) -> None:
        """A mechanism that we don't have is a failure."""
        self.fails(self.respond("GSSAPI"))


class DerivationTests(SaslTestCase):
    """What a password costs."""

    def test_once_for_each_salt(self) -> None:
        """A client derives its key once, and another one for another salt."""
        with patch.object(hashlib, "pbkdf2_hmac", wraps=hashlib.pbkdf2_hmac) as derive:
            first = sasl.own_salted_password("a secret of ours", SALT, 5000)
            self.assertEqual(first, sasl.own_salted_password("a secret of ours", SALT, 5000))
            self.assertEqual(derive.call_count, 1)
            sasl.own_salted_password("a secret of ours", SALT[::-1], 5000)
            self.assertEqual(derive.call_count, 2)
        self.assertEqual(first, sasl.salted_password("a secret of ours", SALT, 5000))


class VectorTests(SaslTestCase):
    """The examples of the RFCs."""

    def test_scram_server(self) -> None:
        """Our server takes the client of RFC 7677 section 3 and answers as it says."""
        salt = b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
        users = KnownUsers()
        users.keys = sasl.scram_keys("pencil", salt, 4096)

        async def keys(user: str) -> ScramKeys:
            return users.keys

        users.scram_keys = keys  # type: ignore[method-assign]
        challenge, challenges = script(
            b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
            b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
            b"",
        )
        with patch.object(server, "b64encode", _Encoded(b"%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0")):
            done = sasl.authenticate(
                sasl.SCRAM, b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO", challenge, users
            )
            self.assertEqual(self.run_now(done), "user")
        self.assertEqual(
            challenges,
            [
                b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
                b"s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
                b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
            ],
        )

    def test_cram_md5(self) -> None:
        """The digest of RFC 2195 section 2."""
        text = b"<1896.697170952@postoffice.reston.mci.net>"
        waiting: list[bytes | None] = [text, None]
        sent: list[bytes | None] = []

        async def exchange(response: bytes | None) -> bytes | None:
            sent.append(response)
            return waiting.pop(0)

        self.run_now(sasl.respond(sasl.CRAM_MD5, "tim", "tanstaaftanstaaf", exchange))
        self.assertEqual(sent[1], b"tim b913a602c7eda7a495b4e6e7334d3890")

    def test_prepare(self) -> None:
        """The examples of RFC 4013 section 3."""
        self.assertEqual(prepare("I\u00adX"), "IX")
        self.assertEqual(prepare("user"), "user")
        self.assertEqual(prepare("USER"), "USER")
        self.assertEqual(prepare("\u00aa"), "a")
        self.assertEqual(prepare("\u2168"), "IX")
        for forbidden in ("\u0007", "\u0627\u0031", "", "\u00ad"):
            self.assertRaises(ValueError, prepare, forbidden)

    def test_right_to_left(self) -> None:
        """A word that is written from right to left is a password like another."""
        self.assertEqual(prepare("\u0627\u0628"), "\u0627\u0628")
        self.assertRaises(ValueError, prepare, "\u0627a\u0628")


class _Encoded:
    """base64, but for the first value, which stands for a nonce that was drawn."""

    def __init__(self, nonce: bytes) -> None:
        self._nonce: bytes | None = nonce

    def __call__(self, octets: bytes) -> bytes:
        nonce, self._nonce = self._nonce, None
        return b64encode(octets) if nonce is None else nonce


class ScrampTests(SaslTestCase):
    """Our SCRAM against an implementation that is not ours."""

    def scramp_client(
        self, mechanism: str, password: str, binding: tuple[str, bytes] | None
    ) -> tuple[Any, Callable[[bytes], Awaitable[bytes]]]:
        """A client of the other implementation, and the challenge function that it answers."""
        client = ScramClient([mechanism], "alice", password, channel_binding=binding)

        async def challenge(text: bytes) -> bytes:
            if text.startswith(b"r="):
                client.set_server_first(text.decode())
                return client.get_client_final().encode()
            client.set_server_final(text.decode())
            return b""

        return client, challenge

    def test_their_client(self) -> None:
        """Their client is content with our server."""
        for mechanism, binding in (
            (sasl.SCRAM, None),
            (sasl.SCRAM_PLUS, ("tls-server-end-point", END_POINT["tls-server-end-point"])),
        ):
            client, challenge = self.scramp_client(mechanism, "wonderland", binding)
            first = client.get_client_first().encode()
            bindings = END_POINT if binding else sasl.NO_BINDINGS
            done = sasl.authenticate(mechanism, first, challenge, KnownUsers(), bindings=bindings)
            self.assertEqual(self.run_now(done), "alice")

    def test_their_client_with_a_wrong_password(self) -> None:
        """Their client does not get in without the password."""
        client, challenge = self.scramp_client(sasl.SCRAM, "looking-glass", None)
        first = client.get_client_first().encode()
        self.fails(sasl.authenticate(sasl.SCRAM, first, challenge, KnownUsers()))

    def respond_to_theirs(self, mechanism: str, password: str, bindings: Any) -> Any:
        """Our client talking to their server."""
        theirs = ScramMechanism(mechanism)
        binding = next(iter(bindings.items())) if bindings else None
        server = theirs.make_server(
            lambda user: theirs.make_auth_info("wonderland"), channel_binding=binding
        )

        async def exchange(response: bytes | None) -> bytes | None:
            assert response is not None
            if not response:
                return None
            text = response.decode()
            if text.startswith("c="):
                with contextlib.suppress(ScramException):
                    server.set_client_final(text)
                return server.get_server_final().encode()  # type: ignore[no-any-return]
            server.set_client_first(text)
            return server.get_server_first().encode()  # type: ignore[no-any-return]

        return sasl.respond(mechanism, "alice", password, exchange, bindings=bindings)

    def test_their_server(self) -> None:
        """Our client is content with their server."""
        self.run_now(self.respond_to_theirs(sasl.SCRAM, "wonderland", sasl.NO_BINDINGS))
        self.run_now(self.respond_to_theirs(sasl.SCRAM_PLUS, "wonderland", END_POINT))

    def test_their_server_and_a_wrong_password(self) -> None:
        """Their server does not let our client in without the password."""
        self.fails(self.respond_to_theirs(sasl.SCRAM, "looking-glass", sasl.NO_BINDINGS))


class ChoiceTests(SynchronousTestCase):
    """Which mechanism is offered, and which is taken."""

    def test_offer_without_tls(self) -> None:
        """No mechanism that shows the password is offered on an open wire."""
        for service in (Service.SMTP, Service.SUBMISSION, Service.ODMR):
            names = sasl.offered(service, None, cram_md5=False, external=False)
            self.assertEqual(names, ("SCRAM-SHA-256",))

    def test_offer_with_tls(self) -> None:
        """Under TLS everything is offered, strongest first."""
        names = sasl.offered(Service.SMTP, TLS, cram_md5=True, external=True)
        self.assertEqual(
            names,
            ("EXTERNAL", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "CRAM-MD5", "PLAIN", "LOGIN"),
        )

    def test_offer_in_the_clear(self) -> None:
        """The password itself, too, where that is allowed."""
        names = sasl.offered(
            Service.SUBMISSION, None, cram_md5=True, external=False, cleartext=True
        )
        self.assertEqual(names, ("SCRAM-SHA-256", "PLAIN", "LOGIN"))

    def test_offer_cram_md5(self) -> None:
        """CRAM-MD5 is for users who asked for it, under TLS; for ODMR without TLS too."""
        offered = sasl.offered
        plain = offered(Service.SMTP, None, cram_md5=True, external=False)
        self.assertNotIn("CRAM-MD5", plain)
        odmr = offered(Service.ODMR, None, cram_md5=True, external=False)
        self.assertEqual(odmr, ("SCRAM-SHA-256", "CRAM-MD5"))

    def test_take_the_strongest(self) -> None:
        """Under TLS the client takes SCRAM with binding, SCRAM, and then the password."""
        proved = replace(TLS, certificate="ab")
        everything = ["LOGIN", "plain", "CRAM-MD5", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"]
        self.assertEqual(sasl.strongest(everything, TLS, "s"), "SCRAM-SHA-256-PLUS")
        self.assertEqual(sasl.strongest(everything[:4], TLS, "s"), "SCRAM-SHA-256")
        self.assertEqual(sasl.strongest(everything[:3], proved, "s"), "PLAIN")
        unbound = TLSInfo("TLSv1.2", "x")
        self.assertEqual(sasl.strongest(everything, unbound, "s"), "SCRAM-SHA-256")

    def test_never_the_password_without_tls(self) -> None:
        """On an open wire the client proves the secret or stays away."""
        self.assertEqual(sasl.strongest(["PLAIN", "LOGIN", "CRAM-MD5"], None, "s"), "CRAM-MD5")
        self.assertIsNone(sasl.strongest(["PLAIN", "LOGIN"], None, "s"))

    def test_never_the_password_to_a_stranger(self) -> None:
        """Nor does it go to a server that has TLS and has not proved who it is."""
        self.assertEqual(sasl.strongest(["PLAIN", "LOGIN", "CRAM-MD5"], TLS, "s"), "CRAM-MD5")
        self.assertIsNone(sasl.strongest(["PLAIN", "LOGIN"], TLS, "s"))

    def test_certificate_alone(self) -> None:
        """Without a secret the client can only show its certificate."""
        self.assertEqual(sasl.strongest(["PLAIN", "EXTERNAL"], TLS, ""), "EXTERNAL")
        self.assertIsNone(sasl.strongest(["PLAIN", "EXTERNAL"], None, ""))


class SecrecyTests(SynchronousTestCase):
    """Nothing secret can reach a log."""

    def test_keys_stay_out_of_sight(self) -> None:
        """The text form of keys and of a connection's bindings shows none of them."""
        keys = sasl.scram_keys("wonderland", SALT, 4096)
        self.assertNotIn(repr(keys.stored_key), repr(keys))
        self.assertNotIn(repr(keys.server_key), repr(keys))
        self.assertNotIn("eeee", repr(TLS))

    def test_stored_keys(self) -> None:
        """Keys are those of RFC 5802 section 3, with the hash of RFC 7677."""
        salted = hashlib.pbkdf2_hmac("sha256", b"wonderland", SALT, 4096)
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        keys = sasl.scram_keys("wonderland", SALT, 4096)
        self.assertEqual(keys.stored_key, hashlib.sha256(client_key).digest())
        self.assertTrue(secrets.compare_digest(keys.salt, SALT))
