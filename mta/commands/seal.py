"""``mta seal``: the keys to mail that a relay keeps sealed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from mta import config
from mta.commands.console import Failed, add_command, add_group, printable, settings_of
from mta.commands.known import is_known
from mta.files import atomic_write
from mta.privileges import act_as_server, owner_of_new_file
from mta.settings import Peer, Settings

# Keys take a while: they are imported where they are used.
if TYPE_CHECKING:
    from mta.commands.console import Subparsers
    from mta.sealing.keys import PrivateKey


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    group = add_group(subparsers, "seal", "keys to the mail that a relay keeps sealed for us")
    for name, run, summary in (
        ("keygen", _make, "make a key for what a relay keeps for us"),
        ("backup", _back_up, "print the private keys, for a copy elsewhere"),
        ("rotate", _rotate, "make a new key beside the old ones"),
        ("accept", _accept, "on the relay: seal what comes for a peer to its keys"),
    ):
        parser = add_command(group, name, run, summary)
        is_known(parser.add_argument("peer", metavar="PEER"), "peers")
        if name == "accept":
            parser.add_argument("key", metavar="KEY", nargs="+", help="age1..., as the peer has it")
        if name == "backup":
            parser.add_argument(
                "--to", metavar="FILE", type=Path, help="write them into a new file"
            )


def _accept(arguments: argparse.Namespace) -> None:
    from mta.sealing.keys import MAX_KEYS, PublicKey

    settings = settings_of(arguments, keep_root=True)
    peer = _known(settings, arguments.peer)
    if peer.connect is not None:
        raise Failed(f"we dial {peer.name}: its keys are made by `mta seal keygen {peer.name}`")
    try:
        keys = [PublicKey.read(text) for text in dict.fromkeys(arguments.key)]
    except ValueError as error:
        raise Failed(f"no public key, age1...: {error}") from None
    if len(keys) > MAX_KEYS:
        raise Failed(f"more than {MAX_KEYS} keys")
    file: Path = arguments.config.resolve()
    path = Path(peer.seal) if peer.seal else file.parent / f"{peer.name}.age.pub"
    edits: config.Edits = {("peers", peer.name, "seal", "file"): path.name}
    text = "" if peer.seal else config.edited(file, edits)
    octets = "".join(f"{key}\n" for key in keys).encode()
    atomic_write(path, octets, 0o644, owner=owner_of_new_file(path, settings))
    if text:
        config.save(file, text)
    count = "1 key" if len(keys) == 1 else f"{len(keys)} keys"
    print(printable(f"what comes for {peer.name} is sealed to {count}, in {path}"))
    _tell(settings)


def _make(arguments: argparse.Namespace) -> None:
    from mta.sealing.keys import PrivateKey

    settings = settings_of(arguments, keep_root=True)
    peer = _relay(settings, arguments.peer)
    if peer.seal:
        raise Failed(
            f"{peer.name} has a key, {peer.seal}: `mta seal rotate {peer.name}` makes the next one"
        )
    file: Path = arguments.config.resolve()
    path = file.parent / f"{peer.name}.age"
    text = config.edited(file, {("peers", peer.name, "seal", "key"): path.name})
    key = PrivateKey.new()
    octets = _lines([key], peer).encode()
    if not atomic_write(path, octets, overwrite=False, owner=owner_of_new_file(path, settings)):
        raise Failed(f"{path} is there already, and not configured: remove it, or name it yourself")
    config.save(file, text)
    print(printable(f"made {path}: peers.{peer.name}.seal.key in {file}"))
    _tell(settings)
    print(
        "\nKeep a copy of it elsewhere, as mail that waits is lost without it:"
        f" mta seal backup {peer.name}"
        f"\n\nOn the relay, for the name that we have there:\n{_acceptance(peer, [key])}"
    )


def _back_up(arguments: argparse.Namespace) -> None:
    peer = _relay(settings_of(arguments), arguments.peer)
    text = _lines(_keys(peer), peer)
    if arguments.to is None:
        print(text, end="")
    elif not atomic_write(arguments.to, text.encode(), overwrite=False):
        raise Failed(f"{arguments.to} is there already: name a new file")
    else:
        print(printable(f"wrote {arguments.to}: carry it to another place"), file=sys.stderr)


def _rotate(arguments: argparse.Namespace) -> None:
    from mta.sealing.keys import MAX_KEYS, PrivateKey

    settings = settings_of(arguments, keep_root=True)
    peer = _relay(settings, arguments.peer)
    keys = [PrivateKey.new(), *_keys(peer)]
    if len(keys) > MAX_KEYS:
        raise Failed(f"{peer.seal} has {MAX_KEYS} keys: remove the oldest, at its end, by hand")
    path = Path(peer.seal)
    atomic_write(path, _lines(keys, peer).encode(), owner=owner_of_new_file(path, settings))
    print(printable(f"made a new key in {path}, before {len(keys) - 1} older"))
    _tell(settings)
    print(
        f"\nOn the relay:\n{_acceptance(peer, keys)}"
        f"\n\nKeep a copy of it elsewhere: mta seal backup {peer.name}; and then, on the relay:\n"
        f"{_acceptance(peer, keys[:1])}"
        "\n\nRemove the old keys here when nothing waits there that was sealed to them alone: that"
        " is over after `hold_for`."
    )


def _acceptance(peer: Peer, keys: Iterable[PrivateKey]) -> str:
    """The command that tells these keys to the relay.

    There we have the name that we log in by.
    """
    name = peer.connect.user if peer.connect and peer.connect.user else "OFFICE"
    return f"mta seal accept {name} " + " ".join(str(key.public) for key in keys)


def _relay(settings: Settings, name: str) -> Peer:
    """The peer that keeps our mail.  Raises Failed."""
    peer = _known(settings, name)
    if peer.connect is None:
        raise Failed(
            f"the peer {name!r} dials us: its private key is there, and its public one comes here"
            f" by `mta seal accept {name}`"
        )
    return peer


def _known(settings: Settings, name: str) -> Peer:
    """The peer of that name.  Raises Failed."""
    if name not in settings.peers:
        known = ", ".join(settings.peers) or "none"
        raise Failed(f"no peer is called {name!r}; those that there are: {known}")
    return settings.peers[name]


def _keys(peer: Peer) -> Sequence[PrivateKey]:
    """The keys that there are.  Raises Failed."""
    from mta.sealing.keys import SealKeyFault, private_keys

    if not peer.seal:
        raise Failed(f"{peer.name} has no key: mta seal keygen {peer.name}")
    try:
        return private_keys(Path(peer.seal))
    except SealKeyFault as fault:
        raise Failed(str(fault)) from None


def _lines(keys: Iterable[PrivateKey], peer: Peer) -> str:
    """The text of a file of keys, as age-keygen writes it."""
    lines = [f"# opens what {peer.name} keeps sealed; written {datetime.now(UTC):%Y-%m-%d %H:%M}Z"]
    for key in keys:
        lines += [f"# public key: {key.public}", key.text]
    return "\n".join(lines) + "\n"


def _tell(settings: Settings) -> None:
    """Have the server read its keys.  Root is its user from now on."""
    from mta.commands.running_server import tell_server

    act_as_server(settings)
    if not tell_server(settings):
        print("the server does not run: it reads the key when it starts", file=sys.stderr)
