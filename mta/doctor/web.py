"""Documents of other hosts, by HTTPS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from mta.doctor.examined import DocumentFault
from mta.interfaces import IClientTLS, IResolver
from mta.mail import Security

if TYPE_CHECKING:
    from twisted.web.client import URI
    from twisted.web.iweb import IResponse

MAX_DOCUMENT = 64 * 1024  # octets: what RFC 8461 section 3.3 finds enough for a policy
DOCUMENT_TIMEOUT = 5.0  # seconds: for all of one document
CONNECT_TIMEOUT = 2.0  # seconds: for one address, so that another one has its time
HTTPS_PORT = 443
_OK = 200


class Web:
    """Reads documents, each over a connection of its own.

    Certificates are verified.  Where a document is said to be elsewhere, nothing follows there, as
    RFC 8461 section 3.3 demands.
    """

    def __init__(
        self, reactor: Any, resolver: IResolver, tls: IClientTLS, port: int = HTTPS_PORT
    ) -> None:
        self._reactor = reactor
        self._resolver = resolver
        self._tls = tls
        self._port = port

    async def document(self, host: str, path: str) -> str:
        """See `IProbe.document`."""
        addresses = await self._resolver.addresses(host)
        reading = Deferred.fromCoroutine(self._document(host, addresses, path))
        try:
            octets = await reading.addTimeout(DOCUMENT_TIMEOUT, self._reactor)
        except TimeoutError:
            reason = f"no answer within {DOCUMENT_TIMEOUT:.0f} seconds"
            raise DocumentFault(reason, is_there=False) from None
        return octets.decode("utf-8", "replace")

    async def _document(self, host: str, addresses: Sequence[str], path: str) -> bytes:
        """Read a document from the first address that takes a connection."""
        fault = ""
        for address in addresses:
            try:
                return await self._read(host, address, path)
            except ConnectError as error:
                fault = f"{address} port {self._port}: {error}"
        raise DocumentFault(fault, is_there=False)

    async def _read(self, host: str, address: str, path: str) -> bytes:
        # It takes a while to import, and few domains have a policy.
        from twisted.web.client import Agent, ResponseFailed

        endpoint = _OneEndpoint(self._endpoint(host, address))
        agent = Agent.usingEndpointFactory(self._reactor, endpoint)
        try:
            response = await agent.request(b"GET", f"https://{host}{path}".encode("ascii"))
            if response.code != _OK:
                raise DocumentFault(f"its server replies {response.code}", is_there=True)
            return await _body(response)
        except ResponseFailed as failed:
            reason = failed.reasons[0].value
            if isinstance(reason, CancelledError):
                raise reason from None
            raise DocumentFault(str(reason), is_there=True) from None
        finally:
            endpoint.close()

    def _endpoint(self, host: str, address: str) -> IStreamClientEndpoint:
        kind = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
        endpoint = kind(self._reactor, address, self._port, CONNECT_TIMEOUT)
        context: Any = self._tls.for_host(host, Security.VERIFY)
        return wrapClientTLS(context, endpoint)


@implementer(IAgentEndpointFactory, IStreamClientEndpoint)
class _OneEndpoint:
    """Leads requests to one endpoint, and can end the connection."""

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint = endpoint
        self._protocol: Any = None

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """Twisted calls this."""
        return self

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Twisted calls this."""
        return self._endpoint.connect(protocolFactory).addCallback(self._note)

    def close(self) -> None:
        """End the connection at once, if there is one."""
        if self._protocol is not None and self._protocol.transport is not None:
            self._protocol.transport.abortConnection()

    def _note(self, protocol: IProtocol) -> IProtocol:
        self._protocol = protocol
        return protocol


async def _body(response: IResponse) -> bytes:
    """The body of a response, up to its limit."""
    collector = _Collector()
    response.deliverBody(collector)
    return await collector.whole


class _Collector(Protocol):
    """Collects a body up to the limit."""

    def __init__(self) -> None:
        self.whole: Deferred[bytes] = Deferred()
        self._pieces = bytearray()

    def dataReceived(self, data: bytes) -> None:
        """Twisted calls this."""
        self._pieces += data
        if len(self._pieces) > MAX_DOCUMENT and not self.whole.called:
            fault = DocumentFault(f"it is longer than {MAX_DOCUMENT} octets", is_there=True)
            self.whole.errback(Failure(fault))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Twisted calls this at the end of the body."""
        from twisted.web.client import ResponseDone
        from twisted.web.http import PotentialDataLoss

        if self.whole.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self.whole.callback(bytes(self._pieces))
        else:
            self.whole.errback(Failure(DocumentFault("it is cut off", is_there=True)))
