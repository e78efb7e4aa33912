"""Mail for an address of ours that goes on elsewhere."""

from collections.abc import AsyncIterator
from dataclasses import replace

from twisted.internet.defer import Deferred, succeed
from zope.interface.verify import verifyObject

from mta.mail import (
    NULL_PATH,
)
from mta.queued import Delivery, IContent, State
from mta.spool.content import MemoryContent
from mta.testing import (
    TEXT,
    FakeContent,
)
from tests.queue.runners import NO, B, RunnerTests


class ForwardingTests(RunnerTests):
    """Mail for an address of ours that goes on elsewhere."""

    def setUp(self) -> None:
        super().setUp()
        self.router.is_ours = lambda domain: domain == "a.example"
        self.router.rewritten = lambda path, forwarder: replace(path, domain="ours.example")
        self.router.aliases["x@a.example"] = ["x@b.example"]
        self.sent: list[Delivery] = []
        self.agent.attempt = self.see

    def see(self, delivery: Delivery) -> Deferred[None]:
        self.sent.append(delivery)
        return succeed(None)

    def test_as_ours(self) -> None:
        """It goes out under a reverse-path of ours, with a field that says who forwarded it."""
        self.accept_address("1", "X@a.example", "x@a.example")
        (plain, forwarded) = self.sent
        self.assertEqual("s@s.example", str(plain.message.envelope.reverse_path))
        self.assertEqual("s@ours.example", str(forwarded.message.envelope.reverse_path))
        content = forwarded.message.content
        verifyObject(IContent, content)
        octets = b"".join(self.successResultOf(Deferred.fromCoroutine(pieces(content))))
        self.assertEqual(b"Delivered-To: x@a.example\r\n" + TEXT, octets)
        self.assertEqual(len(octets), content.size)
        self.assertEqual([State.DONE] * 2, self.states())

    def test_sent_by_itself(self) -> None:
        """Where it shares its hop with a recipient that is not forwarded, each goes in its way."""
        self.accept_address("1", "y@b.example", "x@a.example")
        paths = {str(each.message.envelope.reverse_path) for each in self.sent}
        self.assertEqual({"s@s.example", "s@ours.example"}, paths)
        self.assertEqual([B, B], [each.targets[0].hop for each in self.sent])
        self.assertEqual([State.DONE] * 2, self.states())

    def test_failure(self) -> None:
        """Where it fails at once, the sender is told as ever."""
        self.agent.outcomes["x@b.example"] = NO
        self.accept_address("1", "x@a.example")
        (told,) = self.queue.notices[0].envelope.recipients
        self.assertEqual("s@s.example", str(told.forward_path))

    def test_loop(self) -> None:
        """What the address has forwarded before is not forwarded again."""
        content = MemoryContent(b"Delivered-To: x@a.example\r\n\r\n", b"Text\r\n", True)
        self.accept_address("1", "x@a.example", content=content)
        [notice] = self.sent
        self.assertEqual(NULL_PATH, notice.message.envelope.reverse_path)
        self.assertEqual(["x@b.example failed"], self.notices.asked[0][1])

    def test_unreadable(self) -> None:
        """Where its content can't be read, it waits."""
        self.accept_address("1", "x@a.example", content=LostContent())
        self.assertEqual([State.WAITING], self.states())


async def pieces(content: IContent) -> list[bytes]:
    return [piece async for piece in content.pieces()]


class LostContent(FakeContent):
    """Content that the spool can't read."""

    async def pieces(self) -> AsyncIterator[bytes]:
        raise OSError("damaged")
        yield b""
