"""``mta pair``: connect an office and its relay by one line."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Sequence
from difflib import unified_diff
from pathlib import Path
from typing import TYPE_CHECKING

from mta import config
from mta.commands.console import (
    Failed,
    add_command,
    add_json,
    duration,
    has_spool,
    moment,
    print_json,
    printable,
    settings_of,
)
from mta.commands.known import is_known
from mta.commands.pair_files import LinkFiles, require_name, secret_name
from mta.commands.peer_statuses import peer_statuses
from mta.commands.running_server import tell_server
from mta.doctor.look_files import LookFiles
from mta.mail import Agent, Hop
from mta.pairing.entries import (
    DEFAULT_RELAY,
    EntryFault,
    office_edits,
    relay_edits,
    removal_edits,
    snippet,
)
from mta.pairing.mailboxes import MailboxFiles
from mta.pairing.pairings import LIFETIME, Pairings, new_password
from mta.pairing.token import MAX_DOMAINS, PREFIX, Token, TokenFault, checked_domain
from mta.privileges import act_as_server, owner_of_new_file
from mta.settings import Listener, ListenerTLS, Peer, Service, Settings

if TYPE_CHECKING:
    from mta.commands.console import Subparsers
    from mta.users.file import UserFile

_PORT = re.compile(r"(?:haproxy:)?tcp6?:(?:port=)?([1-9][0-9]*)")
_LOCAL = re.compile(r":interface=(?:127\.|\\:\\:1\b)")
_SUBMISSIONS_PORT = 465  # RFC 8314
_SUBMISSION_PORT = 587  # RFC 6409
_ODMR_PORT = 366  # RFC 2645
# Where an office may call: it hands over its own mail where that is taken, TLS first.
_PREFERRED = [
    (service, tls)
    for service in (Service.SUBMISSION, Service.ODMR)
    for tls in (ListenerTLS.IMPLICIT, ListenerTLS.REQUIRED, ListenerTLS.OPPORTUNISTIC)
]


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    summary = "connect an office and its relay"
    parser = add_command(subparsers, "pair", _run, summary)
    parser.add_argument("what", metavar="NAME|TOKEN", nargs="?", help="an office, or mta1:...")
    _add_relay_options(parser)
    _add_office_options(parser)
    others = parser.add_argument_group("instead").add_mutually_exclusive_group()
    others.add_argument("--list", action="store_true", help="list open pairings, and peers")
    for option, meaning in (
        ("--renew", "in the office: take a new secret; on the relay: print a new line"),
        ("--remove", "take a peer out of the configuration"),
    ):
        is_known(others.add_argument(option, metavar="NAME", help=meaning), "peers")
    others.add_argument(
        "--manual", action="store_true", help="print what both sides need, and change nothing"
    )
    parser.add_argument("--yes", action="store_true", help="do not ask before --remove")
    add_json(parser)


def _add_relay_options(parser: argparse.ArgumentParser) -> None:
    """Add what a relay may say."""
    relay = parser.add_argument_group("on the relay")
    relay.add_argument(
        "--domain", action="append", default=[], metavar="D", help="a domain of the office"
    )
    relay.add_argument("--host", metavar="HOST", help="where the office calls (default: hostname)")
    relay.add_argument("--port", type=int, metavar="N", help="the port it calls there")
    relay.add_argument(
        "--no-live",
        action="store_true",
        help="do not ask a new office about mailboxes, nor let it answer senders",
    )


def _add_office_options(parser: argparse.ArgumentParser) -> None:
    """Add what an office may say."""
    office = parser.add_argument_group("in the office")
    office.add_argument(
        "--mailbox",
        action="append",
        default=[],
        metavar="NAME",
        help="a mailbox of domains that are not configured yet",
    )
    office.add_argument("--as", dest="alias", metavar="NAME", help="what to call the relay")
    office.add_argument(
        "--links",
        type=int,
        choices=(1, 2),
        default=2,
        help="connections to a new relay: the second is for questions and small mail (default: 2)",
    )
    office.add_argument(
        "--no-test", action="store_true", help="send no message there and back, exchange none"
    )


def _run(arguments: argparse.Namespace) -> None:
    is_named = arguments.what is not None
    is_other = arguments.list or arguments.renew or arguments.remove
    if is_named == bool(is_other):
        arguments.parser.error("expected a NAME, a TOKEN, --list, --renew NAME or --remove NAME")
    try:
        if arguments.list:
            _list(arguments)
        elif arguments.remove:
            _remove(arguments)
        elif is_named and arguments.what.startswith(PREFIX):
            from mta.commands import pair_office

            pair_office.pair(arguments)
        elif arguments.manual:
            _print_manual(arguments)
        elif relay := _dialled(arguments):
            from mta.commands import pair_renewal

            pair_renewal.renew(arguments, relay)
        else:
            _offer(arguments)
    except (EntryFault, TokenFault) as fault:
        raise Failed(str(fault)) from None


def _dialled(arguments: argparse.Namespace) -> Peer | None:
    """The peer to be renewed, if it is one that we dial."""
    peer = settings_of(arguments, keep_root=True).peers.get(arguments.renew or "")
    return peer if peer is not None and peer.connect is not None else None


# --- on the relay


def _offer(arguments: argparse.Namespace) -> None:
    """Make the entries of an office, and print the line for it."""
    settings = settings_of(arguments, keep_root=True)
    name = arguments.renew or arguments.what
    domains = _domains(arguments, settings, name)
    if not has_spool(settings):
        raise Failed("the server has not run here yet: start it, and say this again")
    host, port, tls_at_once = _place(arguments, settings)
    edits = relay_edits(settings, name, domains, is_live=not arguments.no_live)
    file = arguments.config.resolve()
    users = _users(settings, name)
    if edits:
        config.save(file, config.edited(file, edits))
    password = new_password()
    _set_password(users, settings, name, password)
    act_as_server(settings)
    fingerprint = _fingerprint(settings, host)
    pairing, secret = Pairings(Path(settings.spool)).open(name, name, domains, password)
    _reload(settings)
    token = Token(host, port, fingerprint, pairing.id, secret, name, domains, tls_at_once)
    _note(f"in the office, within {duration(LIFETIME)}, and once, as root:")
    print(f"mta pair {token.encoded()}")
    if name in settings.peers:
        _note(f"{name} has a new password: it can't log in before that is done there")
        is_linked = peer_statuses(settings).link_since(name) is not None
        state = "is connected" if is_linked else "is not connected now; while it is"
        _note(f"{name} {state}: `mta pair --renew RELAY` there takes another secret without a line")


def _domains(arguments: argparse.Namespace, settings: Settings, name: str) -> list[str]:
    """The domains of a pairing.  Raises Failed."""
    require_name(name)
    present = settings.peers.get(name)
    if arguments.renew and present is None:
        raise Failed(f"no peer is called {name!r}")
    domains = [checked_domain(domain) for domain in arguments.domain]
    if not domains and present is not None:
        domains = [domain for domain in present.domains if not domain.startswith(".")]
    if not domains:
        raise Failed("whose mail is it to be?  Say --domain example.com")
    if len(domains := list(dict.fromkeys(domains))) > MAX_DOMAINS:
        raise Failed(f"a line has room for {MAX_DOMAINS} domains: say fewer of them by --domain")
    return domains


def _place(arguments: argparse.Namespace, settings: Settings) -> tuple[str, int, bool]:
    """The place that an office calls: host, port, TLS at once.  Raises Failed."""
    found = sorted(
        (each for each in settings.listen if (each.service, each.tls) in _PREFERRED),
        key=lambda each: (_is_local(each), _PREFERRED.index((each.service, each.tls))),
    )
    if not found:
        raise Failed(
            "there is no listener where an office could log in:"
            " add one with `service: submission` and `tls: implicit`"
        )
    wanted = arguments.port
    listener = next((each for each in found if wanted in (None, _port(each))), found[0])
    port = wanted or _port(listener)
    if not port:
        raise Failed(f"which port is {listener.endpoint}?  Say it by --port")
    return arguments.host or settings.hostname, port, listener.tls is ListenerTLS.IMPLICIT


def _is_local(listener: Listener) -> bool:
    """Tell whether programs of this host alone can reach a listener."""
    return bool(_LOCAL.search(listener.endpoint))


def _port(listener: Listener) -> int:
    """The port of a listener; 0: none.

    Of a socket that systemd passes, it is the usual one.
    """
    match = _PORT.match(listener.endpoint)
    if match:
        return int(match[1])
    if not listener.endpoint.removeprefix("haproxy:").startswith("systemd:"):
        return 0
    if listener.service is Service.ODMR:
        return _ODMR_PORT
    return _SUBMISSIONS_PORT if listener.tls is ListenerTLS.IMPLICIT else _SUBMISSION_PORT


def _users(settings: Settings, name: str) -> UserFile:
    """The users file.  Raises Failed where a user of that name is no peer."""
    from mta.users.file import UserFault, UserFile

    users = settings.users
    if not users or users.startswith("dovecot:"):
        raise Failed("`users` is no file of this server's: the pairing needs a user there")
    try:
        file = UserFile(Path(users), scram=settings.submission.scram)
        if name not in settings.peers and file.load().find(name) is not None:
            raise Failed(f"there is a user {name} who is no peer: take another name")
    except UserFault as fault:
        raise Failed(str(fault)) from None
    return file


def _set_password(file: UserFile, settings: Settings, name: str, password: str) -> None:
    """Give the peer's user a password; the user may be new."""
    from mta.users.file import UserFault, UserFile

    file = UserFile(file.path, owner_of_new_file(file.path, settings), scram=file.scram)
    try:
        if file.load().find(name) is None:
            file.add(name, password)
        else:
            file.set_password(name, password)
    except UserFault as fault:
        raise Failed(str(fault)) from None


def _fingerprint(settings: Settings, host: str) -> str:
    """The fingerprint of the certificate that the server shows under a name.  Raises Failed."""
    from mta.tls import TLSFault
    from mta.tls.context import pairs_of
    from mta.tls.files import certificates_in
    from mta.tls.names import is_for
    from mta.tls.selfsigned import self_signed
    from mta.tls.verify import fingerprint

    try:
        pairs = pairs_of(settings.tls) or [self_signed(Path(settings.spool), settings.hostname)]
        shown = [certificates_in(pair.certificate)[0] for pair in pairs]
    except TLSFault as fault:
        raise Failed(str(fault)) from None
    return fingerprint(next((each for each in shown if is_for(each, host)), shown[0]))


def _print_manual(arguments: argparse.Namespace) -> None:
    """Print the entries of both sides."""
    settings = settings_of(arguments)
    name = arguments.what
    domains = _domains(arguments, settings, name)
    host, port, tls_at_once = _place(arguments, settings)
    bare = Settings(settings.hostname)
    hop = Hop(Agent.SMTP, host, port, tls_at_once, user=name)
    relay = Peer(DEFAULT_RELAY, tuple(domains), connect=hop)
    print(f"# On the relay, in {arguments.config}; and then: mta user add {name}")
    print(snippet(relay_edits(bare, name, domains, is_live=not arguments.no_live)))
    file = secret_name(DEFAULT_RELAY)
    print(f"\n# In the office, with that password in {file} (mode 0600, the server's user's)")
    print(snippet(office_edits(bare, relay, file, ["alice"], arguments.links)))
    print("# A relay whose certificate no authority has issued needs its fingerprint as well:")
    print("# pin: sha256:...   (openssl x509 -noout -fingerprint -sha256 -in CERTIFICATE)")


# --- on either side


def _list(arguments: argparse.Namespace) -> None:
    settings = settings_of(arguments)
    now = time.time()
    for each in Pairings(Path(settings.spool)).waiting():
        if arguments.json:
            print_json(
                {
                    "name": each.peer,
                    "state": "open",
                    "domains": list(each.domains),
                    "expires": moment(each.expires),
                }
            )
        else:
            left = duration(each.expires - now)
            print(
                printable(f"{each.peer}: waits for its office, {left} left: {_names(each.domains)}")
            )
    for name, peer in settings.peers.items():
        if arguments.json:
            document = {"name": name, "state": "peer", "domains": list(peer.domains)}
            print_json(document | {"expires": None})
        else:
            way = (
                f"we dial {peer.connect}" if peer.connect else f"it dials us as {peer.user or '-'}"
            )
            print(printable(f"{name}: {way}: {_names(peer.domains)}"))


def _names(domains: Sequence[str]) -> str:
    return ", ".join(domains)


def _remove(arguments: argparse.Namespace) -> None:
    """Take a peer out, after a look at what that means."""
    settings = settings_of(arguments, keep_root=True)
    name, file = arguments.remove, arguments.config.resolve()
    edits = removal_edits(settings, name)
    text = config.edited(file, edits)
    before = file.read_text("utf-8")
    files = LinkFiles(file, name)
    secret = files.secret()
    for line in unified_diff(
        before.splitlines(), text.splitlines(), str(file), str(file), lineterm=""
    ):
        print(printable(line))
    peer = settings.peers[name]
    if peer.user and not settings.users.startswith("dovecot:"):
        print(printable(f"the user {peer.user} is removed, too"))
    if not arguments.yes:
        _confirm(f"Remove {name}?")
    config.save(file, text)
    if peer.connect is None:
        _remove_user(settings, peer)
    else:
        files.remove(secret)
    act_as_server(settings)
    if Path(settings.spool).is_dir():
        Pairings(Path(settings.spool)).end(name)
        MailboxFiles(Path(settings.spool)).forget(name)
        LookFiles(Path(settings.spool)).forget(name)
    _reload(settings)
    print(printable(f"removed {name}; mail that is held for it stays in the queue"))
    _note("its own entries stay until `mta pair --remove` there")


def _confirm(question: str) -> None:
    """Ask for a yes.  Raises Failed."""
    if not sys.stdin.isatty():
        raise Failed("there is no terminal to ask on: nothing changed (--yes does it)")
    if input(f"{question} [y/N] ").strip().lower() not in ("y", "yes"):
        raise Failed("nothing changed")


def _remove_user(settings: Settings, peer: Peer) -> None:
    from mta.users.file import UserFault, UserFile

    path = Path(settings.users)
    if not peer.user or settings.users.startswith("dovecot:"):
        return
    file = UserFile(path, owner_of_new_file(path, settings), scram=settings.submission.scram)
    try:
        if file.load().find(peer.user) is not None:
            file.delete(peer.user)
    except UserFault as fault:
        raise Failed(str(fault)) from None


def _reload(settings: Settings) -> None:
    """Have the server read its configuration; a note says where none runs."""
    if tell_server(settings):
        return
    _note("the server does not run: start it, such as by: systemctl start mta")


def _note(text: str) -> None:
    """A line for the person, beside the line to be copied."""
    print(printable(text), file=sys.stderr)
