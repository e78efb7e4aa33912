"""The entries of `peers`: the hosts that we change roles with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mta.config import values
from mta.config.document import Fields, Value, list_of, listed, read_record
from mta.config.hops import smtp_host
from mta.mail import Security
from mta.peer_settings import Peer, Unknown, Verify

METHODS = ("atrn", "turn", "etrn")

# Keys for one kind of peer; for the other kind they can have these values only, the defaults.
DIALLED_ONLY = {"origin": "off", "links": 1}
DIAL_IN_ONLY = {"pass_through": False, "verify": Verify.LIST, "unknown": Unknown.ACCEPT}

WITHOUT_TLS = "without TLS another host could be the peer, expected no 'tls: off'"


def peer(name: str, value: Value) -> Peer:
    """The peer of one entry."""
    found = read_record(value, PEER)
    seal = found.pop("seal", {})
    if "connect" not in found:
        _check_dialling_in(name, value, found)
        return Peer(name, **found, seal=_seal(value, seal, "file"))
    for key in DIAL_IN_ONLY:
        if key in found and found[key] != DIAL_IN_ONLY[key]:
            raise value.wrong_key(key, "for peers that dial in alone, expected no 'connect'")
    if not found.get("domains"):
        raise value.wrong(f"nothing to ask the peer {name!r} for, expected 'domains'")
    security = found.get("tls", Security.VERIFY)
    if found.get("origin") == "trust" and security is not Security.VERIFY:
        raise value.wrong_key("origin", WITHOUT_TLS)
    if found.get("links", 1) > 1 and found.get("method") == "etrn":
        raise value.wrong_key("links", "with ETRN no link stands, expected no 'method: etrn'")
    if seal and security is not Security.VERIFY:
        raise value.wrong_key("seal", WITHOUT_TLS)
    connect = replace(found["connect"], security=security)
    return Peer(name, **{**found, "seal": _seal(value, seal, "key"), "connect": connect})


def _check_dialling_in(name: str, value: Value, found: Mapping[str, Any]) -> None:
    """Require what a peer that dials in needs, and nothing else."""
    if not ("user" in found or "certificate" in found):
        raise value.wrong(
            f"the peer {name!r} can't prove who it is, expected 'user' or 'certificate'"
        )
    for key in DIALLED_ONLY:
        if key in found and found[key] != DIALLED_ONLY[key]:
            raise value.wrong_key(key, "for peers that we dial alone, expected 'connect' as well")
    is_asked = found.get("verify") is Verify.LIVE
    for key, needs_link in (("pass_through", found.get("pass_through")), ("verify", is_asked)):
        if needs_link and not found.get("linger"):
            raise value.wrong_key(key, "without it no link stands, expected 'linger' as well")
    if found.get("unknown") is Unknown.DEFER and not is_asked:
        raise value.wrong_key(
            "unknown", "for peers that are asked alone, expected 'verify: live' as well"
        )


def _seal(value: Value, seal: Mapping[str, str], wanted: str) -> str:
    """The file of keys for sealed mail, of the right kind."""
    if seal and seal.keys() != {wanted}:
        raise value.wrong_key(
            "seal",
            "expected 'key' alone, the private key, for a peer that we dial"
            if wanted == "key"
            else "expected 'file' alone, the public key, for a peer that dials in",
        )
    return seal.get(wanted, "")


def _methods(value: Value) -> frozenset[str]:
    return frozenset(list_of(values.word(*METHODS), f"a list of {listed(METHODS)}")(value))


def _seal_files(value: Value) -> Mapping[str, str]:
    return read_record(value, SEAL)


SEAL: Fields = {"file": values.path, "key": values.path}
PEER: Fields = {
    "user": values.user,
    "certificate": values.fingerprint,
    "domains": list_of(values.domain_or_subdomains, "a list of domains"),
    "methods": _methods,
    "hold_for": values.positive_duration,
    "warn_after": values.duration,
    "linger": values.duration,
    "keepalive": values.positive_duration,
    "etrn": smtp_host,
    "connect": smtp_host,
    "tls": values.one_of({each.value: each for each in (Security.VERIFY, Security.OFF)}),
    "pin": values.fingerprint,
    "method": values.word(*METHODS),
    "every": values.duration,
    "send": values.boolean,
    "pass_through": values.boolean,
    "seal": _seal_files,
    "origin": values.one_of({"off": "off", "trust": "trust"}, {"false": "off"}),
    "links": values.integer(1, 2),
    "verify": values.one_of({each.value: each for each in Verify}, {"false": "off"}),
    "unknown": values.member_of(Unknown),
}
