"""DMARC beside OpenDMARC, which asks the same DNS: the same results, but where RFC 9989 differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mta.authentication.dmarc import Identifiers, Result, evaluate
from mta.authentication.dmarc.tree_walk import TreeWalk
from mta.sync import result_of
from tests.authentication.zones import zone
from tests.interop.name_server import answering
from tests.interop.opendmarc import OpenDMARC

SUFFIXES = ("test", "co.test")
FAMILIES = {
    "bank.test": ("bank.test", "mail.bank.test", "news.mail.bank.test"),
    "shop.co.test": ("shop.co.test", "mail.shop.co.test"),
}
OTHERS = ("other.test", "mail.other.test", "other.co.test")
DOMAINS = (*(each for family in FAMILIES.values() for each in family), *OTHERS)

Records = Mapping[str, str | list[str]]


@st.composite
def records(draw: Any, *, modes: str = "rs") -> str:
    """A record that both RFCs understand in the same way."""
    tags = [f"p={draw(st.sampled_from(POLICIES))}"]
    for name, values in (("sp", POLICIES), ("adkim", modes), ("aspf", modes)):
        if value := draw(st.sampled_from(["", *values])):
            tags.append(f"{name}={value}")
    tags += draw(st.sampled_from([[], ["fo=1"], ["rua=mailto:d@bank.test"], ["x-new=1"], [""]]))
    blank = draw(st.sampled_from(["", " "]))
    return f";{blank}".join(["v=DMARC1", tags[0], *draw(st.permutations(tags[1:]))])


POLICIES = ("none", "quarantine", "reject")


@st.composite
def messages(draw: Any) -> tuple[Records, str, str, list[str]]:
    """Records by domain, an author, and who vouches for the message.

    The organisation of the author has a record: else RFC 9989 finds another one.
    """
    organisation = draw(st.sampled_from([*FAMILIES]))
    author = draw(st.sampled_from(FAMILIES[organisation]))
    found = draw(st.dictionaries(st.sampled_from(DOMAINS), records(), max_size=3))
    # Theirs forgets strict alignment where the author is the organisation itself.
    found[organisation] = draw(records(modes="r" if author == organisation else "rs"))
    spf = draw(st.sampled_from(["", *DOMAINS]))
    return found, author, spf, draw(st.lists(st.sampled_from(DOMAINS), max_size=2))


REJECT, NONE = "v=DMARC1; p=reject", "v=DMARC1; p=none"

# Where they differ: records, author, SPF and DKIM; what RFC 9989 says, and what RFC 7489 said or,
# where that is named, OpenDMARC's own way.
DIFFERENCES: Sequence[tuple[str, Records, tuple[str, str, list[str]], str, str]] = (
    (
        "a record between author and organisation is found by the tree walk",
        {"mail.bank.test": REJECT},
        ("news.mail.bank.test", "", []),
        "reject",
        "no policy",
    ),
    (
        "without a record of the organisation, a lower domain is one of its own",
        {"mail.bank.test": REJECT},
        ("mail.bank.test", "bank.test", []),
        "reject",
        "pass",
    ),
    (
        "psd=n: an organisation below another one, which no list of suffixes knows",
        {"mail.bank.test": f"{REJECT}; psd=n", "bank.test": NONE},
        ("news.mail.bank.test", "", []),
        "reject",
        "none",
    ),
    (
        "psd=n: what is above it is not aligned",
        {"mail.bank.test": f"{REJECT}; psd=n", "bank.test": NONE},
        ("mail.bank.test", "bank.test", []),
        "reject",
        "pass",
    ),
    (
        "psd=y: a suffix may have a policy for all below it",
        {"co.test": f"{REJECT}; psd=y"},
        ("shop.co.test", "", []),
        "reject",
        "no policy",
    ),
    (
        "np: domains that do not exist",
        {"bank.test": f"{NONE}; np=reject"},
        ("mail.bank.test", "", []),
        "reject",
        "none",
    ),
    ("t=y: a test, one step milder", {"bank.test": f"{REJECT}; t=y"}, ("bank.test", "", []),
     "quarantine", "reject"),
    (
        "a bad sp, and an address for reports: as p=none",
        {"bank.test": f"{REJECT}; sp=oops; rua=mailto:d@bank.test"},
        ("bank.test", "", []),
        "none",
        "no policy",
    ),
    (
        "OpenDMARC forgets aspf=s and adkim=s where the author is the organisation itself",
        {"bank.test": f"{REJECT}; aspf=s; adkim=s"},
        ("bank.test", "mail.bank.test", ["mail.bank.test"]),
        "reject",
        "pass",
    ),
    ("OpenDMARC takes words that begin right", {"bank.test": "v=DMARC1; p=rej"},
     ("bank.test", "", []), "no policy", "reject"),
    ("OpenDMARC takes the first of several records, the RFCs none",
     {"bank.test": [REJECT, NONE]}, ("bank.test", "", []), "no policy", "reject"),
)  # fmt: skip


class OpenDMARCTests(SynchronousTestCase):
    """Both go by what SPF and DKIM vouch for, and by records in the DNS."""

    def setUp(self) -> None:
        self.table: dict[str, Any] = {}
        self.theirs = OpenDMARC(self, answering(self, self.table), SUFFIXES)

    def both(self, found: Records, author: str, spf: str, dkim: Sequence[str]) -> tuple[str, str]:
        """Our word for a message, and theirs."""
        self.table.clear()
        for name, texts in found.items():
            listed = [texts] if isinstance(texts, str) else texts
            self.table[f"_dmarc.{name}"] = {"TXT": listed}
        result = result_of(evaluate(TreeWalk(zone(found)), author, Identifiers(spf, tuple(dkim))))
        ours = {Result.PASS: "pass", Result.NONE: "no policy"}.get(
            result.result, result.policy.value
        )
        return ours, self.theirs.judge(author, spf, dkim)

    @settings(max_examples=300, deadline=None)
    @given(messages())
    def test_same(self, message: tuple[Records, str, str, list[str]]) -> None:
        """They say the same of messages for which the RFCs do."""
        ours, theirs = self.both(*message)
        self.assertEqual(ours, theirs, message)

    def test_differences(self) -> None:
        """Each is there because RFC 9989 has it so, or is a fault of theirs."""
        for why, found, message, ours, theirs in DIFFERENCES:
            self.assertEqual(self.both(found, *message), (ours, theirs), why)
