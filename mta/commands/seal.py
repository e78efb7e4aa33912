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
    ):
        parser = add_command(group, name, run, summary)
        is_known(parser.add_argument("peer", metavar="PEER"), "peers")
        if name == "backup":
            parser.add_argument(
                "--to", metavar="FILE", type=Path, help="write them into a new file"
            )


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
        "\n\nAt the relay, put this line into a file beside its configuration, as office.age.pub:\n"
        f"{key.public}\nand name it in this office's entry there, and reload:\n"
        "    seal: {file: office.age.pub}"
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
        f"\nKeep a copy of it: mta seal backup {peer.name}\n\nAt the relay, let these lines be the"
        " file of `seal.file`, and reload:"
    )
    for key in keys:
        print(key.public)
    print(
        "\nRemove the lines behind the first there when the copy is safe, and the old keys here"
        f" when nothing waits for them any more: {peer.name} may keep mail for `hold_for`."
    )


def _relay(settings: Settings, name: str) -> Peer:
    """The peer that keeps our mail.  Raises Failed."""
    peer = settings.peers.get(name)
    if peer is None:
        dialled = [each.name for each in settings.peers.values() if each.connect]
        known = ", ".join(dialled) or "none"
        raise Failed(f"no peer is called {name!r}; those that we dial: {known}")
    if peer.connect is None:
        raise Failed(
            f"the peer {name!r} dials us: its private key is there, and its public one goes into"
            f" peers.{name}.seal.file here"
        )
    return peer


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
