"""What a person should know before the server runs, or while it does.

One list for the start, a reload and ``mta check``: what the server opens is tried here in the same
way, with the rights of whoever calls it, and nothing is made or changed.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mta.config import ConfigurationError, Problem
from mta.config.places import Places
from mta.mail import Agent, Hop, Mailbox
from mta.metrics import MetricsFault, require_prometheus
from mta.privileges import PrivilegeFault, account_named, require_no_root
from mta.routing import Router
from mta.settings import CertificatePair, Domain, ListenerTLS, Settings
from mta.spool import inspection
from mta.tls import ClientTLS, ServerTLS, TLSFault
from mta.tls.context import pairs_of
from mta.tls.files import CertifiedKey, certificates_in
from mta.tls.selfsigned import FILE as SELF_SIGNED
from mta.users import UserFault, UserFile

RENEWAL_DUE = timedelta(days=14)  # certificates are renewed a month before their end, as a rule
DOVECOT = "dovecot:"
MAX_SOCKET_PATH = 107  # octets; the system's structure has 108, with a zero at the end
FOR_OTHERS = 0o007  # rights of those who are neither owner nor group


@dataclass(frozen=True, slots=True)
class Finding:
    """Something found, and the keys that lead to the setting; fatal: nothing starts with it."""

    keys: tuple[str | int, ...]
    text: str
    is_fatal: bool = False


Check = Callable[[Settings], Iterator[Finding]]


def findings(settings: Settings) -> list[Finding]:
    """All that can be found by looking.  Blocks."""
    return [finding for check in _CHECKS for finding in check(settings)]


def placed(path: Path, found: Iterable[Finding]) -> list[str]:
    """A line for each finding, with its place in the file where that can still be read."""
    try:
        places = Places(path)
    except ConfigurationError:
        return [finding.text for finding in found]
    return [str(places.problem(finding.keys, finding.text)) for finding in found]


def warnings(path: Path, found: Iterable[Finding]) -> list[str]:
    """A line for each finding that is not fatal, and for each secret that is open to all."""
    lines = placed(path, [finding for finding in found if not finding.is_fatal])
    with suppress(ConfigurationError):
        lines += map(str, open_secrets(path, Places(path)))
    return lines


def _hostname(settings: Settings) -> Iterator[Finding]:
    if "." not in settings.hostname:
        yield Finding(
            ("hostname",),
            f"{settings.hostname!r} is not fully qualified: other servers refuse such a name,"
            " expected one such as mail.example.com",
        )


def _run_as(settings: Settings) -> Iterator[Finding]:
    if settings.run_as:
        try:
            account_named(settings.run_as)
        except PrivilegeFault as fault:
            yield Finding(("run_as",), str(fault), True)
            return
    try:
        require_no_root(settings, has_uid=False)
    except PrivilegeFault as fault:
        yield Finding(("run_as",), f"started by root, it ends: {fault}")


# --- TLS


def _certificates(settings: Settings) -> Iterator[Finding]:
    now = datetime.now(UTC)
    loaded = []
    for number, pair in enumerate(pairs_of(settings.tls)):
        nth = number - bool(settings.tls.pair)
        keys = ("tls", "certificate") if nth < 0 else ("tls", "certificates", nth, "certificate")
        try:
            certified = CertifiedKey.load(pair)
        except TLSFault as fault:
            yield Finding(keys, str(fault), True)
            continue
        loaded.append(certified)
        for shortcoming in certified.shortcomings(now, RENEWAL_DUE):
            yield Finding(keys, f"{pair.certificate}: {shortcoming}")
        yield from _private(pair.key, keys, "a private key")
    if len(loaded) == len(pairs_of(settings.tls)):
        yield from _contexts(settings)
    if loaded and not any(each.is_for(settings.hostname) for each in loaded):
        names = ", ".join(name for each in loaded for name in each.names()) or "no host at all"
        yield Finding(
            ("tls",), f"no certificate is for {settings.hostname} (`hostname`), but for {names}"
        )


def _contexts(settings: Settings) -> Iterator[Finding]:
    """What is wrong with the authorities, or with keys that OpenSSL takes for too weak."""
    try:
        if pairs_of(settings.tls):
            ServerTLS(settings.tls, Path(settings.spool), settings.hostname)
        ClientTLS(settings.tls)
    except TLSFault as fault:
        yield Finding(("tls",), str(fault), True)


def _self_signed(settings: Settings) -> Iterator[Finding]:
    if pairs_of(settings.tls):
        return
    path = Path(settings.spool) / SELF_SIGNED
    if any(listener.tls is not ListenerTLS.OFF for listener in settings.listen):
        yield Finding(
            ("tls",),
            f"no tls.certificate is configured: using self-signed {path},"
            " which mail programs do not trust",
        )
    try:
        certified = CertifiedKey.load(CertificatePair(path, path)) if _is_there(path) else None
        if settings.tls.client_ca is not None:
            certificates_in(settings.tls.client_ca)
    except TLSFault as fault:
        yield Finding(("tls",), str(fault), True)
        return
    if certified is not None and not certified.is_for(settings.hostname):
        names = ", ".join(certified.names())
        yield Finding(
            ("hostname",),
            f"{path} is for {names}, and not for {settings.hostname}: remove it, and another is"
            " made at the next start, with another pin",
        )


# --- users and peers


def _users(settings: Settings) -> Iterator[Finding]:
    if settings.users.startswith(DOVECOT):
        yield from _socket(settings.users.removeprefix(DOVECOT), ("users",))
        return
    if not settings.users:
        return
    path = Path(settings.users)
    try:
        known = UserFile(path).load().users
    except UserFault as fault:
        yield Finding(("users",), str(fault), True)
        return
    yield from _private(path, ("users",), "password hashes")
    for name, peer in settings.peers.items():
        if peer.user and peer.user.lower() not in known:
            yield Finding(
                ("peers", name, "user"),
                f"no user is called {peer.user!r}, so that this peer can't log in:"
                f" mta user add {peer.user}",
            )


# --- where mail goes


def _postmasters(settings: Settings) -> Iterator[Finding]:
    router = Router(
        settings.hostname,
        settings.domains,
        settings.routes,
        settings.default_route,
        settings.senders,
    )
    for name, domain in settings.domains.items():
        steps = router.explain(Mailbox("postmaster", name))
        if domain.alias_of or not steps or steps[0].why not in ("postmaster", "refused"):
            continue
        reads = ", ".join(str(step.final) for step in steps if step.hop) or "nobody"
        yield Finding(
            ("domains", name),
            f"no postmaster (RFC 5321 section 4.5.1): {reads} gets that mail;"
            " add an alias or a mailbox `postmaster`",
        )


def _hops(settings: Settings) -> Iterator[Finding]:
    for name, domain in settings.domains.items():
        if not domain.alias_of:
            yield from _hop(domain.deliver, ("domains", name, "deliver"), domain)
    for name, hop in settings.routes.items():
        yield from _hop(hop, ("routes", name))
    yield from _hop(settings.default_route, ("routes", "default"))
    for name, hop in settings.senders.items():
        yield from _hop(hop, ("senders", name))


def _hop(hop: Hop, keys: tuple[str | int, ...], domain: Domain | None = None) -> Iterator[Finding]:
    if hop.agent is Agent.LMTP and hop.next_hop.startswith("unix:"):
        yield from _socket(hop.next_hop.removeprefix("unix:"), keys)
    elif hop.agent is Agent.MAILDIR:
        path = hop.next_hop.replace("{domain}", domain.name) if domain else hop.next_hop
        fixed, is_template, _ = path.partition("{")
        folder = Path(fixed.rpartition("/")[0] or "/") if is_template else Path(fixed)
        if trouble := _unwritable(folder):
            yield Finding(keys, f"mail can't be delivered there: {trouble}; give it to the server")
    elif hop.agent is Agent.PIPE:
        program = shlex.split(hop.next_hop)[0]
        if "{" not in program and shutil.which(program) is None:
            yield Finding(keys, f"{program}: no such program, or none that this user may run")


# --- files, folders, sockets, packages


def _spool(settings: Settings) -> Iterator[Finding]:
    path = Path(settings.spool)
    trouble = _unwritable(path) or inspection.problem_of(path)
    if not trouble:
        return
    if settings.run_as and not _is_there(path):
        yield Finding(
            ("spool",), f"{path} is not there, and only root can make it, at the server's start"
        )
    else:
        yield Finding(("spool",), f"cannot use the spool {path}: {trouble}", True)


def _log(settings: Settings) -> Iterator[Finding]:
    if not settings.log.file:
        return
    path = Path(settings.log.file)
    trouble = ""
    if not path.parent.is_dir():
        trouble = f"{path.parent}: there is no such folder"
    elif path.is_dir():
        trouble = f"{path}: Is a directory"
    elif not path.exists():
        trouble = _unwritable(path.parent)
    elif not os.access(path, os.W_OK):
        trouble = f"{path}: Permission denied"
    if trouble:
        yield Finding(("log", "file"), f"cannot write the log: {trouble}", True)


def _sockets(settings: Settings) -> Iterator[Finding]:
    for keys, endpoint in endpoints_of(settings):
        path = socket_path(endpoint)
        if path and (reason := _why_no_socket(path)):
            yield Finding(keys, f"cannot listen on {endpoint}: {reason}", True)


def endpoints_of(settings: Settings) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Everything that is listened on, with the keys that say so."""
    for number, listener in enumerate(settings.listen):
        yield ("listen", number, "endpoint"), listener.endpoint
    if settings.metrics:
        yield ("metrics",), settings.metrics


def socket_path(endpoint: str) -> Path | None:
    """The file of a UNIX socket that is listened on."""
    kind, _, rest = endpoint.partition(":")
    if kind != "unix":
        return None
    return Path(re.sub(r"\\(.)", r"\1", re.split(r"(?<!\\):", rest)[0]))


def _why_no_socket(path: Path) -> str:
    """Why there can't be a socket; empty where there can, as far as we may know."""
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        return f"a socket's path has {MAX_SOCKET_PATH} octets at most"
    with suppress(OSError):
        if not path.parent.is_dir():
            return f"{path.parent}: there is no such folder"
        if path.exists() and not path.is_socket():
            return f"{path}: is there, and is no socket"
    return ""


def _metrics(settings: Settings) -> Iterator[Finding]:
    if settings.metrics:
        try:
            require_prometheus()
        except MetricsFault as fault:
            yield Finding(("metrics",), str(fault), True)


def _socket(path: str, keys: tuple[str | int, ...]) -> Iterator[Finding]:
    if not Path(path).is_socket():
        yield Finding(keys, f"{path}: there is no such socket now")
    elif not os.access(path, os.W_OK):
        yield Finding(keys, f"{path}: Permission denied: nobody can be asked there")


def _is_there(path: Path) -> bool:
    """Whether there is such a file, as far as we may know."""
    with suppress(OSError):
        return path.exists()
    return False


def _private(path: Path, keys: tuple[str | int, ...], what: str) -> Iterator[Finding]:
    try:
        mode = path.stat().st_mode
    except OSError:
        return  # which is told elsewhere, where it matters
    if mode & FOR_OTHERS:
        yield Finding(
            keys, f"{path}: has {what}, and is open to all users of this host: chmod o= {path}"
        )


def _unwritable(path: Path) -> str:
    """Why we can't make or write to a folder; empty where we can."""
    while not path.exists():
        if path == path.parent or (not os.access(path.parent, os.X_OK) and path.parent.exists()):
            return f"{path}: Permission denied"
        path = path.parent
    if not path.is_dir():
        return f"{path}: Not a directory"
    return "" if os.access(path, os.W_OK | os.X_OK) else f"{path}: Permission denied"


def open_secrets(path: Path, places: Places) -> Iterator[Problem]:
    """Secrets that all users of this host may read: in files of their own, and in this one."""
    for value, file in places.secrets():
        with suppress(OSError):
            if (file or path).stat().st_mode & FOR_OTHERS:
                yield Problem(
                    path,
                    *value.place,
                    f"{file or path}: has a secret, and is open to all users of this host:"
                    f" chmod o= {file or path}" + ("" if file else ", or write {file: PATH} here"),
                )


_CHECKS: tuple[Check, ...] = (
    _hostname,
    _run_as,
    _certificates,
    _self_signed,
    _users,
    _postmasters,
    _hops,
    _spool,
    _log,
    _sockets,
    _metrics,
)
