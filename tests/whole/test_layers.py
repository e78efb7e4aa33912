"""The layers of ``docs/design.rst``, held by a walk over the imports."""

from __future__ import annotations

import ast
import configparser
import sys
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.processes import ROOT

FOUNDATION = {
    "mail",
    "inspection_settings",
    "peer_settings",
    "settings",
    "session",
    "queued",
    "verdict",
    "dns_answer",
    "interfaces",
}
FILES = {"files", "limited_log", "sync", "shared_tables"}
TOP = {"service", "commands", "doctor"}

ALLOWED = {
    "": set(),  # mta/__init__.py
    "mail": set(),
    "inspection_settings": set(),
    "peer_settings": {"mail"},
    "settings": {"mail", "inspection_settings", "peer_settings"},
    "session": {"mail", "settings"},
    "queued": {"mail", "settings", "session"},
    "verdict": {"mail", "queued"},
    "dns_answer": set(),
    "interfaces": {"mail", "settings", "session", "queued", "verdict", "dns_answer"},
    "smtp": FOUNDATION,
    "authentication": FOUNDATION | {"smtp"},
    "config": {"mail", "inspection_settings", "peer_settings", "settings", "smtp", "files"},
    "files": set(),
    "limited_log": set(),
    "sync": set(),
    "shared_tables": {"files"},
    "inspectors": FOUNDATION | FILES | {"smtp", "authentication"},
    "delivery": FOUNDATION | FILES | {"smtp", "link"},
    "installation": FOUNDATION | FILES | {"smtp", "config", "tls", "users", "signing"},
    "pairing": FOUNDATION | FILES | {"smtp", "config"},
    "peers": FOUNDATION | FILES | {"smtp", "delivery", "queue"},
    "reporting": FOUNDATION | FILES | {"smtp", "authentication", "inspectors"},
    "signing": FOUNDATION | FILES | {"smtp", "config", "authentication"},
}
EVERY_OTHER = FOUNDATION | FILES | {"smtp"}

# The distributions that setup.cfg requires, or has as an extra, under the names they are imported
# by.  Three of them come with twisted[tls].
THIRD_PARTY = {
    "twisted": "twisted[tls]",
    "zope": "zope.interface",
    "yaml": "pyyaml",
    "ruamel": "ruamel.yaml",
    "shtab": "shtab",
    "idna": "idna",
    "dns": "dnspython",
    "OpenSSL": "twisted[tls]",
    "service_identity": "twisted[tls]",
    "cryptography": "twisted[tls]",
    "prometheus_client": "prometheus-client",
    "psycopg": "psycopg",
}


def modules() -> Iterator[tuple[Path, str]]:
    """Our source files, each with its room: ``smtp`` for ``mta/smtp/wire.py``."""
    for path in sorted((ROOT / "mta").rglob("*.py")):
        first = path.relative_to(ROOT / "mta").parts[0]
        yield path, first.removesuffix(".py").replace("__init__", "")


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """The dotted names that a file imports, with ``from a import b`` as ``a.b``."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node.lineno


class LayoutTests(SynchronousTestCase):
    """The tests lie as the rooms do."""

    def test_each_has_its_room(self) -> None:
        """A folder or module of tests is named as a room; the others are known."""
        rooms = {room for _, room in modules()}
        folders = {path.parent.name for path in (ROOT / "tests").glob("*/__init__.py")}
        files = {path.stem.removeprefix("test_") for path in (ROOT / "tests").glob("test_*.py")}
        self.assertEqual(
            folders - rooms,
            {"attacks", "crash", "dialogues", "fuzz", "hostile", "interop", "whole"},
        )
        self.assertEqual(files - rooms, set())


class LayerTests(SynchronousTestCase):
    """Who may import whom."""

    def test_rooms_keep_to_their_layer(self) -> None:
        """A room imports only rooms below it; rooms beside it meet in `mta.interfaces`."""
        wrong = []
        for path, room in modules():
            if room in TOP | {"testing"}:
                continue
            allowed = ALLOWED.get(room, EVERY_OTHER) | {room, "__version__"}
            for name, line in imports(path):
                parts = name.split(".")
                if parts[0] == "mta" and parts[1] not in allowed:
                    wrong.append(f"{path.relative_to(ROOT)}:{line}: {name}")
        self.assertEqual(wrong, [])

    def test_stand_ins_stay_outside(self) -> None:
        """`mta.testing` may import what is below `mta.service`, and no room imports it."""
        wrong = [
            f"{path.relative_to(ROOT)}:{line}: {name}"
            for path, room in modules()
            for name, line in imports(path)
            if (room == "testing" and name.startswith(tuple(f"mta.{each}" for each in TOP)))
            or (room != "testing" and name.startswith("mta.testing"))
        ]
        self.assertEqual(wrong, [])

    def test_the_protocol_is_pure(self) -> None:
        """`mta.smtp` and `mta.authentication` know no Twisted, no files, no clock, no sockets."""
        impure = {"twisted", "os", "pathlib", "socket", "ssl", "time", "threading", "select"}
        wrong = [
            f"{path.relative_to(ROOT)}:{line}: {name}"
            for path, room in modules()
            if room in {"smtp", "authentication", *FOUNDATION}
            for name, line in imports(path)
            if name.split(".")[0] in ({"twisted"} if room in FOUNDATION else impure)
        ]
        self.assertEqual(wrong, [])

    def test_nobody_imports_the_reactor(self) -> None:
        """It is an argument everywhere; only `makeService` has nobody to give it one."""
        found = {
            str(path.relative_to(ROOT))
            for path, _ in modules()
            for name, _ in imports(path)
            if name == "twisted.internet.reactor"
        }
        self.assertEqual(found - {"mta/service/__init__.py"}, set())

    def test_what_is_imported_is_required(self) -> None:
        """Whatever is not of the standard library stands in setup.cfg."""
        setup = configparser.ConfigParser()
        setup.read(ROOT / "setup.cfg")
        extras = setup["options.extras_require"]
        required = setup["options"]["install_requires"] + extras["metrics"] + extras["postgres"]
        wrong = []
        for path, _ in modules():
            for name, line in imports(path):
                top = name.split(".")[0]
                if top != "mta" and top not in sys.stdlib_module_names:
                    distribution = THIRD_PARTY.get(top)
                    if distribution is None or distribution not in required:
                        wrong.append(f"{path.relative_to(ROOT)}:{line}: {name}")
        self.assertEqual(wrong, [])
