"""Relays that share a database: what one has seen, the others know."""

from __future__ import annotations

import json
import shutil
import smtplib
import ssl
import time
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mta.service.main import TAKE_OVER_INTERVAL
from tests.interop.reversal import BOB, BOBS, CAROL, CAROLS, PASSWORD, Provider, office, run_mta
from tests.processes import (
    DEADLINE,
    Server,
    configuration,
    local_domain,
    mail_in,
    temporary_folder,
    wait_until,
)
from tests.spool.postgres import cluster, execute

NOBODY = "nobody@office.example"
DIALS = "provider is dialled by this node"
PROXY = {"networks": ["127.0.0.0/8"], "xclient": ["127.0.0.1"]}
STRANGER = "192.0.2.7"


class SharedCase(SynchronousTestCase):
    """Nodes on one database."""

    def setUp(self) -> None:
        self.url = cluster().new_url()

    def keys(self, name: str) -> dict[str, str]:
        """The keys of the configuration of a node."""
        return {"spool": self.url, "spool_folder": "spool", "node": name}

    def node(self, name: str, **keys: Any) -> Server:
        """A node that runs, and takes mail for office.example."""
        server = Server(self, configuration(**self.keys(name), **keys))
        server.start()
        return server

    def rcpt(self, server: Server, *addresses: str, client: str = "") -> list[int]:
        """The codes of the replies to RCPT; `client`: the address of another client."""
        with smtplib.SMTP("127.0.0.1", server.ports["smtp"], timeout=DEADLINE) as smtp:
            smtp.ehlo("client.example")
            if client:
                smtp.docmd("XCLIENT", f"ADDR={client} NAME=mx.a.example")
                smtp.ehlo("mx.a.example")
            smtp.mail("alice@a.example")
            return [smtp.rcpt(address)[0] for address in addresses]


class CountTests(SharedCase):
    """Two nodes that take mail."""

    def setUp(self) -> None:
        super().setUp()
        keys: dict[str, Any] = {
            "relay": PROXY,
            "greylist": {"when": "always", "delay": "1s"},
            "limits": {"recipients_per_day": 3},
        }
        self.one, self.other = self.node("one", **keys), self.node("other", **keys)

    def test_counted_together(self) -> None:
        """What may pass on one node passes on the other at once; limits of a day are shared."""
        self.assertEqual(self.rcpt(self.one, BOB, client=STRANGER), [450])
        wait_until(lambda: self.rcpt(self.one, BOB, client=STRANGER) == [250], "it came again")
        self.assertEqual(self.rcpt(self.other, BOB, client=STRANGER), [250])
        outside = [f"{number}@elsewhere.example" for number in range(3)]
        self.assertEqual(self.rcpt(self.one, *outside[:2]), [250, 250])
        wait_until(lambda: self.rcpt(self.other, outside[2]) == [450], "they are counted")
        wait_until(lambda: self.rcpt(self.one, outside[2]) == [450], "so are the others")


class OfficeTests(SharedCase):
    """Two relays, and an office that dials one of them."""

    def setUp(self) -> None:
        super().setUp()
        peer = {"linger": "1h", "verify": "live"}
        self.one, self.other = (
            Provider(self, peer, **self.keys(name)) for name in ("one", "other")
        )
        run_mta(self.one, "user", "del", "office")
        add_user = ("user", "add", "office", "--password-stdin")
        run_mta(self.one, *add_user, stdin=PASSWORD + "\n")
        users = "users.yaml"
        shutil.copy(self.one.folder / users, self.other.folder / users)
        self.one.start()
        self.other.start()
        keys = {"domains": {"office.example": local_domain(mailboxes=["bob"])}}
        self.office = office(self, self.one, every="1s", keys=keys)
        self.office.start()
        self.one.wait_for_links()

    def peer(self, node: Server) -> dict[str, Any]:
        """The office, as a node shows it."""
        found: dict[str, Any] = json.loads(run_mta(node, "peers", "office", "--json"))
        return found

    def test_elsewhere(self) -> None:
        """Another node knows the link, the list and the answers, and passes on what it takes."""
        wait_until(lambda: self.peer(self.other)["link_since"], "the link is known")
        nodes = {each["node"]: each["link_since"] for each in self.peer(self.other)["nodes"]}
        self.assertEqual(nodes, {"other": None, "one": self.peer(self.one)["link_since"]})
        self.assertRegex(run_mta(self.other, "peers"), r"(?m)^office +provider +\S+ +one +0")
        self.assertRegex(run_mta(self.other, "peers", "office"), r"(?m)^  at node +one$")
        wait_until(lambda: self.peer(self.other)["mailboxes"] == 2, "the list is known")
        wait_until(lambda: self.rcpt(self.other, NOBODY) == [550], "and gone by")
        self.assertEqual(self.rcpt(self.one, BOB), [250])
        wait_until(self.is_answered_elsewhere, "the answer is used")
        wait_until(lambda: self.peer(self.other)["questions"]["link"] == 1, "counts are joined")
        self.arrives_at_once()

        self.take_another_secret()
        self.one.stop()
        self.assertIsNone(self.peer(self.other)["link_since"])
        self.assertEqual(self.rcpt(self.other, NOBODY, BOB), [550, 250])

    def arrives_at_once(self) -> None:
        """Mail that the other node takes: NOTIFY brings it.

        One that only looked, every ten seconds, would need twenty for three that come in turn.
        """
        began = time.monotonic()
        for number in range(1, 4):
            self.other.send(b"Subject: x\r\n\r\nx\r\n", BOB)
            self.office.wait_for_mail(BOBS, number)
        self.assertLess(time.monotonic() - began, 2 * TAKE_OVER_INTERVAL)

    def is_answered_elsewhere(self) -> bool:
        """Ask the other node for the mailbox; tell whether it knew an answer by now."""
        self.assertEqual(self.rcpt(self.other, BOB), [250])
        return self.peer(self.other)["questions"]["cache"] > 0

    def take_another_secret(self) -> None:
        """One that the office took at one node opens its link at the other."""
        new = "n" * 32
        self.office.stop()
        with self.log_in(self.one, PASSWORD) as client:
            self.assertEqual(client.docmd("XRENEW", new)[0], 250)
        wait_until(lambda: self.may_log_in(self.other, new), "the new one is known")
        wait_until(lambda: not self.may_log_in(self.one, PASSWORD), "the old one is over")

    def log_in(self, node: Server, password: str) -> smtplib.SMTP:
        """A session of the office."""
        context = ssl._create_unverified_context()
        port = node.ports["submission"]
        client = smtplib.SMTP_SSL("localhost", port, timeout=DEADLINE, context=context)
        client.login("office", password)
        return client

    def may_log_in(self, node: Server, password: str) -> bool:
        """Tell whether a password is the office's."""
        try:
            self.log_in(node, password).close()
        except smtplib.SMTPAuthenticationError:
            return False
        return True


class OfficeNodesTests(SharedCase):
    """An office of two nodes with one configuration, and its relay."""

    def setUp(self) -> None:
        super().setUp()
        self.relay = Provider(self, {"linger": "1h"})
        self.relay.start()
        self.mail = temporary_folder(self)
        self.one, self.other = self.office("one"), self.office("other")

    def office(self, name: str) -> Server:
        """A node of the office, started."""
        domain = local_domain(deliver=f"maildir:{self.mail}/{{local}}")
        keys = self.keys(name) | {"domains": {"office.example": domain}}
        server = office(self, self.relay, every="1s", keys=keys)
        server.start()
        return server

    def holder(self) -> Server:
        """The node that dials, which is the only one."""
        [found] = [each for each in (self.one, self.other) if DIALS in each.log]
        return found

    def bring(self, count: int) -> None:
        """Mail for the office comes to the relay, and leaves by the link."""
        self.relay.send(b"Subject: x\r\n\r\nx\r\n", BOB)
        wait_until(lambda: len(mail_in(self.mail / "bob")) == count, "it arrives")

    def test_one_holds_the_link(self) -> None:
        """One dials; each sends the office's own mail; another dials when that one dies."""
        wait_until(lambda: self.relay.links == 1, "a link stands")
        self.bring(1)
        first = self.holder()
        last = self.other if first is self.one else self.one
        last.send(b"Subject: x\r\n\r\nx\r\n", CAROL, reverse_path=BOB)
        self.relay.wait_for_mail(CAROLS)
        self.assertEqual(self.relay.links, 1)
        first.kill()
        name = "one" if first is self.one else "other"
        # As when a minute has passed.
        execute(self.url, "UPDATE owner SET alive_until = '-infinity' WHERE node = %s", name)
        wait_until(lambda: DIALS in last.log, "the other one dials")
        wait_until(lambda: self.relay.links == 2, "its link stands")
        self.bring(2)
