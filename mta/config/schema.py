"""The keys of the configuration file, and the settings that they make.

Each section is a table of key -> reader; `SECTIONS` has them all.  Keys that aren't given keep
the defaults of `mta.settings`, but for the few that depend on something else: those are here.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mta.config import values
from mta.config.client_lists import ALLOW_LIST, BLOCK_LIST, GREYLIST, allow_list, block_list
from mta.config.document import (
    Fields,
    Findings,
    Reader,
    Value,
    list_of,
    listed,
    read_fields,
    read_record,
    table_of,
)
from mta.config.endpoints import endpoint, filter_socket, is_on_this_host
from mta.config.hops import HOP, next_hop
from mta.config.inspection import AUTHENTICATION
from mta.config.peers import PEER, SEAL, peer
from mta.config.references import (
    check_alias_domains,
    check_aliases,
    check_holds,
    check_peers,
    check_routes,
)
from mta.config.values import SECRET
from mta.inspection_settings import Greylist
from mta.mail import Agent, Hop, Mailbox
from mta.settings import (
    POSTGRES,
    Authentication,
    CertificatePair,
    DKIMKey,
    Domain,
    Forward,
    KeyState,
    Limits,
    Listener,
    ListenerTLS,
    Log,
    Milter,
    MilterTimeouts,
    OnFailure,
    Peer,
    Queue,
    Relay,
    Service,
    Settings,
    Source,
    Submission,
    TLSSettings,
)

DEFAULT_DELIVERY = Hop(Agent.MAILDIR, "/var/mail/{domain}/{local}")
DEFAULT_USERS = "users.yaml"
DEFAULT_TLS = {
    Service.SMTP: ListenerTLS.OPPORTUNISTIC,
    Service.SUBMISSION: ListenerTLS.REQUIRED,
    Service.LMTP: ListenerTLS.OFF,
    Service.ODMR: ListenerTLS.OPPORTUNISTIC,
}
DEFAULT_LISTENERS = (
    Listener("tcp:25", Service.SMTP, ListenerTLS.OPPORTUNISTIC),
    Listener("tcp:587", Service.SUBMISSION, ListenerTLS.REQUIRED),
    Listener("tcp:465", Service.SUBMISSION, ListenerTLS.IMPLICIT),
)
ODMR_LISTENER = Listener("tcp:366", Service.ODMR, ListenerTLS.OPPORTUNISTIC)

MAX_COUNT = 1_000_000  # of anything that is counted: more is a slip
DESTINATIONS = ("domains", "routes", "peers")  # one of them is needed


def read_settings(root: Value) -> Settings:
    """Return the settings of a whole file.  Raises ConfigurationError with all problems in it."""
    given = {str(key.node.value) for key, _ in root.members(f"a mapping with {listed(FILE)}")}
    findings = Findings()
    found = read_fields(root, FILE, findings)
    with findings.collect():
        if "hostname" not in given:
            raise root.wrong("missing key 'hostname', expected the name of this host")
    with findings.collect():
        if given.isdisjoint(DESTINATIONS):
            raise root.wrong(f"nowhere for mail to go, expected one of {listed(DESTINATIONS)}")
    # A section with problems would let every reference to it look wrong as well.
    if found.keys() >= given & set(DESTINATIONS):
        with findings.collect():
            names = (*DESTINATIONS, "senders")
            _check_references(root, **{name: found.get(name, {}) for name in names})
    findings.raise_if_any()
    return _settings(root, found)


def _check_references(
    root: Value,
    domains: Mapping[str, Domain],
    routes: Mapping[str, Hop],
    peers: Mapping[str, Peer],
    senders: Mapping[str, Hop],
) -> None:
    check_alias_domains(root, domains)
    findings = Findings()
    with findings.collect():
        check_peers(root, peers)
    with findings.collect():
        check_holds(root, domains, routes, senders, peers)
    with findings.collect():
        check_aliases(root, domains)
    with findings.collect():
        check_routes(root, domains, routes)
    findings.raise_if_any()


def _settings(root: Value, found: dict[str, Any]) -> Settings:
    routes = dict(found.pop("routes", {}))
    listeners: tuple[Listener, ...] = DEFAULT_LISTENERS
    if any(peer.connect is None for peer in found.get("peers", {}).values()):
        listeners += (ODMR_LISTENER,)
    defaults = {"users": values.absolute(root, DEFAULT_USERS), "listen": listeners}
    default_route = routes.pop("default", Hop(Agent.MX))
    _place_spool(root, found)
    return Settings(**{**defaults, **found}, routes=routes, default_route=default_route)


_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9.-]")


def _place_spool(root: Value, found: dict[str, Any]) -> None:
    """Tell a spool in a folder from one in a database."""
    folder = found.pop("spool_folder", None)
    if found.get("spool", "").startswith(POSTGRES):
        found["database"] = found.pop("spool")
        found |= {"spool": folder} if folder else {}
        found.setdefault("node", _NOT_IN_NAMES.sub("-", socket.gethostname()))
        return
    found.pop("node", None)
    if folder:
        raise root.wrong_key(
            "spool_folder", "the spool is a folder itself, expected no 'spool_folder'"
        )


def _spool(value: Value) -> str:
    expected = "a folder, or postgresql://USER@HOST/DATABASE"
    if value.text(expected).startswith(POSTGRES):
        return value.text(expected)
    return values.path(value)


def _users(value: Value) -> str:
    text = value.text("a file or dovecot:SOCKET")
    if text.startswith("dovecot:") and text != "dovecot:":
        return "dovecot:" + values.absolute(value, text.removeprefix("dovecot:"))
    return values.path(value)


def _listener(value: Value) -> Listener:
    found = read_record(value, LISTENER, required=["endpoint"])
    service = found.get("service", Service.SMTP)
    tls = DEFAULT_TLS[service]
    if found.get("allow_cleartext_auth"):
        place, _ = value.member("allow_cleartext_auth")
        if not is_on_this_host(found["endpoint"]):
            raise place.wrong(
                "passwords in the clear would cross a network, expected `unix:` or an `interface` "
                "such as 127.0.0.1 in the endpoint"
            )
        if found.get("tls") in (ListenerTLS.REQUIRED, ListenerTLS.IMPLICIT):
            raise place.wrong("nothing comes in the clear where TLS is needed, expected tls: off")
        tls = ListenerTLS.OFF
    return Listener(**{"service": service, "tls": tls, **found})


def _tls(value: Value) -> TLSSettings:
    found = read_record(value, TLS)
    certificate, key = found.pop("certificate", None), found.pop("key", None)
    if bool(certificate) != bool(key):
        present, absent = ("certificate", "key") if certificate else ("key", "certificate")
        raise value.wrong_key(present, f"{present!r} without {absent!r}, expected both or none")
    return TLSSettings(CertificatePair(certificate, key) if key else None, **found)


def _domain(name: str, value: Value) -> Domain:
    found = read_record(value, DOMAIN)
    if "alias_of" in found and found.keys() - {"alias_of", "dkim"}:
        raise value.wrong(
            "'alias_of' makes a domain another name and no more, expected nothing beside it but"
            " 'dkim'"
        )
    deliver = found.setdefault("deliver", DEFAULT_DELIVERY)
    found["mailboxes_elsewhere"] = deliver.agent is Agent.HOLD and "mailboxes" not in found
    if deliver.agent is not Agent.MAILDIR:
        found.setdefault("mailboxes", None)  # the host behind it knows them
    found["aliases"] = {
        alias: tuple(_within(name, target) for target in targets)
        for alias, targets in found.get("aliases", {}).items()
    }
    found["forward"] = {
        mailbox: replace(forward, to=tuple(_within(name, target) for target in forward.to))
        for mailbox, forward in found.get("forward", {}).items()
    }
    if "catch_all" in found:
        found["catch_all"] = _within(name, found["catch_all"])
    return Domain(name, **found)


def _dkim(value: Value) -> tuple[DKIMKey, ...]:
    keys = list_of(_dkim_key, "a list of mappings with selector and key")(value)
    for number, key in enumerate(keys):
        if key.selector in (other.selector for other in keys[:number]):
            _, item = value.items("a list")[number].member("selector")
            raise item.wrong(f"the selector {key.selector!r} again, expected one for each key")
    return keys


def _dkim_key(value: Value) -> DKIMKey:
    found = read_record(value, DKIM, required=["selector", "key"])
    # A key that can't be read keeps no server from its start: mail that needs it waits.
    return DKIMKey(found["selector"], Path(found["key"]), found.get("state", KeyState.ACTIVE))


def _within(domain: str, address: Mailbox) -> Mailbox:
    """An address, in this domain where it names none."""
    return address if address.domain else replace(address, domain=domain)


def _mailboxes(value: Value) -> frozenset[str] | None:
    expected = "a list of mailbox names, or any"
    if not value.is_list and value.text(expected) == "any":
        return None
    return frozenset(list_of(values.local_part, expected)(value))


def _alias(_: str, value: Value) -> tuple[Mailbox, ...]:
    return values.mailboxes(value)


def _forward(_: str, value: Value) -> Forward:
    if not value.is_mapping:
        return Forward(values.mailboxes(value))
    return Forward(**read_record(value, FORWARD, required=["to"]))


def _route(_: str, value: Value) -> Hop:
    return next_hop(value)


def _milters(value: Value) -> tuple[Milter, ...]:
    milters = list_of(_milter, "a list of mappings with socket")(value)
    for number, milter in enumerate(milters):
        if milter.name in (other.name for other in milters[:number]):
            raise value.items("a list")[number].wrong(
                f"the filter {milter.name!r} again, expected a name of its own"
            )
    return milters


def _milter(value: Value) -> Milter:
    found = read_record(value, MILTER, required=["socket"])
    return Milter(**{"name": found["socket"], **found})


def _sources(value: Value) -> frozenset[Source]:
    expected = f"a list of {listed(each.value for each in Source)}"
    return frozenset(list_of(values.member_of(Source), expected)(value))


def _retry(value: Value) -> tuple[float, ...]:
    steps = list_of(values.positive_duration, "a list of durations")(value)
    if not steps:
        raise value.wrong("found an empty list, expected durations such as [5m, 1h]")
    return steps


def _record(kind: Any, fields: Fields) -> Reader[Any]:
    """The reader of a section whose keys are the fields of `kind`."""
    return lambda value: kind(**read_record(value, fields))


LISTENER: Fields = {
    "endpoint": endpoint,
    "service": values.member_of(Service),
    "tls": values.member_of(ListenerTLS),
    "allow_cleartext_auth": values.boolean,
}
TLS: Fields = {
    "certificate": values.readable_file,
    "key": values.readable_file,
    "certificates": list_of(values.certificate_pair, "a list of certificate and key"),
    "ca": values.readable_file,
    "client_ca": values.readable_file,
}
DOMAIN: Fields = {
    "deliver": next_hop,
    "mailboxes": _mailboxes,
    "aliases": table_of(values.local_part, _alias, "a mapping of names to addresses"),
    "forward": table_of(values.local_part, _forward, "a mapping of mailboxes to addresses"),
    "catch_all": values.mailbox,
    "subaddress": values.subaddress,
    "quota": values.size,
    "alias_of": values.domain,
    "dkim": _dkim,
}
DKIM: Fields = {
    "selector": values.selector,
    "key": values.path,
    "state": values.member_of(KeyState),
}
FORWARD: Fields = {"to": values.mailboxes, "keep": values.boolean}
RELAY: Fields = {
    "networks": list_of(values.network, "a list of IP networks"),
    "xclient": list_of(values.network, "a list of IP networks"),
    "xforward": list_of(values.network, "a list of IP networks"),
    "private_exchangers": values.boolean,
}
SUBMISSION: Fields = {
    "hide_client": values.boolean,
    "expn": values.boolean,
    "channel_binding": values.boolean,
    "scram": values.on_off,
}
QUEUE: Fields = {
    "retry": _retry,
    "warn_after": values.duration,
    "give_up_after": values.positive_duration,
    "concurrency": values.integer(1, MAX_COUNT),
    "per_destination": values.integer(1, MAX_COUNT),
    "connection_messages": values.integer(1, MAX_COUNT),
    "connection_age": values.positive_duration,
    "connection_idle": values.duration,
    "workers": values.integer(1, 1024),
}
LIMITS: Fields = {
    "message_size": values.size,
    "recipients": values.integer(1, MAX_COUNT),
    "connections": values.integer(1, MAX_COUNT),
    "connections_per_host": values.integer(1, MAX_COUNT),
    "errors": values.integer(1, MAX_COUNT),
    "timeout": values.positive_duration,
    "greet_delay": values.duration,
    "auth_failures": values.integer(1, MAX_COUNT),
    "messages_per_minute": values.integer(0, MAX_COUNT),
    "recipients_per_hour": values.integer(0, MAX_COUNT),
    "recipients_per_day": values.integer(0, MAX_COUNT),
    "failures_per_hour": values.integer(0, MAX_COUNT),
    "free_space": values.size,
}
MILTER_TIMEOUTS: Fields = {
    "connect": values.positive_duration,
    "command": values.positive_duration,
    "content": values.positive_duration,
}
MILTER: Fields = {
    "socket": filter_socket,
    "name": values.filter_name,
    "services": _sources,
    "on_failure": values.member_of(OnFailure),
    "timeouts": _record(MilterTimeouts, MILTER_TIMEOUTS),
}
LOG: Fields = {
    "format": values.word("text", "json"),
    "level": values.word("debug", "info", "warn", "error"),
    "file": values.path,
}
FILE: Fields = {
    "hostname": values.domain,
    "spool": _spool,
    "spool_folder": values.path,
    "node": values.domain,
    "run_as": values.user,
    "listen": list_of(_listener, "a list of listeners"),
    "tls": _tls,
    "resolver": list_of(values.name_server, "a list of name servers"),
    "own_addresses": list_of(values.address, "a list of IP addresses"),
    "domains": table_of(values.domain, _domain, "a mapping of domains"),
    "routes": table_of(values.domain_or_subdomains, _route, "a mapping of domains to next hops"),
    "senders": table_of(values.sender, _route, "a mapping of senders to next hops"),
    "relay": _record(Relay, RELAY),
    "signature_lifetime": values.positive_duration,
    "authentication": _record(Authentication, AUTHENTICATION),
    "submission": _record(Submission, SUBMISSION),
    "users": _users,
    "peers": table_of(values.peer_name, peer, "a mapping of peers"),
    "queue": _record(Queue, QUEUE),
    "limits": _record(Limits, LIMITS),
    "block_lists": list_of(block_list, "a list of mappings with zone"),
    "allow_lists": list_of(allow_list, "a list of mappings with zone"),
    "greylist": _record(Greylist, GREYLIST),
    "log": _record(Log, LOG),
    "milters": _milters,
    "metrics": endpoint,
}

# Every key of the file, by where it stands; NAME is free, [] a list.
SECTIONS: Mapping[str, Fields] = {
    "": FILE,
    "listen[].": LISTENER,
    "tls.": TLS,
    "tls.certificates[].": values.PAIR,
    "domains.NAME.": DOMAIN,
    "domains.NAME.dkim[].": DKIM,
    "domains.NAME.forward.NAME.": FORWARD,
    "relay.": RELAY,
    "authentication.": AUTHENTICATION,
    "submission.": SUBMISSION,
    "peers.NAME.": PEER,
    "peers.NAME.seal.": SEAL,
    "queue.": QUEUE,
    "limits.": LIMITS,
    "milters[].": MILTER,
    "milters[].timeouts.": MILTER_TIMEOUTS,
    "block_lists[].": BLOCK_LIST,
    "allow_lists[].": ALLOW_LIST,
    "greylist.": GREYLIST,
    "log.": LOG,
    "HOP.": HOP,
    "SECRET.": SECRET,
}
