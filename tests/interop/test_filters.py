"""Filters that Debian has: rspamd, OpenDKIM, ClamAV's."""

from __future__ import annotations

import shutil
import smtplib
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from twisted.trial.unittest import SynchronousTestCase

from bench.servers import free_port
from mta.authentication.dkim import ResultCode
from tests.authentication.dkim_cases import NOW, RSA, RSA_KEY, DKIMCase, record, signed
from tests.interop.filters import milters
from tests.processes import (
    DEADLINE,
    Process,
    Server,
    configuration,
    need_program,
    temporary_folder,
    wait_until,
)

DOMAIN = "office.example"
CONTENT = b"""From: Alice <alice@example.com>\r
Date: Fri, 27 Nov 2026 12:00:00 +0000\r
Message-ID: <1@example.com>\r
Subject: %b\r
To: <bob@office.example>\r
\r
%b\r
"""
# What each filter for spam, and each for viruses, has to find.
GTUBE = b"XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"
EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"

_RSPAMD = """\
options {{
    pidfile = "{folder}/pid";
    filters = "";
    local_addrs = [];
    tempdir = "{folder}";
    url_tld = "{folder}/domains";  # the whole list takes it many seconds
    hs_cache_dir = "{folder}";
    dns {{ nameserver = ["127.0.0.1:1"]; timeout = 0.1s; retransmits = 1; }}
}}
logging {{ type = "console"; level = "info"; }}
actions {{ reject = 15; add_header = 6; greylist = 4; }}
lua = "{folder}/rules.lua";
worker "rspamd_proxy" {{
    bind_socket = "127.0.0.1:{port}";
    bind_socket = "{folder}/rspamd mode=0666";
    milter = yes;
    count = 1;
    timeout = 10s;
    upstream "local" {{ default = yes; self_scan = yes; }}
}}
"""
_RULES = """\
rspamd_config.LATER = {
  type = 'prefilter',
  callback = function(task)
    if task:get_subject() == 'later' then
      task:set_pre_result('soft reject', 'Greylisted, please try again later')
    end
  end
}
rspamd_config.BARGAIN = {
  score = 7,
  callback = function(task)
    return task:get_subject() == 'a bargain'
  end
}
rspamd_config.SEEN = {
  type = 'postfilter',
  callback = function(task)
    local address, user = task:get_from_ip(), task:get_user()
    local said = tostring(address) .. ' ' .. tostring(task:get_hostname()) .. ' ' .. tostring(user)
      .. ' ' .. tostring(task:get_queue_id())
    task:set_milter_reply({add_headers = {['X-Seen'] = said}})
  end
}
"""
_OPENDKIM = """\
Socket inet:{port}@127.0.0.1
PidFile {folder}/pid
Mode {mode}
Domain example.com
Selector rsa
KeyFile {folder}/key.pem
RequireSafeKeys no
InternalHosts {internal}
TestPublicKeys {folder}/keys
AlwaysAddARHeader yes
AuthservID mail.office.example
Canonicalization {forms}
OversignHeaders From
Syslog no
"""
_CLAMD = """\
LocalSocket {folder}/clamd
DatabaseDirectory {folder}/database
TemporaryDirectory {folder}
Foreground yes
User {user}
"""
_CLAMAV_MILTER = """\
MilterSocket inet:{port}@127.0.0.1
ClamdSocket unix:{folder}/clamd
Foreground yes
User {user}
OnInfected {action}
RejectMsg Virus: %v
AddHeader Replace
"""


class FilterCase(SynchronousTestCase):
    """A server with a filter of somebody else's."""

    def start(self, port: int, **keys: Any) -> Server:
        """A server with the filter on a port."""
        filters = milters(f"inet:127.0.0.1:{port}", **keys)
        server = Server(self, configuration(milters=filters))
        server.start()
        return server

    def run_filter(self, program: str, arguments: Sequence[str], folder: Path, port: int) -> None:
        """Start a filter, and wait until it listens."""
        process = Process([need_program(self, program), *arguments], folder)
        self.addCleanup(process.kill)
        self.process = process
        wait_until(lambda: _answers(process, port), f"{program} listens", 60)

    def run_rspamd(self) -> int:
        """Start rspamd; returns its port.  The socket `rspamd` is for other network namespaces."""
        folder = temporary_folder(self)
        self.rspamd = folder / "rspamd"
        folder.chmod(0o777)  # root's rspamd would work as another user
        port = free_port()
        (folder / "domains").write_text("com\nexample\n")
        (folder / "rules.lua").write_text(_RULES)
        (folder / "rspamd.conf").write_text(_RSPAMD.format(folder=folder, port=port))
        arguments = ["--no-fork", "--insecure", "-c", str(folder / "rspamd.conf")]
        self.run_filter("rspamd", arguments, folder, port)
        return port

    def arrived(self, server: Server, name: str = "bob") -> bytes:
        """The message that came."""
        (mail,) = server.wait_for_mail(f"{DOMAIN}/{name}")
        return mail

    def refused(self, server: Server, content: bytes) -> tuple[int, bytes]:
        """The reply to content that is not taken."""
        with self.assertRaises(smtplib.SMTPDataError) as caught:
            server.send(content, f"bob@{DOMAIN}")
        error = caught.exception.smtp_error
        assert isinstance(error, bytes)
        return caught.exception.smtp_code, error


class RspamdTests(FilterCase):
    """rspamd, which answers nothing before the end of a message."""

    def setUp(self) -> None:
        self.server = self.start(self.run_rspamd())

    def test_spam(self) -> None:
        """It is refused, with rspamd's words."""
        code, text = self.refused(self.server, CONTENT % (b"x", GTUBE))
        self.assertEqual((code, text), (554, b"5.7.1 Gtube pattern"))
        self.assertIn("refused by filter filter0: 554 5.7.1 Gtube pattern", self.server.log)

    def test_greylisting(self) -> None:
        """The client is to come back."""
        code, text = self.refused(self.server, CONTENT % (b"later", b"x"))
        self.assertEqual((code, text), (451, b"4.7.1 Greylisted, please try again later"))

    def test_fields(self) -> None:
        """What it adds is there; it knows client and message."""
        self.server.send(CONTENT % (b"a bargain", b"x"), f"bob@{DOMAIN}")
        mail = self.arrived(self.server)
        self.assertIn(b"X-Spam: Yes\n", mail)
        (seen,) = [line for line in mail.splitlines() if line.startswith(b"X-Seen: ")]
        id = self.server.log.partition(" accepted <")[0].rpartition(" ")[2]
        self.assertEqual(seen.decode(), f"X-Seen: 127.0.0.1 localhost nil {id}")

    def test_many(self) -> None:
        """Message after message in one session."""
        with smtplib.SMTP("127.0.0.1", self.server.ports["smtp"], timeout=DEADLINE) as client:
            for _ in range(10):
                client.sendmail("a@example.com", [f"bob@{DOMAIN}"], CONTENT % (b"x", b"y"))
        for mail in self.server.wait_for_mail(f"{DOMAIN}/bob", 10):
            self.assertIn(b"X-Seen: ", mail)


class OpenDKIMTests(FilterCase, DKIMCase):
    """OpenDKIM, which signs and verifies."""

    def opendkim(self, **values: str) -> int:
        """A running one; returns its port."""
        folder, port = temporary_folder(self), free_port()
        pem = RSA_KEY.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        (folder / "key.pem").write_bytes(pem)
        (folder / "keys").write_bytes(b"rsa._domainkey.example.com " + record(RSA_KEY) + b"\n")
        given: Mapping[str, str] = {"mode": "sv", "internal": "127.0.0.1", **values}
        text = _OPENDKIM.format(folder=folder, port=port, **given)
        (folder / "opendkim.conf").write_text(text)
        arguments = ["-f", "-x", str(folder / "opendkim.conf")]
        self.run_filter("opendkim", arguments, folder, port)
        return port

    def test_it_signs(self) -> None:
        """Our verifier finds the signature good, in both forms of header and body."""
        for forms in ("relaxed/relaxed", "simple/simple"):
            server = self.start(self.opendkim(forms=forms))
            server.send(CONTENT % (b"a  \r\n\tb", b"x  y\r\n.dot\r\n"), f"bob@{DOMAIN}")
            mail = self.arrived(server).replace(b"\n", b"\r\n")
            (result,) = self.verify(mail, now=time.time())
            self.assertEqual((result.result, result.domain), (ResultCode.PASS, "example.com"))
            self.process.kill()

    def test_it_verifies(self) -> None:
        """It finds ours good, and a changed one bad."""
        server = self.start(self.opendkim(internal="192.0.2.1", forms="relaxed/relaxed"))
        content = signed(CONTENT % (b"x", b"y"), RSA, now=NOW - 1e9)
        server.send(content, f"bob@{DOMAIN}")
        server.send(content.replace(b"y\r\n", b"z\r\n"), f"carol@{DOMAIN}")
        self.assertIn(b"dkim=pass", self.arrived(server))
        self.assertIn(b"dkim=fail", self.arrived(server, "carol"))


class ClamAVTests(FilterCase):
    """clamav-milter with a database of one signature."""

    def clamav(self, action: str) -> int:
        """A running one; returns its port."""
        for program in ("clamd", "clamav-milter"):
            need_program(self, program)
        folder, port = temporary_folder(self), free_port()
        (folder / "database").mkdir()
        signature = b"Eicar-Test:0:*:" + EICAR.hex().encode() + b"\n"
        (folder / "database" / "test.ndb").write_bytes(signature)
        shutil.chown(folder, "clamav")
        values = {"folder": folder, "port": port, "action": action, "user": "clamav"}
        (folder / "clamd.conf").write_text(_CLAMD.format(**values))
        (folder / "milter.conf").write_text(_CLAMAV_MILTER.format(**values))
        clamd = Process([need_program(self, "clamd"), "-c", str(folder / "clamd.conf")], folder)
        self.addCleanup(clamd.kill)
        wait_until(lambda: (folder / "clamd").exists() or _must_run(clamd), "clamd is ready", 60)
        self.run_filter("clamav-milter", ["-c", str(folder / "milter.conf")], folder, port)
        return port

    def test_a_virus(self) -> None:
        """It is refused; what has none is marked."""
        server = self.start(self.clamav("Reject"))
        code, text = self.refused(server, CONTENT % (b"x", EICAR))
        self.assertEqual(code, 550)
        self.assertIn(b"Virus: Eicar-Test", text)
        server.send(CONTENT % (b"x", b"y"), f"bob@{DOMAIN}")
        self.assertIn(b"X-Virus-Status: Clean\n", self.arrived(server))

    def test_quarantine(self) -> None:
        """It is kept for the operator."""
        server = self.start(self.clamav("Quarantine"))
        server.send(CONTENT % (b"x", EICAR), f"bob@{DOMAIN}")
        assert server.process is not None
        server.process.wait_for("is on hold: filter0: quarantined by clamav-milter")


class SpamAssassinTests(FilterCase):
    """spamass-milter before spamd, with SpamAssassin's own rules and no network."""

    CLIENT = "192.0.2.1"  # those from 127.0.0.1 are not looked at

    def setUp(self) -> None:
        program = need_program(self, "spamass-milter")
        folder, port = temporary_folder(self), free_port()
        folder.chmod(0o755)  # spamd works as another user
        (folder / "init.pre").write_text("loadplugin Mail::SpamAssassin::Plugin::Check\n")
        (folder / "local.cf").write_text(
            "required_score 5\nreport_safe 0\nbody BARGAIN /bargain/\nscore BARGAIN 7\n"
        )
        options = ["--local", "--nouser-config", "--siteconfigpath", str(folder), "-m", "1"]
        self.run_filter("spamd", [*options, "-s", "stderr", "-p", str(port)], folder, port)
        socket = folder / "spamass.sock"
        # As in docs/milters.rst; what is behind -- is for spamc.
        options = ["-p", str(socket), "-u", "spamass-milter", "-i", "127.0.0.1", "-m", "-r", "15"]
        options += ["--", "-d", "127.0.0.1", "-p", str(port)]
        self.filter = Process([program, *options], folder)
        self.addCleanup(self.filter.kill)
        wait_until(lambda: socket.exists() or _must_run(self.filter), "spamass-milter listens")
        filters = [{"socket": f"unix:{socket}", "name": "spamassassin", "services": ["smtp"]}]
        relay = {"networks": ["127.0.0.0/8"], "xclient": ["127.0.0.1"]}
        self.server = Server(self, configuration(milters=filters, relay=relay))
        self.server.start()

    def send(
        self, content: bytes, client: str = CLIENT, recipient: str = "bob"
    ) -> tuple[int, bytes]:
        """The last reply to a message of a client."""
        port = self.server.ports["smtp"]
        with smtplib.SMTP("127.0.0.1", port, "proxy.example", timeout=DEADLINE) as smtp:
            smtp.ehlo()
            smtp.docmd("XCLIENT", f"ADDR={client}")
            smtp.ehlo("mx.example.com")
            smtp.mail("alice@example.com")
            smtp.rcpt(f"{recipient}@{DOMAIN}")
            return smtp.data(content)

    def test_spam(self) -> None:
        """What has many points is refused."""
        code, text = self.send(CONTENT % (b"x", GTUBE))
        self.assertEqual((code, text), (550, b"5.7.1 Blocked by SpamAssassin"))

    def test_fields(self) -> None:
        """What has some is marked, and so is what has none."""
        self.assertEqual(self.send(CONTENT % (b"x", b"a bargain"))[0], 250)
        mail = self.arrived(self.server)
        self.assertIn(b"X-Spam-Flag: YES\n", mail)
        self.assertIn(b"BARGAIN", mail)
        self.assertTrue(mail.endswith(b"\n\na bargain\n"), mail)
        self.send(CONTENT % (b"x", b"y"), recipient="carol")
        self.assertIn(b"X-Spam-Status: No, ", self.arrived(self.server, "carol"))

    def test_near_clients(self) -> None:
        """Those that it is not to look at are not looked at."""
        self.assertEqual(self.send(CONTENT % (b"x", GTUBE), "127.0.0.1")[0], 250)
        self.assertNotIn(b"X-Spam", self.arrived(self.server))


def _answers(process: Process, port: int) -> bool:
    _must_run(process)
    try:
        with socket.create_connection(("127.0.0.1", port), 1):
            return True
    except OSError:
        return False


def _must_run(process: Process) -> bool:
    """Raise AssertionError where it has ended."""
    if not process.is_running:
        raise AssertionError(process.output)
    return False
