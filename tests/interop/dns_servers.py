"""Name servers of others on loopback: BIND with zones of ours, Unbound that validates, dnsmasq."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase

from bench.servers import free_port
from tests.processes import DEADLINE, Process, need_program, temporary_folder

MANY = 60  # strings of one name, more than a datagram holds
DIGEST = "ab" * 32
_SOA = "@ 60 SOA ns hostmaster 1 3600 600 86400 60\n@ 60 NS ns\nns 60 A 127.0.0.1\n"
SIGNED = f"""\
$TTL 60
{_SOA}
mail MX 10 mx
mail MX 20 Mx2
mx A 192.0.2.1
mx AAAA 2001:db8::1
_25._tcp.mx TLSA 3 1 1 {DIGEST}
alias CNAME mail
null MX 0 .
forged A 192.0.2.66
text TXT "v=spf1 " "-all"
below NS ns.below
ns.below A 192.0.2.53
""" + "".join(f'long TXT "{number} {"x" * 60}"\n' for number in range(MANY))
UNSIGNED = f"$TTL 60\n{_SOA}\nmail MX 10 mx\n"

_NAMED = """\
options {{
  directory "{folder}";
  listen-on port {port} {{ 127.0.0.1; }};
  listen-on-v6 {{ none; }};
  pid-file none;
  lock-file none;
  session-keyfile none;
  recursion no;
  dnssec-validation no;
  notify no;
}};
controls {{ }};
zone "signed" {{ type primary; file "signed.zone.signed"; }};
zone "unsigned" {{ type primary; file "unsigned.zone"; }};
"""
_UNBOUND = """\
server:
  interface: 127.0.0.1
  port: {port}
  directory: "{folder}"
  username: ""
  chroot: ""
  pidfile: ""
  logfile: ""
  use-syslog: no
  do-daemonize: no
  do-ip6: no
  do-not-query-localhost: no
  access-control: 127.0.0.0/8 allow
  module-config: "validator iterator"
  trust-anchor-file: "{anchor}"
remote-control:
  control-enable: no
stub-zone:
  name: "signed"
  stub-addr: {other}
stub-zone:
  name: "unsigned"
  stub-addr: {other}
"""


class Bind:
    """BIND's named with the zones ``signed`` and ``unsigned``; `anchor` is the key of the first.

    The address of ``forged.signed`` was changed after the zone was signed.
    """

    def __init__(self, case: SynchronousTestCase | TestCase) -> None:
        self.port = free_port()
        program = need_program(case, "named")
        self._folder = temporary_folder(case)
        (self._folder / "signed.zone").write_text(SIGNED)
        (self._folder / "unsigned.zone").write_text(UNSIGNED)
        self.anchor = self._sign(need_program(case, "dnssec-keygen"), case)
        configuration = self._folder / "named.conf"
        configuration.write_text(_NAMED.format(folder=self._folder, port=self.port))
        _start(case, [program, "-g", "-c", str(configuration)], self._folder, r" running\n")

    def _sign(self, keygen: str, case: SynchronousTestCase | TestCase) -> Path:
        """Sign the first zone, and forge an address in it."""
        names = [
            self._run(keygen, "-q", "-a", "ECDSAP256SHA256", *kind, "signed")
            for kind in (["-f", "KSK"], [])
        ]
        self._run(need_program(case, "dnssec-signzone"), "-S", "-o", "signed", "signed.zone")
        file = self._folder / "signed.zone.signed"
        file.write_text(file.read_text().replace("192.0.2.66", "192.0.2.67"))
        return self._folder / f"{names[0]}.key"

    def _run(self, *command: str) -> str:
        result = subprocess.run(
            command,
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=True,
            timeout=DEADLINE,
        )
        return result.stdout.strip()


class Unbound:
    """Unbound, which asks a BIND of ours and trusts its key."""

    def __init__(self, case: SynchronousTestCase | TestCase, bind: Bind) -> None:
        self.port = free_port()
        program = need_program(case, "unbound")
        folder = temporary_folder(case)
        configuration = folder / "unbound.conf"
        configuration.write_text(
            _UNBOUND.format(
                folder=folder,
                port=self.port,
                anchor=bind.anchor,
                other=f"127.0.0.1@{bind.port}",
            )
        )
        _start(case, [program, "-d", "-c", str(configuration)], folder, "start of service")


class Dnsmasq:
    """dnsmasq, as home routers have it, which asks a BIND of ours."""

    def __init__(self, case: SynchronousTestCase | TestCase, bind: Bind) -> None:
        self.port = free_port()
        command = [
            need_program(case, "dnsmasq"),
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
            "--bind-interfaces",
            "--listen-address=127.0.0.1",
            f"--port={self.port}",
            f"--server=127.0.0.1#{bind.port}",
            "--user=",
            "--pid-file=",
            "--log-facility=-",
        ]
        _start(case, command, temporary_folder(case), "started, version")


def _start(
    case: SynchronousTestCase | TestCase, command: Sequence[str], folder: Path, sign: str
) -> None:
    """Start a server; skips the test where the system keeps it out of our folders."""
    process = Process(command, folder)
    case.addCleanup(process.kill)
    try:
        process.wait_for(sign)
    except AssertionError:
        if "permission denied" in process.output.lower():
            raise SkipTest(f"{command[0]} may not read {folder} (AppArmor?)") from None
        raise
