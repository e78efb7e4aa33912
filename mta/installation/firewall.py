"""Firewalls of this host that drop connections to our ports.

Only what is certain is said: rules that are not understood may accept a connection.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

TIMEOUT = 10.0  # seconds for a program that shows its rules
SYSTEM_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"

Rule = Mapping[str, Any]


def closed_ports(ports: Sequence[int]) -> tuple[Sequence[int], str]:
    """The ports that a firewall of this host drops, and its name."""
    ufw = _output("ufw", "status", "verbose")
    if re.search(r"^Status: active", ufw, re.MULTILINE):
        return [port for port in ports if ufw_drops(ufw, port)], "ufw"
    ruleset = _output("nft", "--json", "list", "ruleset")
    if not ruleset:
        return [], ""
    rules = Ruleset(ruleset)
    return [port for port in ports if rules.drops(port)], "nftables"


def ufw_drops(status: str, port: int) -> bool:
    """Tell whether ufw's status says that a port is closed."""
    if not re.search(r"^Default: (?:deny|reject) \(incoming\)", status, re.MULTILINE):
        return False
    for line in status.splitlines():
        place, _, action = line.partition("  ")
        if re.match(r"ALLOW|LIMIT", action.strip()) and _is_among(place, port):
            return False
    return True


def _is_among(place: str, port: int) -> bool:
    """Tell whether the place of a rule may mean a port."""
    numbers, _, protocol = place.partition(" ")[0].partition("/")
    if protocol == "udp":
        return False
    for part in numbers.split(","):
        low, _, high = part.partition(":")
        if not low.isdigit():
            return True  # an address, or anywhere
        if int(low) <= port <= int(high or low):
            return True
    return False


class Ruleset:
    """The rules of nftables, as ``nft --json`` prints them."""

    def __init__(self, text: str) -> None:
        self._bases: list[Mapping[str, Any]] = []
        self._rules: dict[tuple[str, str, str], list[Rule]] = {}
        for item in json.loads(text).get("nftables", ()):
            if (chain := item.get("chain")) and chain.get("hook") == "input":
                self._bases.append(chain)
            elif rule := item.get("rule"):
                place = rule["family"], rule["table"], rule["chain"]
                self._rules.setdefault(place, []).append(rule)

    def drops(self, port: int) -> bool:
        """Tell whether connections to a port are dropped for certain."""
        for chain in self._bases:
            place = chain["family"], chain["table"], chain["name"]
            accepts = self._accepts(place, port, frozenset())
            if accepts is None:
                accepts = chain.get("policy") != "drop"
            if not accepts and chain["family"] in ("inet", "ip"):
                return True
        return False

    def _accepts(
        self, place: tuple[str, str, str], port: int, above: frozenset[tuple[str, str, str]]
    ) -> bool | None:
        """Tell whether a chain accepts a connection; None: it leaves it open."""
        for rule in self._rules.get(place, ()) if place not in above else ():
            matches = [each["match"] for each in rule["expr"] if "match" in each]
            known = all(set(each) & _KNOWN for each in rule["expr"])
            if not all(_may_match(match, port) for match in matches):
                continue
            verdicts = {name: each[name] for each in rule["expr"] for name in each}
            if "accept" in verdicts:
                return True
            jump = verdicts.get("jump") or verdicts.get("goto")
            if jump:
                inner = self._accepts((*place[:2], jump["target"]), port, above | {place})
                if inner or (inner is False and not matches):
                    return inner
            elif verdicts.keys() & {"vmap", "queue"} or not known:
                return True  # or not: nothing is certain
            elif verdicts.keys() & {"drop", "reject"} and all(map(_is_port, matches)):
                return False
        return None


_KNOWN = {"match", "accept", "drop", "reject", "jump", "goto", "return", "counter", "log", "limit"}


def _may_match(match: Mapping[str, Any], port: int) -> bool:
    """Tell whether a new connection from outside to a port may match."""
    left, right = match["left"], match["right"]
    is_equal = match.get("op", "==") in ("==", "in")
    if _is_port(match):
        protocol = left["payload"]["protocol"]
        return protocol != "udp" and _holds(right, port) == is_equal
    wanted = right if isinstance(right, list) else [right]
    if left.get("ct", {}).get("key") == "state":
        return ("new" in wanted) == is_equal
    if left.get("meta", {}).get("key") in ("iif", "iifname"):
        return (wanted != ["lo"]) == is_equal
    if left.get("meta", {}).get("key") == "l4proto" or left.get("payload", {}).get("field") in (
        "protocol",
        "nexthdr",
    ):
        members = right.get("set", ()) if isinstance(right, dict) else wanted
        return bool({"tcp", 6} & set(map(_plain, members))) == is_equal
    return left.get("payload", {}).get("protocol") not in ("icmp", "icmpv6", "udp", "arp")


def _plain(value: Any) -> Any:
    return value if isinstance(value, (str, int)) else None


def _is_port(match: Mapping[str, Any]) -> bool:
    return bool(match["left"].get("payload", {}).get("field") == "dport")


def _holds(right: Any, port: int) -> bool:
    """Tell whether a number, range or set may have a port."""
    if isinstance(right, int):
        return right == port
    if isinstance(right, dict) and "range" in right:
        low, high = right["range"]
        return bool(low <= port <= high)
    if isinstance(right, dict) and "set" in right:
        return any(_holds(each, port) for each in right["set"])
    return True


def _output(*command: str) -> str:
    """The output of a program of the system; empty: none."""
    path = shutil.which(command[0], path=SYSTEM_PATH)
    if path is None:
        return ""
    try:
        ended = subprocess.run(  # noqa: S603 (a program of the system)
            [path, *command[1:]],
            env={"LC_ALL": "C", "PATH": SYSTEM_PATH},
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return ended.stdout if ended.returncode == 0 else ""
