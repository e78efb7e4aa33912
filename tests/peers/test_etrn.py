"""ETRN as a customer asks for it: in another form where the peer does not know the first."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mta.queued import HopFailure
from tests.peers.test_exchange import Scripted


class EtrnTests(SynchronousTestCase):
    """What is asked, and what counts as the answer."""

    def ask(self, *replies: str) -> tuple[Scripted, list[str]]:
        """An exchange whose peer says this to ETRN; with it, what it was asked."""
        scripted = Scripted([], "etrn")
        connection = scripted.connection("250-ETRN")
        for reply in replies:
            connection.say(f"{reply}\r\n".encode())
        connection.say(b"221 bye\r\n")
        said = connection.transport.taken().decode().splitlines()
        connection.close()
        return scripted, said[1:]

    def test_exim(self) -> None:
        """A domain is taken for the name of a queue by a peer that knows nothing else."""
        scripted, said = self.ask("501 argument must begin with #", "250 OK")
        self.assertEqual(said, ["ETRN office.example", "ETRN #office.example", "QUIT"])
        tally = self.successResultOf(scripted.running)
        self.assertEqual([reply.code for reply in tally.replies], [250])

    def test_once(self) -> None:
        """Another refusal is the answer."""
        scripted, said = self.ask("500 unknown", "501 unknown as well")
        self.assertEqual(said, ["ETRN office.example", "ETRN #office.example", "QUIT"])
        failure = self.failureResultOf(scripted.running, HopFailure)
        self.assertEqual(failure.value.outcome.reply.text, "unknown as well")

    def test_other_answers(self) -> None:
        """What is answered is not asked again."""
        for reply in ("250 OK", "252 pending", "458 not now", "459 not you", "502 no"):
            scripted, said = self.ask(reply)
            scripted.running.addErrback(lambda failure: failure.trap(HopFailure))
            self.assertEqual(said, ["ETRN office.example", "QUIT"], reply)
