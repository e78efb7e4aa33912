"""A database that can't be used: one line that says what to do, and no password anywhere."""

from __future__ import annotations

import atexit
import contextlib
import os
import socket
import ssl
import struct
import threading
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path
from urllib.parse import quote

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from mta.service.findings.files import spool as find
from mta.settings import Settings
from mta.spool.database import SpoolAway, SpoolUnusable
from mta.spool.place import SpoolPlace
from mta.spool.postgres import server
from mta.spool.postgres.server import Server
from tests.certificates import Authority
from tests.processes import temporary_folder
from tests.spool.postgres import Cluster, PostgresTestCase, execute

SECRET = "se%cret/Or not@all"

# Who gets in: the owner of the cluster without a password, `ours` with one, others not at all.
_ACCESS = """
local all mta trust
local all ours scram-sha-256
local all renamed,nologin,narrow trust
"""

_ROLES = f"""\
CREATE ROLE ours LOGIN PASSWORD '{SECRET.replace("%", "%%")}'
CREATE ROLE nologin NOLOGIN
CREATE ROLE narrow LOGIN CONNECTION LIMIT 1
CREATE DATABASE mail OWNER ours TEMPLATE template0 ENCODING 'UTF8'
CREATE DATABASE closed TEMPLATE template0 ENCODING 'UTF8'
REVOKE CONNECT ON DATABASE closed FROM PUBLIC
CREATE DATABASE another TEMPLATE template0 ENCODING 'UTF8'
"""


@cache
def asking() -> Cluster:
    """A server that asks for passwords, by SCRAM; the tests share it."""
    made = Cluster("password_encryption=scram-sha-256")
    made.make()
    (made.data / "pg_hba.conf").write_text(_ACCESS)
    made.start()
    atexit.register(made.remove)
    for statement in _ROLES.splitlines():
        execute(made.url("postgres"), statement)
    return made


class AccessTests(PostgresTestCase):
    """A database that asks for passwords."""

    def cluster(self) -> Cluster:
        """See `PostgresTestCase.cluster`."""
        return asking()

    def address(self, user: str, database: str = "mail", password: str = "") -> str:
        """The address of a database, with a password perhaps."""
        log_in = f"{user}:{quote(password, safe='')}" if password else user
        return f"postgresql://{log_in}@/{database}?host={quote(str(asking().folder), safe='')}"

    def told(self, url: str) -> str:
        """The line that a check, and a start, give for this address."""
        settings = Settings("h.example", spool=str(self.path.absolute()), database=url, node="n")
        checked = [each.text for each in find(settings)]
        self.assertEqual(len(checked), 1, url)
        self.assertNotIn("\n", checked[0])
        self.url = url
        with capturedLogs() as events:
            try:
                self.process()
            except SpoolUnusable as error:
                self.assertIn(str(error), checked[0])
                told = "".join(traceback.format_exception(error))
            else:
                self.fail(f"it starts: {url}")
        for text in (*checked, told, *map(str, events)):
            self.assertNotIn(SECRET, text)
            self.assertNotIn(quote(SECRET, safe=""), text)
        return checked[0]

    def test_lasting(self) -> None:
        """What time does not mend: the server does not start, and says what to do."""
        for url, problem, remedy in (
            (self.address("ours", password="wrong"), "password authentication failed", ".pgpass"),
            (self.address("ours"), "no password supplied", ".pgpass"),
            (self.address("mta", "nowhere"), '"nowhere" does not exist', "CREATE DATABASE"),
            (self.address("renamed"), 'role "renamed" does not exist', "CREATE ROLE"),
            (self.address("nologin"), "not permitted to log in", "ALTER ROLE"),
            (self.address("narrow", "closed"), "permission denied for database", "GRANT CONNECT"),
            (self.address("stranger"), "no pg_hba.conf entry", "pg_hba.conf allow it"),
        ):
            line = self.told(url)
            self.assertIn(problem, line)
            self.assertIn(remedy, line)

    def test_a_database_of_another(self) -> None:
        """One in which tables can't be made."""
        self.url = self.address("ours", "another", SECRET)
        with self.assertRaises(SpoolUnusable) as caught:
            self.process()
        self.assertIn("let the user in `spool` own the database", str(caught.exception))
        self.assertNotIn("cret", "".join(traceback.format_exception(caught.exception)))

    def test_passwords(self) -> None:
        """One in the URL, or in the file that PGPASSFILE names, lets mail in."""
        self.url = self.address("ours", password=SECRET)
        self.assertNotIn("cret", SpoolPlace(Path(), self.url).name)
        self.stop(self.process())
        file = Path(self.mktemp()).absolute()
        escaped = SECRET.replace("\\", r"\\").replace(":", r"\:")
        file.write_text(f"*:*:mail:ours:{escaped}\n")
        file.chmod(0o600)
        os.environ["PGPASSFILE"] = str(file)
        self.addCleanup(os.environ.pop, "PGPASSFILE")
        self.url = self.address("ours")
        self.stop(self.process())

    def test_too_few_connections(self) -> None:
        """Mail is refused until there are some; the log and the check say what to raise."""
        url = self.address("narrow")
        with Server(url).connect():
            settings = Settings("h.example", spool=str(self.path), database=url, node="n")
            [found] = find(settings)
            self.assertFalse(found.is_fatal)
            self.assertIn('too many connections for role "narrow"', found.text)
            self.assertIn("max_connections", found.text)
            with self.assertRaises(SpoolAway) as caught:
                Server(url).connect()
        self.assertIn("each process of a node has six", str(caught.exception))

    def test_too_old(self) -> None:
        """A server that does not know our statements is refused."""
        self.patch(server, "MIN_VERSION", 99)
        self.assertIn("version 99 or later is needed", self.told(self.address("mta")))


class AddressTests(SynchronousTestCase):
    """An address that can't be read, or is not what it looks like."""

    def refusal(self, url: str) -> str:
        """The line with which it is refused."""
        with self.assertRaises(SpoolUnusable) as caught:
            Server(url)
        return "".join(traceback.format_exception(caught.exception))

    def test_passwords(self) -> None:
        """No part of a password is told, wherever libpq would see it."""
        for password in (
            "se%cret",
            "se cret",
            "se/cret",
            "s%00cret",
            "12/cret",
            "se@cret",
            's"e cret',
        ):
            self.assertNotIn("cret", self.refusal(f"postgresql://mta:{password}@db/mta"))
        self.assertNotIn("cret", self.refusal("postgresql://mta@[db/mta?password=secret"))
        self.assertIn("%40", self.refusal("postgresql://mta:s@cret@db/mta"))

    def test_options(self) -> None:
        """One that libpq does not know is named."""
        self.assertIn('"sslmod"', self.refusal("postgresql://db/mta?sslmod=require"))

    def test_hosts(self) -> None:
        """A host that nothing knows: mail is refused, and the host is to be looked at."""
        with self.assertRaises(SpoolAway) as caught:
            Server("postgresql://mta@nowhere.invalid/mta").connect()
        self.assertIn("is the host in the URL right?", str(caught.exception))
        with self.assertRaises(SpoolAway) as caught:
            Server("postgresql://mta@127.0.0.1:1/mta").connect()
        self.assertIn("refused", str(caught.exception))


class TLSTests(SynchronousTestCase):
    """A server that refuses TLS, or whose certificate is not to be believed."""

    def refusal(self, answer: Callable[[socket.socket], None], options: str) -> str:
        """The line for a server that answers a request for TLS in this way."""
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)
        thread = threading.Thread(target=_serve, args=(listening, answer), daemon=True)
        thread.start()
        port = listening.getsockname()[1]
        with self.assertRaises(SpoolUnusable) as caught:
            Server(f"postgresql://mta:{SECRET[:2]}@localhost:{port}/mta?{options}").connect()
        return str(caught.exception)

    def test_refused(self) -> None:
        """TLS that was asked for and is not there."""
        line = self.refusal(lambda peer: peer.sendall(b"N"), "sslmode=require")
        self.assertIn("ssl = on", line)

    def test_certificates(self) -> None:
        """One of an authority that is not known, and one of another host."""
        folder = temporary_folder(self)
        authority = Authority(folder)
        other = Authority(folder, "other")
        pair = authority.issue("db.example")

        def answer(peer: socket.socket) -> None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(pair.certificate, pair.key)
            peer.sendall(b"S")
            context.wrap_socket(peer, server_side=True).close()

        line = self.refusal(answer, f"sslmode=verify-full&sslrootcert={other.path}")
        self.assertIn("by sslrootcert", line)
        line = self.refusal(answer, f"sslmode=verify-full&sslrootcert={folder}/none.pem")
        self.assertIn("by sslrootcert", line)
        line = self.refusal(answer, f"sslmode=verify-full&sslrootcert={authority.path}")
        self.assertIn("name the host in the URL as its certificate does", line)


def _serve(listening: socket.socket, answer: Callable[[socket.socket], None]) -> None:
    """Answer requests for TLS, until the socket is closed."""
    while True:
        try:
            peer, _ = listening.accept()
        except OSError:
            return
        with peer:
            length, code = struct.unpack(">II", peer.recv(8, socket.MSG_WAITALL))
            if (length, code) == (8, 80877103):  # SSLRequest
                with contextlib.suppress(OSError):
                    answer(peer)
