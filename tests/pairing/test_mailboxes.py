"""One list of mailboxes: what the office tells, and what the relay makes of it."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import maybeDeferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mta.access.answer_table import AnswerTable
from mta.interfaces import IMailboxListStore
from mta.mail import Agent, Hop, Mailbox
from mta.pairing.mailboxes import (
    MAX_NAMES,
    ListFault,
    MailboxFiles,
    document_of,
    domains_with_mailboxes,
    lists_for_relays,
    live_domains,
    read,
    source_of,
)
from mta.pairing.told import ToldMailboxes
from mta.peer_settings import KnownDomain, Verify
from mta.routing import Router
from mta.session import RecipientAnswer
from mta.settings import Domain, Forward, Peer, Settings
from mta.shared_tables.files import TableFolder
from mta.sync import result_of

MAILDIR = Hop(Agent.MAILDIR, "mail/{domain}/{local}")
HELD = Hop(Agent.HOLD, "office")
ALICE = Mailbox("alice", "example.com")
OURS = Domain(
    "example.com",
    MAILDIR,
    frozenset({"alice", "bob"}),
    aliases={"sales": (ALICE,)},
    forward={"bob": Forward((ALICE,))},
    subaddress="-",
)
TOLD = {"names": ["alice", "bob", "postmaster", "sales"], "subaddress": "-"}
OPEN = {"names": None, "subaddress": "+"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just("names"), inner),
)


class OfficeTests(SynchronousTestCase):
    """The list that an office makes."""

    def told(self, domain: Domain, *others: Domain) -> object:
        """What it says of a domain."""
        domains = {each.name: each for each in (domain, *others)}
        return json.loads(document_of(domains, [domain.name]))[domain.name]

    def test_names(self) -> None:
        """Whatever has an entry is there, and the postmaster in any case."""
        self.assertEqual(self.told(OURS), TOLD)
        self.assertEqual(self.told(replace(OURS, deliver=Hop(Agent.LMTP, "x", 24))), TOLD)

    def test_open_domains(self) -> None:
        """A domain that takes all, or leaves it to the next host, says so."""
        for domain in (
            Domain("example.com", MAILDIR, None),
            Domain("example.com", MAILDIR, catch_all=ALICE),
            Domain("example.com", Hop(Agent.LMTP, "x", 24)),
            Domain("example.com", MAILDIR, alias_of="elsewhere.example"),
        ):
            self.assertEqual(self.told(domain), OPEN)

    def test_another_name(self) -> None:
        """A domain that is another one's name has its mailboxes."""
        self.assertEqual(
            self.told(Domain("b.example", MAILDIR, alias_of="example.com"), OURS), TOLD
        )

    def test_as_many_as_there_may_be(self) -> None:
        """A list of all names that a relay takes has the postmaster besides."""
        many = replace(
            OURS, mailboxes=frozenset(map(str, range(MAX_NAMES))), aliases={}, forward={}
        )
        document = document_of({"example.com": many}, ["example.com"])
        self.assertEqual(len(read(document, ["example.com"])["example.com"].names or ()), 100_001)

    def test_each_relay(self) -> None:
        """Each that we dial has the list of its domains; those that dial us have none."""
        relay = Peer("relay", ("example.com",), connect=Hop(Agent.SMTP, "relay.example", 465))
        settings = Settings(
            "office.example",
            domains={"example.com": OURS},
            peers={"relay": relay, "branch": replace(relay, name="branch", connect=None)},
        )
        lists = lists_for_relays(settings)
        self.assertEqual(list(lists), ["relay"])
        self.assertEqual(json.loads(lists["relay"]), {"example.com": TOLD})

    def test_nothing(self) -> None:
        """Of domains that are not ours nothing is said."""
        self.assertEqual(document_of({"example.com": OURS}, ["other.example"]), b"")


class RelayTests(SynchronousTestCase):
    """The list in the hands of the relay."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.spool = Path(folder.name)
        self.files = MailboxFiles(self.spool)
        self.domain = Domain("example.com", HELD, None, mailboxes_elsewhere=True)

    def mailboxes(self, domain: Domain | None = None, **peer: object) -> frozenset[str] | None:
        """The mailboxes that the relay goes by."""
        return domains_with_mailboxes(self.settings(domain, **peer))["example.com"].mailboxes

    def settings(self, domain: Domain | None = None, **peer: object) -> Settings:
        """The relay's configuration."""
        office = replace(Peer("office", ("example.com",), user="office"), **peer)  # type: ignore
        domain = domain or self.domain
        return Settings(
            "relay.example",
            str(self.spool),
            domains={domain.name: domain},
            peers={"office": office},
        )

    def test_it_goes_by_the_list(self) -> None:
        """By the names, and by the sign for subaddresses."""
        self.assertIsNone(self.mailboxes())
        before = self.files.stamp()
        self.files.keep("office", document_of({"example.com": OURS}, ["example.com"]))
        self.assertNotEqual(self.files.stamp(), before)
        self.assertEqual(self.mailboxes(), frozenset(TOLD["names"]))
        known = domains_with_mailboxes(self.settings())["example.com"]
        self.assertEqual(known.subaddress, "-")
        self.assertEqual(source_of(ALICE, self.settings()), "office")
        self.files.forget("office")
        self.assertIsNone(self.mailboxes())
        self.assertEqual(source_of(ALICE, self.settings()), "")

    def test_unreadable(self) -> None:
        """That is no list that is gone: it is told, and the peer tells its list again."""
        self.files.keep("office", document_of({"example.com": OURS}, ["example.com"]))
        answers = AnswerTable(TableFolder(self.spool), lambda: 1000.0, maybeDeferred)
        told = ToldMailboxes(self.files, answers, maybeDeferred)
        for error in (errno.EMFILE, errno.EIO, errno.EACCES):
            failing = OSError(error, os.strerror(error))
            with patch("mta.pairing.mailboxes.os.open", side_effect=failing):
                self.assertRaises(OSError, self.mailboxes)
                self.assertRaises(OSError, self.files.read, "office")
                self.assertEqual(result_of(told.digest("office")), "")
        self.assertEqual(self.mailboxes(), frozenset(TOLD["names"]))

    def test_the_configuration_stands(self) -> None:
        """What it says of mailboxes stands, and whose the domain is."""
        self.files.keep("office", document_of({"example.com": OURS}, ["example.com"]))
        any_name = replace(self.domain, mailboxes_elsewhere=False)
        self.assertIsNone(self.mailboxes(any_name))
        self.assertIsNone(self.mailboxes(domains=("other.example",)))
        self.assertIsNone(self.mailboxes(connect=MAILDIR))
        self.assertIsNone(self.mailboxes(replace(self.domain, deliver=Hop(Agent.HOLD, "other"))))

    def test_an_open_domain(self) -> None:
        """One that takes all goes on to take all."""
        self.files.keep("office", json.dumps({"example.com": OPEN}).encode())
        self.assertIsNone(self.mailboxes())

    def test_keeping(self) -> None:
        """A running server keeps a good list, and no other."""
        answers = AnswerTable(TableFolder(self.spool), lambda: 1000.0, maybeDeferred)
        answers.keep("office", ALICE, RecipientAnswer.NO)
        answers.keep("branch", ALICE, RecipientAnswer.NO)
        told = ToldMailboxes(self.files, answers, maybeDeferred)
        self.assertTrue(verifyObject(IMailboxListStore, told))
        office = self.settings().peers["office"]
        good = json.dumps({"example.com": TOLD}).encode()
        self.assertTrue(result_of(told.keep(office, good)))
        self.assertFalse(result_of(told.keep(office, b"[")))
        self.assertEqual(self.mailboxes(), frozenset(TOLD["names"]))
        self.assertTrue(result_of(told.digest("office")))
        self.assertEqual(result_of(told.digest("branch")), "")
        found = [result_of(answers.find(peer, ALICE)) for peer in ("office", "branch")]
        self.assertEqual(found, [RecipientAnswer.NONE, RecipientAnswer.NO])

    def test_a_peer_that_is_asked(self) -> None:
        """Its list is at hand, and refuses nothing by itself."""
        self.files.keep("office", document_of({"example.com": OURS}, ["example.com"]))
        domains = domains_with_mailboxes(self.settings(verify=Verify.LIVE))
        self.assertIsNone(domains["example.com"].mailboxes)
        router = Router("relay.example", domains, {}, Hop(Agent.MX))
        names = sorted(TOLD["names"])
        self.assertTrue(router.told(Mailbox(names[0].upper(), "example.com")))
        self.assertTrue(router.told(Mailbox(f"{names[0]}-x", "example.com")))
        self.assertIs(router.told(Mailbox("nobody", "example.com")), False)
        self.assertIsNone(router.told(Mailbox("nobody", "other.example")))
        live = live_domains(self.settings(verify=Verify.LIVE))
        self.assertEqual([*live], ["example.com"])
        self.files.keep("office", json.dumps({"example.com": OPEN}).encode())
        domains = domains_with_mailboxes(self.settings(verify=Verify.LIVE))
        router.use(domains)
        self.assertTrue(router.told(Mailbox("nobody", "example.com")))

    def test_a_peer_whose_list_does_not_count(self) -> None:
        """Nothing is known of its mailboxes."""
        self.files.keep("office", document_of({"example.com": OURS}, ["example.com"]))
        self.assertIsNone(self.mailboxes(verify=Verify.OFF))
        self.assertEqual(live_domains(self.settings(verify=Verify.OFF)), {})

    def test_only_its_own_domains(self) -> None:
        """What a peer says of other domains is not heard."""
        document = json.dumps({"example.com": TOLD, "bank.example": TOLD}).encode()
        self.assertEqual(list(read(document, ["example.com"])), ["example.com"])

    def test_what_is_no_list(self) -> None:
        """Names are local parts in lower case, and not too many."""
        for names in (["Alice"], [""], ["a\n"], ["x" * 65], [1], "alice", {"alice": 1}):
            document = json.dumps({"example.com": {"names": names, "subaddress": "+"}}).encode()
            self.assertRaises(ListFault, read, document, ["example.com"])
        many = {"names": [str(number) for number in range(MAX_NAMES + 1)], "subaddress": "+"}
        document = json.dumps({"example.com": many}).encode()
        self.assertRaises(ListFault, read, document, ["example.com"])
        for text in (b"", b"\xff", b"[" * 100_000, b'{"example.com": {"names": []}}'):
            self.assertRaises(ListFault, read, text, ["example.com"])

    @given(st.dictionaries(st.just("example.com"), JSON) | JSON)
    def test_anything(self, document: object) -> None:
        """It is a list, or a fault."""
        try:
            known = read(json.dumps(document).encode(), ["example.com"])
        except ListFault:
            return
        self.assertLessEqual(set(map(type, known.values())), {KnownDomain})
