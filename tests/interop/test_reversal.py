"""Role reversal between real processes: two of ours, and programs that others wrote.

Every connection is on the loopback interface.  What waits for something does so until a generous
deadline, so nothing here measures speed.
"""

from __future__ import annotations

import socket
import ssl
from base64 import b64encode
from contextlib import closing
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.certificates import Authority, fingerprint_of
from tests.interop.reversal import (
    BOB,
    BOBS,
    CAROL,
    CAROLS,
    PASSWORD,
    Provider,
    enqueue,
    letter,
    numbers,
    office,
    run_mta,
    waiting,
)
from tests.interop.sink import Sink
from tests.processes import (
    DEADLINE,
    Process,
    Server,
    free_port,
    need_program,
    source_environment,
    temporary_folder,
    wait_until,
)


class MethodTests(SynchronousTestCase):
    """``mta turn`` while no server of the office is up: mail goes both ways on one connection."""

    def setUp(self) -> None:
        self.provider = Provider(self)
        self.provider.start()

    def exchange(self, customer: Server, says: str) -> None:
        """Mail waits on both sides, and one ``mta turn`` moves what it says."""
        self.provider.send(letter(1), BOB)
        enqueue(customer, letter(2, BOB), BOB, CAROL)
        self.assertEqual(run_mta(customer, "turn", "provider"), f"{says}\n")
        self.assertEqual(numbers(customer.wait_for_mail(BOBS)), [1])

    def test_atrn_over_tls(self) -> None:
        """TLS from the first octet, the provider's certificate pinned."""
        self.exchange(office(self, self.provider), "sent 1, received 1")
        self.assertEqual(numbers(self.provider.wait_for_mail(CAROLS)), [2])

    def test_atrn_on_its_own_port(self) -> None:
        """On an odmr listener nobody hands in mail: ours goes on waiting, and nothing bounces."""
        customer = office(self, self.provider, "smtp://office:correct%20horse@localhost:{odmr}")
        self.exchange(customer, "sent 0, received 1")
        self.assertEqual(waiting(customer.folder), 1)

    def test_turn_over_starttls(self) -> None:
        """STARTTLS, and a certificate verified by `tls.ca` and the host's name."""
        customer = office(
            self,
            self.provider,
            "smtp://office:correct%20horse@localhost:{smtp}",
            {"tls": {"ca": str(self.provider.authority.path)}},
            pin="",
            method="turn",
        )
        self.exchange(customer, "sent 1, received 1")
        self.assertEqual(numbers(self.provider.wait_for_mail(CAROLS)), [2])

    def test_no_mail(self) -> None:
        """453 to ATRN is no failure, and both sides remember the exchange."""
        customer = office(self, self.provider)
        self.assertEqual(run_mta(customer, "turn", "provider"), "sent 0, received 0\n")
        self.assertRegex(run_mta(customer, "peers"), r"provider +customer +- +0 +\d+s ago\n")


class EtrnTests(SynchronousTestCase):
    """ETRN: the provider sends the mail on a connection of its own."""

    def test_the_provider_dials_back(self) -> None:
        """``mta turn`` shows what the provider said; the mail comes to the office's listener."""
        port = free_port()
        provider = Provider(self, {"etrn": f"smtp://127.0.0.1:{port}"})
        provider.start()
        customer = office(
            self,
            provider,
            "smtp://office:correct%20horse@localhost:{smtp}",
            {"listen": [{"endpoint": f"tcp:{port}:interface=127.0.0.1", "tls": "off"}]},
            method="etrn",
        )
        customer.start()
        provider.send(letter(1), BOB)
        self.assertRegex(run_mta(customer, "turn", "provider"), r"253 .*\nsent 0, received 0\n")
        self.assertEqual(numbers(customer.wait_for_mail(BOBS)), [1])


class DistrustTests(SynchronousTestCase):
    """Whoever is not the provider, or is not let in, gets nothing of our mail."""

    def setUp(self) -> None:
        self.provider = Provider(self)
        self.provider.start()

    def refuse(self, customer: Server, why: str) -> None:
        """``mta turn`` fails with this reason in one line, and our message still waits."""
        enqueue(customer, letter(2, BOB), BOB, CAROL)
        errors = run_mta(customer, "turn", "provider", status=1)
        self.assertRegex(errors, f"^mta: provider: .*{why}.*\n$")
        self.assertEqual(waiting(customer.folder), 1)
        self.assertNotIn("accepted", self.provider.log)

    def test_another_certificate_than_the_pinned_one(self) -> None:
        """It is refused in the handshake, before any log-in."""
        self.refuse(office(self, self.provider, pin="sha256:" + "ab" * 32), "not the one")

    def test_a_certificate_of_an_unknown_issuer(self) -> None:
        """The same where `tls.ca` decides, after STARTTLS."""
        ca = Authority(temporary_folder(self), "another")
        url = "smtp://office:correct%20horse@localhost:{smtp}"
        customer = office(
            self, self.provider, url, {"tls": {"ca": str(ca.path)}}, pin="", method="turn"
        )
        self.refuse(customer, "issuer")

    def test_a_wrong_password(self) -> None:
        """The log-in is refused, and the advice says where to look."""
        url = "smtps://office:wrong@localhost:{submission}"
        self.refuse(office(self, self.provider, url), "535 .*check the user and secret")

    def test_a_domain_of_somebody_else(self) -> None:
        """450 to ATRN: nothing is handed out."""
        self.provider.send(letter(1), BOB)
        customer = office(self, self.provider, domains=["elsewhere.example"])
        self.assertIn("check `domains`", run_mta(customer, "turn", "provider", status=1))
        self.assertEqual(waiting(self.provider.folder), 1)

    def test_nobody_there(self) -> None:
        """A host that can't be reached is named."""
        url = f"smtps://office:secret@localhost:{free_port()}"
        self.refuse(office(self, self.provider, url), "Cannot connect to localhost")


class HeldLinkTests(SynchronousTestCase):
    """With `linger`, the turned connection stays, and mail goes out on it as it comes."""

    def setUp(self) -> None:
        self.provider = Provider(self, {"linger": "1h"})
        self.provider.start()
        self.customer = office(self, self.provider, every="1h")
        self.customer.start()
        self.wait_for_link()

    def wait_for_link(self, after: int = 0) -> None:
        """The connection is turned."""
        assert self.provider.process is not None
        self.provider.process.wait_for("office turned the connection", after=after)

    def test_mail_is_pushed(self) -> None:
        """What the provider takes in, or finds in its spool, is at the office at once."""
        for number in range(5):
            self.provider.send(letter(number), BOB)
            self.customer.wait_for_mail(BOBS, number + 1)
        enqueue(self.provider, letter(5), CAROL, BOB)
        self.assertEqual(numbers(self.customer.wait_for_mail(BOBS, 6)), [*range(6)])
        self.assertEqual(self.provider.log.count("turned the connection"), 1)
        self.assertRegex(run_mta(self.customer, "peers"), r"provider +customer +\d+s +0 ")
        self.assertRegex(run_mta(self.provider, "peers"), r"office +provider +\d+s +0 ")

    def test_mail_of_the_office_does_not_wait(self) -> None:
        """It goes out on a second connection, while the first one stays turned."""
        self.customer.send(letter(1, BOB), CAROL, reverse_path=BOB)
        self.assertEqual(numbers(self.provider.wait_for_mail(CAROLS)), [1])
        enqueue(self.customer, letter(2, BOB), BOB, CAROL)
        self.assertEqual(numbers(self.provider.wait_for_mail(CAROLS, 2)), [1, 2])
        self.provider.send(letter(3), BOB)
        self.assertEqual(numbers(self.customer.wait_for_mail(BOBS)), [3])
        self.assertEqual(self.provider.log.count("turned the connection"), 1)

    def test_turning_while_the_server_holds_a_link(self) -> None:
        """``mta turn`` takes the link over, and ends although the provider would hold it."""
        self.provider.send(letter(1), BOB)
        self.customer.wait_for_mail(BOBS)
        self.assertEqual(run_mta(self.customer, "turn", "provider"), "sent 0, received 0\n")

    def test_the_office_is_killed(self) -> None:
        """kill -9 in the middle: all mail is there in the end, at most one message twice."""
        self.customer.kill()
        for number in range(10):
            self.provider.send(letter(number), BOB)
        self.customer.start()
        self.customer.wait_for_mail(BOBS, 3)
        self.customer.kill()
        self.customer.start()
        arrived = numbers(self.customer.wait_for_mail(BOBS, 10))
        wait_until(lambda: not waiting(self.provider.folder), "the provider has nothing left")
        arrived = numbers(self.customer.wait_for_mail(BOBS, 10))
        self.assertEqual(sorted(set(arrived)), [*range(10)])

    def test_the_provider_is_killed(self) -> None:
        """The office dials again by itself, and mail on both sides goes on."""
        self.provider.kill()
        self.customer.send(letter(1, BOB), CAROL, reverse_path=BOB)
        self.provider.start()
        self.wait_for_link()
        self.provider.send(letter(2), BOB)
        self.assertEqual(numbers(self.customer.wait_for_mail(BOBS)), [2])
        self.assertEqual(numbers(self.provider.wait_for_mail(CAROLS)), [1])
