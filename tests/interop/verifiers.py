"""Programs of others that verify signatures: OpenDKIM, rspamd, dkimpy."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Sequence
from contextlib import suppress

import dkim
from twisted.trial.unittest import SynchronousTestCase

from bench.servers import free_port
from mta.dns_answer import RecordType
from mta.testing import FakeResolver
from tests.interop.name_server import answering
from tests.processes import Process, need_program, temporary_folder, wait_until

_RSPAMD = """\
options {{
    filters = "dkim";
    dns {{ nameserver = ["{name_server}"]; timeout = 5s; }}
    local_addrs = [];
    tempdir = "{folder}";
    pidfile = "{folder}/pid";
    url_tld = "{folder}/domains";  # the whole list takes it many seconds
    hs_cache_dir = "{folder}";
}}
actions {{ reject = 100; }}
logging {{ type = "console"; level = "warning"; }}
worker "normal" {{ bind_socket = "127.0.0.1:{port}"; count = 1; }}
dkim {{ dkim_cache_size = 100; }}
"""


def texts(dns: FakeResolver) -> dict[str, bytes]:
    """The texts of a DNS, by their names."""
    return {
        name: answer.records[0]
        for (name, kind), answer in dns.answers.items()
        if kind is RecordType.TXT
    }


class Dkimpy:
    """dkimpy, with the keys of a DNS."""

    def __init__(self, dns: FakeResolver) -> None:
        self._texts = texts(dns)

    def key_text(self, name: bytes, timeout: int = 5) -> bytes | None:
        """The key record of a name, as dkimpy asks for it."""
        return self._texts.get(name.decode().rstrip("."))

    def words(self, content: bytes) -> list[str]:
        """What it says of each signature."""
        count = len(re.findall(rb"(?mi)^DKIM-Signature[ \t]*:", content.partition(b"\r\n\r\n")[0]))
        found = []
        for index in range(count):
            passes = False
            with suppress(dkim.DKIMException):
                passes = dkim.DKIM(content).verify(index, self.key_text)
            found.append("pass" if passes else "fail")
        return found


class OpenDKIM:
    """OpenDKIM in its test mode."""

    def __init__(self, case: SynchronousTestCase, dns: FakeResolver) -> None:
        self._program = need_program(case, "opendkim")
        self._folder = temporary_folder(case)
        lines = (name.encode() + b" " + text + b"\n" for name, text in texts(dns).items())
        (self._folder / "keys").write_bytes(b"".join(lines))

    def words(self, content: bytes) -> list[str]:
        """What it says of each signature."""
        printed = self._run(content, "Mode v", f"TestPublicKeys {self._folder}/keys")
        return [word.decode() for word in re.findall(rb"\bdkim=(\w+)", printed)]

    def field(self, content: bytes, pem: bytes, *lines: str) -> bytes:
        """The field with which it signs by a key, with these lines of configuration."""
        key = self._folder / "key.pem"
        key.write_bytes(pem)
        printed = self._run(content, "Mode s", f"KeyFile {key}", "RequireSafeKeys no", *lines)
        match = re.search(rb"hname='(DKIM-Signature)' hvalue='([^']*)'", printed)
        assert match is not None, printed
        return match[1] + b": " + match[2].replace(b"\n", b"\r\n") + b"\r\n"

    def _run(self, content: bytes, *lines: str) -> bytes:
        configuration, message = self._folder / "opendkim.conf", self._folder / "message"
        configuration.write_text("\n".join(["Syslog no", *lines, ""]))
        message.write_bytes(content)
        command = [self._program, "-x", str(configuration), "-t", str(message), "-vv"]
        return subprocess.run(command, capture_output=True, timeout=60, check=True).stdout


class Rspamd:
    """rspamd, which asks a name server of ours; ended after the test."""

    def __init__(self, case: SynchronousTestCase, dns: FakeResolver) -> None:
        program = need_program(case, "rspamd")
        self._client = need_program(case, "rspamc")
        self._port = free_port()
        table = {name: {"TXT": [text.decode()]} for name, text in texts(dns).items()}
        folder = temporary_folder(case)
        folder.chmod(0o777)  # root's rspamd would work as another user
        (folder / "domains").write_text("com\nexample\n")
        configuration = folder / "rspamd.conf"
        values = {"name_server": answering(case, table), "folder": folder, "port": self._port}
        configuration.write_text(_RSPAMD.format(**values))
        process = Process([program, "--no-fork", "--insecure", "-c", str(configuration)], folder)
        case.addCleanup(process.kill)
        wait_until(lambda: self._scan(b"Subject: x\r\n\r\n"), "rspamd is ready", 120)

    def words(self, content: bytes) -> list[str]:
        """``pass`` for each signature that it allows; then what it says of others."""
        symbols = json.loads(self._scan(content))["symbols"]
        allowed = symbols.pop("R_DKIM_ALLOW", {}).get("options", [])
        others: Sequence[str] = sorted(name for name in symbols if name.startswith("R_DKIM"))
        return ["pass" for _ in allowed] + list(others)

    def _scan(self, content: bytes) -> bytes:
        command = [self._client, "-h", f"127.0.0.1:{self._port}", "-i", "203.0.113.1", "--json"]
        done = subprocess.run([*command, "symbols"], input=content, capture_output=True, timeout=60)
        return done.stdout if done.returncode == 0 and b"{" in done.stdout else b""
