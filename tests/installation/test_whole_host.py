"""``mta init`` as root, on a host of its own: its files are copies, its network is empty.

The copies are overlays in a mount namespace, so nothing of this machine is touched.  It takes root,
on Linux; elsewhere these tests are skipped.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.processes import DEADLINE, need_program, source_environment, temporary_folder

# All folders that an installation writes to; the others of this machine can't be written to.  The
# server's user may go where this interpreter and this source are.
_HOST = """
set -e
folder=$0
mount --make-rprivate /
mount -t tmpfs tmpfs "$folder"
for each in etc usr var opt root; do
    mkdir "$folder/$each" "$folder/$each.work"
    mount -t overlay -o "lowerdir=/$each,upperdir=$folder/$each,workdir=$folder/$each.work" \
        overlay "/$each"
done
mount -t tmpfs tmpfs /run
chmod o+x /root
rm -rf /etc/mta /var/spool/mta /etc/systemd/system/mta.service /etc/letsencrypt
ip link set lo up
ip address add 2001:db8::1/128 dev lo
exec "$@"
"""

# What is done on the host: it prints what is said, and fails where something is wrong.
_PROGRAM = """
import pwd, socket, subprocess, sys
from pathlib import Path
from mta.commands import main
from mta.installation import proof

OPTIONS = ("--yes", "--offline", "--hostname", "mail.example.com", "--mailbox", "alice")
holder = socket.create_server(("127.0.0.1", 587))
assert main(["init", "server", "--dry-run", "--program", sys.argv[1], *OPTIONS]) == 0
holder.close()
assert main(["init", "server", "--program", sys.argv[1], *OPTIONS]) == 0
server = pwd.getpwnam("mta")
for path in Path("/etc/mta/dkim").iterdir():
    print(path.stat().st_uid == server.pw_uid, oct(path.stat().st_mode & 0o777), path.suffix)
config = Path("/etc/mta/mta.yaml")
command = [sys.argv[1] + "/twistd", "--nodaemon", "--pidfile=", "mta", "--config", str(config)]
with proof.running(command, Path("/")):
    proof.send(25, "mail.example.com", "alice@example.com", Path("/var/mail/example.com/alice"))
    doctor = "import sys; from mta.commands import main; sys.exit(main(['doctor', '--offline']))"
    print(subprocess.run([sys.executable, "-c", doctor], stdout=subprocess.PIPE, text=True).stdout)
    print("running")
    assert main(["init", "server", "--program", sys.argv[1], "--offline"]) == 0
[mail] = Path("/var/mail/example.com/alice/new").iterdir()
print(config.read_text(), mail.read_text())
assert mail.stat().st_uid == server.pw_uid, mail.stat()
"""


# The same, where certbot has a certificate: later, and after a renewal.
_CERTBOT = """
import sys
from pathlib import Path
from mta.commands import main
from mta.config import load
from mta.tls.files import CertifiedKey
from mta.tls.selfsigned import FILE, self_signed

def renew():
    (live / FILE).unlink(missing_ok=True)
    text = self_signed(live, "mail.example.com").certificate.read_text()
    end = text.index("-----BEGIN PRIVATE")
    (live / "fullchain.pem").write_text(text[:end])
    (live / "privkey.pem").write_text(text[end:])

live = Path("/etc/letsencrypt/live/mail.example.com")
config = Path("/etc/mta/mta.yaml")
options = ("--yes", "--offline", "--program", sys.argv[1])
first = (*options, "--hostname", "mail.example.com", "--mailbox", "alice")
assert main(["init", "server", *first]) == 0
config.write_text(config.read_text().replace("50MiB", "9MiB"))
live.mkdir(parents=True)
renew()
print("certified")
assert main(["init", "server", *options]) == 0
before = CertifiedKey.load(load(config).tls.pair).chain
renew()
assert main(["init", "server", *options]) == 0
assert CertifiedKey.load(load(config).tls.pair).chain != before
assert load(config).limits.message_size == 9 * 2**20
print(oct(Path("/etc/mta/key.pem").stat().st_mode), Path("/etc/mta/key.pem").owner())
"""

# A user without rights, in a home folder.
_HOME = """
import os, sys
from pathlib import Path
from mta.commands import main

home = Path("/var/home")
home.mkdir()
os.chown(home, 65534, 65534)
os.setgid(65534)
os.setuid(65534)
os.environ["HOME"] = str(home)
first = ("--yes", "--hostname", "mail.example.com", "--mailbox", "alice")
assert main(["init", "server", "--offline", *first]) == 0
print("again")
assert main(["init", "server", "--offline"]) == 0
"""

# The server without any right of root's: its ports are those of mta.socket.
_SOCKETS = """
import contextlib, smtplib, socket, subprocess, sys
from pathlib import Path
from mta.commands import main
from mta.config import edited, save
from mta.installation import proof
from tests.interop import systemctl

options = ("--yes", "--offline", "--program", sys.argv[1])
first = (*options, "--hostname", "mail.example.com", "--mailbox", "alice")
assert main(["init", "server", *first]) == 0
config = Path("/etc/mta/mta.yaml")
save(config, edited(config, {("queue", "workers"): 2}))
alice = Path("/var/mail/example.com/alice")
sockets = systemctl.opened()
server = systemctl.start(sockets)
try:
    proof.send(25, "mail.example.com", "alice@example.com", alice)
except proof.NotProven:
    print(systemctl.LOG.read_text())
    raise
status = Path(f"/proc/{server.pid}/status").read_text()
print(*[line for line in status.splitlines() if line.startswith("Cap")])
server.terminate()
server.wait()

# Nobody listens; who connects waits, and is served by the next one.
waiting = socket.create_connection(("127.0.0.1", 25), 60)
server = systemctl.start(sockets)
print(waiting.recv(512))
waiting.close()
server.terminate()
server.wait()

# A listener that is added has no socket until `mta init` is called again.
more = "listen:\\n  - {endpoint: 'tcp:366', service: odmr}\\n"
config.write_text(config.read_text().replace("listen:\\n", more))
print("added")
server = subprocess.Popen(
    systemctl.with_sockets(
        ["setpriv", "--reuid=mta", "--regid=mta", "--init-groups", "--bounding-set=-all",
         "--inh-caps=-all", sys.argv[1] + "/twistd", "--nodaemon", "--pidfile=", "mta"], sockets
    ),
    cwd="/",
    pass_fds=[each.fileno() for each in sockets],
    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
)
print(server.communicate()[0])
with contextlib.redirect_stderr(sys.stdout):
    assert main(["check", "--offline"]) == 0
for each in sockets:
    each.close()
assert main(["init", "server", *options]) == 0

# And as systemd-socket-activate does it.
become = ["setpriv", "--reuid=mta", "--regid=mta", "--init-groups", "--bounding-set=-all"]
command = ["systemd-socket-activate", "-EPYTHONPATH"]
for line in systemctl.SOCKET_UNIT.read_text().splitlines():
    if line.startswith("ListenStream="):
        command += ["--listen", line.partition("=")[2]]
command += [*become, "--inh-caps=-all", sys.argv[1] + "/twistd"]
server = subprocess.Popen([*command, "--nodaemon", "--pidfile=", "mta"], cwd="/")
try:
    proof.send(25, "mail.example.com", "alice@example.com", alice)
except proof.NotProven:
    print(systemctl.LOG.read_text())
    raise
print("activated")
server.terminate()
server.wait()
"""

# A host with a public address, whose mail servers of others are at another of its addresses.
_NETWORK = """
import subprocess, sys
from pathlib import Path

def ip(*words):
    subprocess.run(["ip", *words], check=True)

def look(*options):
    command = "import sys; from mta.commands import main; sys.exit(main())"
    words = ["init", "vps", "--dry-run", "--yes", "--program", sys.argv[1], *options]
    said = subprocess.run(
        [sys.executable, "-c", command, *words], capture_output=True, text=True, check=False
    )
    notes = [line for line in said.stdout.splitlines() if line.startswith("note: ")]
    print(*notes, said.stderr, sep="\\n")

Path("/etc/resolv.conf").write_text("nameserver 127.0.0.1\\n")
ip("address", "add", "45.45.45.45/32", "dev", "lo")
ip("route", "add", "default", "dev", "lo", "src", "45.45.45.45")
names = ["--ptr-record=45.45.45.45.in-addr.arpa,relay.example.org"]
names += [f"--mx-host={name},mx.example.net,1" for name in ("gmail.com", "outlook.com")]
names += ["--host-record=mx.example.net,127.0.0.9", "--host-record=mail.example.com,45.45.45.46"]
dnsmasq = subprocess.Popen(
    ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts",
     "--pid-file=", "--user=root", "--listen-address=127.0.0.1", "--bind-interfaces", *names]
)
print("closed")
look()
print("open")
greeter = "import socket\\ns = socket.create_server(('127.0.0.9', 25))\\nprint(flush=True)\\n"
greeter += "while True:\\n    c, _ = s.accept(); c.sendall(b'554 no\\\\r\\\\n'); c.close()"
server = subprocess.Popen([sys.executable, "-c", greeter], stdout=subprocess.PIPE)
server.stdout.readline()
look("--hostname", "mail.example.com")
server.kill()
print("dropped")
rules = "table inet f {\\nchain input { type filter hook input priority 0; policy drop;"
rules += " udp dport 53 accept; udp sport 53 accept; tcp dport 465 accept;\\n}\\n}\\n"
subprocess.run(["nft", rules], check=True)
look("--hostname", "mail.example.com")
dnsmasq.kill()
"""


class HostTests(SynchronousTestCase):
    """A host that root installs on."""

    def setUp(self) -> None:
        if os.geteuid() != 0:
            self.skipTest("namespaces need root")
        for program in ("unshare", "useradd", "ip"):
            need_program(self, program)
        program = Path(sys.executable).parent
        if not (program / "twistd").exists():
            self.skipTest(f"no twistd in {program}")
        self.program = program

    def inside(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command on the host."""
        where = ("unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc")
        return subprocess.run(
            (*where, "sh", "-c", _HOST, str(temporary_folder(self)), *command),
            env=source_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE * 4,
            check=False,
        )

    def run_program(self, program: str) -> str:
        """Run a program of Python on the host; returns what it printed."""
        if self.inside("true").returncode:
            raise SkipTest("no overlays in a mount namespace here")
        ended = self.inside(sys.executable, "-c", program, str(self.program))
        for line in ended.stderr.splitlines():
            if "the server's user can't run" in line:
                raise SkipTest(line)
        self.assertEqual(ended.returncode, 0, ended.stdout + ended.stderr)
        return ended.stdout

    def test_from_nothing_to_a_message(self) -> None:
        """Users, owners, a start as root, a message; then nothing is left to do."""
        first, _, second = self.run_program(_PROGRAM).partition("running\n")
        self.assertIn("listens on port 587: the server can't start", first)
        self.assertIn("done: made user and group mta\n", first)
        self.assertEqual(first.count("True 0o600 .pem\n"), 2, first)  # keys that sign
        # A certificate that mail programs trust is the one thing that the person must bring.
        warnings = re.findall(r"^  (?:warn|bad) .*$", first, re.MULTILINE)
        self.assertEqual([each for each in warnings if "tls.certificate" not in each], [])
        for role in ("postmaster", "abuse", "root"):
            self.assertIn(f"  ok       {role}@example.com is taken\n", first)
        self.assertIn("/etc/mta/mta.yaml: ok\n", first)
        self.assertIn("nothing to do: all is as it should be\n", second)
        self.assertNotIn("listens on port", second)
        # One socket for IPv6 and IPv4, and clients by their own addresses.
        self.assertIn("endpoint: tcp6:25 ", second)
        self.assertIn("Received: from mail.example.com ([127.0.0.1])", second)

    def test_certbot(self) -> None:
        """A certificate that comes later is taken up, and a renewed one; edits stay."""
        _, _, said = self.run_program(_CERTBOT).partition("certified\n")
        self.assertIn("made /etc/letsencrypt/renewal-hooks/deploy/mta (root:root, 0755)", said)
        self.assertIn("+  certificate: cert.pem", said)
        self.assertEqual(said.count("done: made a copy of the certificate"), 2)
        self.assertTrue(said.endswith("0o100600 mta\n"), said)

    def test_sockets(self) -> None:
        """Low ports without a right of root's, and nobody is refused while it restarts."""
        for program in ("setpriv", "systemd-socket-activate"):
            need_program(self, program)
        said, _, added = self.run_program(_SOCKETS).partition("added\n")
        self.assertRegex(said, r"CapPrm:\s0+ CapEff:\s0+ CapBnd:\s0+ ")
        self.assertIn("b'220 mail.example.com ", said)
        self.assertIn(
            "cannot listen on tcp:366: Permission denied; root or systemd opens ports below 1024:"
            " `mta init` again writes mta.socket anew\n",
            added,
        )
        self.assertIn("mta.socket has no socket for tcp:366: call `mta init` again\n", added)
        self.assertIn("+ListenStream=0.0.0.0:366", added)
        self.assertIn("activated", added)

    def test_the_network(self) -> None:
        """Port 25 in both directions, names and firewall, before anything is asked."""
        for program in ("dnsmasq", "nft"):
            need_program(self, program)
        said = self.run_program(_NETWORK)
        closed, _, said = said.partition("open\n")
        opened, _, dropped = said.partition("dropped\n")
        self.assertIn("port 25 outwards is closed, so that no mail leaves: mx.example.net:", closed)
        self.assertNotIn("outwards", opened)
        self.assertIn("the reverse name of 45.45.45.45 is relay.example.org, expected mail", opened)
        self.assertEqual(opened.count("python listens on port 25: the server can't start"), 1)
        self.assertNotIn("be reached from this host itself", closed + opened)
        self.assertIn("(nftables) drops what comes to port 25: accept", dropped)
        self.assertIn(
            "port 25 of 45.45.45.45 can't be reached from this host itself: a firewall", dropped
        )
        self.assertIn(
            "port 25 of 45.45.45.46 can't be reached from this host itself: no address", dropped
        )
        self.assertEqual(said.count("not known from here; once an office is paired"), 2)

    def test_without_rights(self) -> None:
        """All is below the home folder, and the server delivers there."""
        said = self.run_program(_HOME)
        self.assertIn("made /var/home/.config/mta/mta.yaml (0640)", said)
        self.assertIn("a message to alice@example.com came through the server", said)
        self.assertNotIn("/etc/", said)
        self.assertIn("nothing to do", said.partition("again\n")[2])
