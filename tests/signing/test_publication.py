"""The records of keys that the DNS has."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mta.dns_answer import Answer, RecordType
from mta.interfaces import IResolver, ResolutionFailed
from mta.signing.interfaces import IResolvers
from mta.signing.keys import ED25519 as ED25519_ALGORITHM
from mta.signing.keys import RSA as RSA_ALGORITHM
from mta.signing.keys import PrivateKey
from mta.signing.presence import Presence, presence
from mta.signing.publication import Publication
from mta.signing.records import text_of
from mta.testing import FakeResolver
from tests.signing.test_keys import ED25519, RSA

RSA_KEY = PrivateKey(RSA, RSA_ALGORITHM)
ED25519_KEY = PrivateKey(ED25519, ED25519_ALGORITHM)
PKCS1 = RSA.public_key().public_bytes(Encoding.DER, PublicFormat.PKCS1)
NAME = "2026a._domainkey.example.com"


class PresenceTests(SynchronousTestCase):
    """Texts that are compared with a key."""

    def test_presence(self) -> None:
        """Forms that verifiers take for the same are the same."""
        public = b64encode(RSA_KEY.public).decode()
        short = b64encode(ED25519_KEY.public).decode()
        for key, text in (
            (RSA_KEY, text_of(RSA_KEY)),
            (ED25519_KEY, text_of(ED25519_KEY)),
            (RSA_KEY, f"p={public}"),
            (RSA_KEY, f"v=DKIM1;h=sha1:sha256;s=email;t=y:s;p= {public[:9]} {public[9:]} ; n=x"),
            (RSA_KEY, f"k=rsa; p={b64encode(PKCS1).decode()}"),
        ):
            self.assertIs(Presence.PRESENT, presence(key, [text.encode()]), text)
        for key, text in (
            (RSA_KEY, text_of(ED25519_KEY)),
            (ED25519_KEY, text_of(RSA_KEY)),
            (RSA_KEY, f"v=DKIM1; p={short}"),
            (ED25519_KEY, f"v=DKIM1; p={short}"),  # rsa, as it says nothing else
            (RSA_KEY, "v=DKIM1; p="),
            (RSA_KEY, "v=DKIM1"),
            (RSA_KEY, f"v=DKIM1; h=sha1; p={public}"),
            (RSA_KEY, f"v=DKIM1; s=tlsrpt; p={public}"),
            (RSA_KEY, f"v=DKIM2; p={public}"),
            (RSA_KEY, f"v=DKIM1; p={public[:-8]}"),
            (RSA_KEY, "some text"),
        ):
            self.assertIs(Presence.DIFFERENT, presence(key, [text.encode()]), text)

    def test_several(self) -> None:
        """A verifier may take any one of several."""
        right, wrong = text_of(RSA_KEY).encode(), text_of(ED25519_KEY).encode()
        self.assertIs(Presence.MISSING, presence(RSA_KEY, []))
        self.assertIs(Presence.PRESENT, presence(RSA_KEY, [right, right]))
        self.assertIs(Presence.DIFFERENT, presence(RSA_KEY, [right, wrong]))


@implementer(IResolver)
class SilentResolver:
    """A name server that does not answer."""

    async def mx(self, domain: str) -> Sequence[tuple[int, str]]:
        """See `IResolver.mx`."""
        raise ResolutionFailed(domain)

    async def addresses(self, host: str) -> Sequence[str]:
        """See `IResolver.addresses`."""
        raise ResolutionFailed(host)

    async def query(self, name: str, kind: RecordType) -> Answer:
        """See `IResolver.query`."""
        raise ResolutionFailed(name)


@implementer(IResolvers)
class FakeResolvers:
    """Name servers by their addresses; any other is silent."""

    def __init__(self, servers: Mapping[str, IResolver]) -> None:
        self._servers = servers

    def asking(self, addresses: Sequence[str]) -> IResolver:
        """See `IResolvers.asking`."""
        return self._servers.get(addresses[0], SilentResolver())


def server(*texts: str) -> FakeResolver:
    """A name server with these texts at the name of the key."""
    resolver = FakeResolver({}, {})
    if texts:
        answer = Answer([text.encode() for text in texts])
        resolver.answers[NAME, RecordType.TXT] = answer
    return resolver


class PublicationTests(SynchronousTestCase):
    """Whether the name servers of a domain have a record."""

    RIGHT = server(text_of(RSA_KEY))
    WRONG = server(text_of(ED25519_KEY))
    EMPTY = server()

    def look(self, ours: IResolver, **servers: IResolver) -> Presence:
        """The presence of the record, for name servers of a zone above the domain."""
        if isinstance(ours, FakeResolver):
            hosts = [f"{name}.example.net" for name in servers]
            ours.answers["com", RecordType.NS] = Answer(hosts)
            ours.known = {host: [f"192.0.2.{n}"] for n, host in enumerate(hosts)}
        others = FakeResolvers({f"192.0.2.{n}": each for n, each in enumerate(servers.values())})
        looking = Publication(ours, others).look("example.com", {NAME: RSA_KEY})
        [(name, found)] = self.successResultOf(Deferred.fromCoroutine(looking)).items()
        self.assertEqual(NAME, name)
        return found

    def test_all_must_have_it(self) -> None:
        """Each name server of the domain that answers counts, and ours does not."""
        ours = self.EMPTY
        self.assertIs(Presence.PRESENT, self.look(ours, a=self.RIGHT, b=self.RIGHT))
        self.assertIs(Presence.PRESENT, self.look(ours, a=SilentResolver(), b=self.RIGHT))
        self.assertIs(Presence.MISSING, self.look(ours, a=self.RIGHT, b=self.EMPTY))
        self.assertIs(Presence.DIFFERENT, self.look(ours, a=self.WRONG, b=self.RIGHT))

    def test_none_that_answers(self) -> None:
        """Where none can be asked, ours is."""
        self.assertIs(Presence.PRESENT, self.look(server(text_of(RSA_KEY)), a=SilentResolver()))
        self.assertIs(Presence.PRESENT, self.look(server(text_of(RSA_KEY))))
        self.assertIs(Presence.MISSING, self.look(server()))
        self.assertIs(Presence.UNKNOWN, self.look(SilentResolver()))
