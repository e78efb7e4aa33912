"""The test suite of RFC 7208, all of its cases.

``rfc7208-tests.yml`` is that of openspf.org, unchanged, under the licence beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from twisted.trial.unittest import SynchronousTestCase

from mta.authentication.spf import Limits, SPFResult, check_host
from mta.mail import NULL_PATH, Mailbox
from tests.authentication.spf_zones import Zone, ZoneResolver

SUITE = Path(__file__).with_name("rfc7208-tests.yml")
# The suite names the explanation that a host has of its own so; ours is empty.
OUR_EXPLANATION = "DEFAULT"


def cases() -> Iterator[tuple[str, Zone, dict[str, Any]]]:
    """The name, the zone, and the description of each case."""
    for scenario in yaml.safe_load_all(SUITE.read_text("utf-8")):
        for name, case in scenario["tests"].items():
            yield name, scenario["zonedata"], case


def path(text: str) -> Mailbox:
    """The reverse-path of a case."""
    local_part, _, domain = text.rpartition("@")
    return Mailbox(local_part, domain) if text else NULL_PATH


class SuiteTests(SynchronousTestCase):
    """One test for each case; see below."""

    def check(self, zone: Zone, case: dict[str, Any]) -> SPFResult:
        """Check the client of a case."""
        return self.successResultOf(
            check_host(
                ZoneResolver(zone),
                address=case["host"],
                mail_from=path(case["mailfrom"]),
                hello=case["helo"],
                receiver="",
                limits=Limits(lambda: 1_800_000_000),
            )
        )

    def test_is_complete(self) -> None:
        """No case was left out."""
        self.assertEqual(len(list(cases())), 203)


def _test(zone: Zone, case: dict[str, Any]) -> Any:
    def test(self: SuiteTests) -> None:
        found = self.check(zone, case)
        # Of several that it allows, the first is the one that it prefers.
        preferred = case["result"][0] if isinstance(case["result"], list) else case["result"]
        self.assertEqual(found.result.value, preferred, found)
        if "explanation" in case:
            expected = case["explanation"].replace(OUR_EXPLANATION, "")
            self.assertEqual(found.explanation, expected)

    return test


for _name, _zone, _case in cases():
    setattr(SuiteTests, "test_" + _name.replace("-", "_"), _test(_zone, _case))
