"""Targets: what operators, users and our own files say."""

from __future__ import annotations

import io
import json
import tempfile
from contextlib import suppress
from pathlib import Path

import yaml

from mta.access.log_in_file import NAME as LOG_INS
from mta.access.log_in_file import LogInFile
from mta.config.document import ConfigurationError, Source, parse
from mta.config.edits import with_edits
from mta.config.schema import read_settings
from mta.delivery import quota
from mta.delivery.maildir import maildir_paths
from mta.doctor import look_files
from mta.logs.entries import Selection, Wanted, entries, entry
from mta.logs.lines import json_line, text_line, visible
from mta.mail import Mailbox
from mta.maildrop import published
from mta.maildrop.batch import Malformed, read_envelope
from mta.pairing import mailboxes, token
from mta.pairing.pairings import Pairings
from mta.peers.status_files import FOLDER as PEERS
from mta.peers.status_files import PeerStatusFiles
from mta.resolver.hosts_file import HostsFile
from mta.resolver.resolv_conf import parse_resolv_conf
from mta.signing import keys as signing_keys
from mta.smtp.templates import command_line, mailbox_path, placeholders
from mta.spool import holds, origins, queue_id
from mta.users import form

SOURCE = Source(Path("/nowhere/mta.yaml"), {}, False)
FIXED = b"\0" * 59  # octets of a token before its names
_FOLDER = tempfile.TemporaryDirectory(prefix="mta-fuzz-")
FOLDER = Path(_FOLDER.name)


def configuration(octets: bytes) -> None:
    """A configuration: settings, or problems with their places."""
    with suppress(ConfigurationError, UnicodeDecodeError):
        read_settings(parse(octets.decode(), SOURCE))


def edits(octets: bytes) -> None:
    """An edit of a file changes what it names, or is refused."""
    with suppress(ConfigurationError, UnicodeDecodeError):
        text = octets.decode()
        root = parse(text, SOURCE)
        for keys in (("peers", "office", "domains"), ("hostname",), ("listen", "0")):
            with suppress(ConfigurationError):
                edited = with_edits(text, root, {keys: "new.example"})
                assert "new.example" in edited, edited


def users(octets: bytes) -> None:
    """The users file: users that are written as they were read, or words for a person."""
    with suppress(ValueError, yaml.YAMLError):
        found = form.read(octets)
        assert form.read(form.written(found)) == found


def maildrop(octets: bytes) -> None:
    """What any user of the host may leave."""
    file = io.BytesIO(octets)
    with suppress(Malformed):
        assert read_envelope(file).recipients
        assert octets[: file.tell()].endswith(b"DATA\r\n")


def tokens(octets: bytes) -> None:
    """What an operator pastes: a token is written as it was read."""
    with suppress(token.TokenFault, UnicodeDecodeError):
        token.decoded(octets.decode())
    content = FIXED + octets
    word = token.urlsafe_b64encode(content + token._checksum(content)).decode().rstrip("=")
    with suppress(token.TokenFault):
        found = token.decoded(token.PREFIX + word)
        assert token.decoded(found.encoded()) == found, found


def maildirs(octets: bytes) -> None:
    """No address names a Maildir outside of its place, nor that of another address."""
    text = octets.decode("utf-8", "replace")
    local_part, _, domain = text.rpartition("@")
    with suppress(ValueError):
        address = Mailbox(local_part, domain)
        for path in maildir_paths("/mail/{domain}/{local}", address):
            parts = Path(path).parts
            assert parts[:2] == ("/", "mail"), path
            assert len(parts) <= 4, path
            assert ".." not in parts, path
        for other in (local_part + "%", local_part.replace("%", "%25"), f".{local_part}"):
            if other != local_part:
                path = mailbox_path("{local}", Mailbox(other, domain))
                assert path != mailbox_path("{local}", address), other
        line = command_line("/bin/x {local} -f{sender}", placeholders(address, address))
        assert line is None or not (line[1].startswith("-") or "\0" in "".join(line)), line


def names_in_maildirs(octets: bytes) -> None:
    """What stands in a Maildir is counted, whatever files are called."""
    maildir = FOLDER / "maildir"
    for folder in ("new", "tmp", "cur"):
        (maildir / folder).mkdir(parents=True, exist_ok=True)
    name, _, size_file = octets.partition(b"\n")
    with suppress(ValueError, OSError):
        path = maildir / "cur" / name.replace(b"/", b"").decode("utf-8", "surrogateescape")
        path.write_bytes(b"xx")
        (maildir / quota.FILE).write_bytes(size_file)
        quota.has_room(maildir, 1000, 1)
        quota.add(maildir, 1)
        path.unlink()


def log_lines(octets: bytes) -> None:
    """Lines of a log are entries; one that we wrote says what was logged."""
    text = octets.decode("utf-8", "surrogateescape")
    selection = Selection(Wanted(forward_path="a@b.example", event="accepted", since=1.0))
    for found in entries(io.StringIO(text)):
        selection.has(found)
        assert found.queue_id == "" or queue_id.decode(found.queue_id) >= 0
    for line in (
        text_line(1.0, "info", text),
        json_line(1.0, "info", "mta", text, [("reason", text), ("number", 1)]),
    ):
        shown = visible(line).encode("utf-8", "backslashreplace").decode()
        assert all(each.isprintable() or each in "\n\t" for each in shown if not each.isascii())
        entry(shown)
    if text.isprintable() and text == text.strip():
        assert entry(json_line(1.0, "info", "mta", text, [])).message == text


def own_files(octets: bytes) -> None:
    """Files in the spool, which may be damaged: what they say, or nothing."""
    for name in (LOG_INS, published.FILE, "pairings.json", f"{PEERS}/a.json", "looks/a.json"):
        (FOLDER / name).parent.mkdir(exist_ok=True)
        (FOLDER / name).write_bytes(octets)
    LogInFile(FOLDER).read()
    published.read(FOLDER)
    published.version(FOLDER)
    Pairings(FOLDER).read()
    PeerStatusFiles(FOLDER).read("a")
    look_files.LookFiles(FOLDER).read("a")
    with suppress(ValueError, TypeError):
        assert holds.read(holds.written(holds.read(octets))) is not None
    with suppress(ValueError, UnicodeDecodeError):
        origins.decoded(octets.decode())
    with suppress(ValueError):
        number = queue_id.decode(octets.decode("utf-8", "replace"))
        assert queue_id.encode(number).encode() == octets


def mailbox_lists(octets: bytes) -> None:
    """A list of mailboxes that a peer tells is bounded, and about its own domains alone."""
    with suppress(mailboxes.ListFault):
        known = mailboxes.read(octets, ["a.example", ".b.example"])
        for name, domain in known.items():
            assert name == "a.example" or name.endswith(".b.example"), name
            told = {"names": sorted(domain.names or ()), "subaddress": domain.subaddress}
            again = mailboxes.read(json.dumps({name: told}).encode(), [name])
            assert (again[name].names or frozenset()) == (domain.names or frozenset()), name


def system_files(octets: bytes) -> None:
    """resolv.conf, hosts and keys, as any system may have them."""
    servers = parse_resolv_conf(octets.decode("ascii", "replace"))
    assert servers.servers
    assert all(0 < each <= 30 for each in servers.timeouts), servers
    (FOLDER / "hosts").write_bytes(octets)
    HostsFile(FOLDER / "hosts").addresses(b"a.example")
    with suppress(ValueError):
        signing_keys.parse(octets)
