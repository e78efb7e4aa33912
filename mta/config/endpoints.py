"""Server endpoints in the configuration: strings of Twisted, taken apart and checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address
from typing import NamedTuple

from mta.config.document import Value, listed, suggest
from mta.config.values import MAX_PORT, absolute, host_and_port

PROXIED = "haproxy:"  # before a tcp endpoint: clients come through a proxy that says who they are

_TCP_ENDPOINT = re.compile(r"(tcp6?):(?:port=)?(\d+)(.*)")
_INTERFACE = re.compile(r"(?<!\\):interface=((?:[^:\\]|\\.)*)")
_NUMBER = "[0-9]{1,5}"
_TCP = {"port": _NUMBER, "interface": "[^ ]+", "backlog": _NUMBER}
# What each kind knows, and what it may be.  The first one may stand without its name.
ARGUMENTS: Mapping[str, Mapping[str, str]] = {
    "tcp": _TCP,
    "tcp6": _TCP,
    "unix": {"address": ".+", "mode": "[0-7]{3,4}", "backlog": _NUMBER, "lockfile": "[01]"},
    "systemd": {"domain": "INET|INET6|UNIX", "index": _NUMBER, "name": ".+"},
}


def endpoint(value: Value) -> str:
    """A Twisted server endpoint string.  The path of a UNIX socket becomes absolute."""
    expected = f"a server endpoint: {listed(f'{kind}:' for kind in (*ARGUMENTS, 'haproxy:tcp'))}"
    text = value.text(expected)
    kind, *words = re.split(r"(?<!\\):", text.removeprefix(PROXIED))
    if kind not in ARGUMENTS or not words or not words[0]:
        raise value.wrong(f"found {text!r}, expected {expected}")
    arguments = _arguments(value, kind, words)
    if kind in ("tcp", "tcp6") and int(arguments.get("port", MAX_PORT + 1)) > MAX_PORT:
        raise value.wrong(f"{arguments.get('port', '')!r} is not a port, expected {kind}:PORT")
    if kind == "systemd" and ("index" in arguments) == ("name" in arguments):
        raise value.wrong("expected one of index= and name= of the socket that systemd passes")
    if kind == "unix":
        path = absolute(value, re.sub(r"\\(.)", r"\1", words[0].removeprefix("address=")))
        words[0] = re.sub(r"([\\:=])", r"\\\1", path)
    prefix = PROXIED if text.startswith(PROXIED) else ""
    return prefix + ":".join((kind, *words))


def _arguments(value: Value, kind: str, words: list[str]) -> Mapping[str, str]:
    """The arguments behind the kind, by name.  Raises ConfigurationError."""
    known = ARGUMENTS[kind]
    first, *_ = known
    found: dict[str, str] = {}
    for number, word in enumerate(words):
        name, equals, argument = word.partition("=")
        if not number and name not in known:
            name, argument = first, word
        elif not equals:
            raise value.wrong(f"found {word!r}, expected NAME=VALUE with {listed(known)}")
        if name not in known:
            raise value.wrong(f"unknown argument {name!r} of {kind}:, {suggest(name, known)}")
        if name in found:
            raise value.wrong(f"{name}= stands twice, expected it once")
        if name == "port" and not re.fullmatch(known[name], argument):
            raise value.wrong(f"{argument!r} is not a port, expected {kind}:PORT")
        if not re.fullmatch(known[name], argument):
            raise value.wrong(f"found {argument!r}, expected another value of {name}=")
        found[name] = argument
    return found


def filter_socket(value: Value) -> str:
    """The socket of a filter: ``inet:HOST:PORT`` or ``unix:PATH``, which becomes absolute."""
    expected = "inet:HOST:PORT or unix:PATH"
    text = value.text(expected)
    kind, _, place = text.partition(":")
    if kind == "unix" and place:
        return "unix:" + absolute(value, place)
    if kind == "inet" and host_and_port(place, 0)[1]:
        return text
    raise value.wrong(f"found {text!r}, expected {expected}")


class TCPAddress(NamedTuple):
    """The place of a TCP endpoint; `host` is empty for all interfaces."""

    host: str
    port: int
    is_ipv6: bool


def tcp_address(endpoint: str) -> TCPAddress | None:
    """The place of a TCP endpoint string; None for other kinds."""
    match = _TCP_ENDPOINT.match(endpoint)
    if match is None:
        return None
    interface = _INTERFACE.search(match[3])
    host = re.sub(r"\\(.)", r"\1", interface[1]) if interface else ""
    return TCPAddress(host, int(match[2]), match[1] == "tcp6" or ":" in host)


def is_on_this_host(endpoint: str) -> bool:
    """Return whether only programs of this host can reach an endpoint."""
    kind, *arguments = re.split(r"(?<!\\):", endpoint.removeprefix(PROXIED))
    if kind == "unix":
        return True
    interfaces = [
        argument.removeprefix("interface=").replace("\\", "")
        for argument in arguments
        if argument.startswith("interface=")
    ]
    try:
        return bool(interfaces) and ip_address(interfaces[-1]).is_loopback
    except ValueError:
        return False
