"""Low ports without a socket of systemd."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mta.installation.places import Places
from mta.installation.sockets import without_socket
from mta.installation.systemd import socket_unit, system_unit
from mta.settings import Listener
from tests.processes import temporary_folder

LISTENERS = [Listener("tcp:25"), Listener("tcp6:587"), Listener("tcp:2525")]
PLACES = Places.of_system(Path("/opt/mta/bin"))


class SocketTests(SynchronousTestCase):
    """A unit, its sockets, and listeners that were added."""

    def setUp(self) -> None:
        """Write both units."""
        folder = temporary_folder(self)
        self.unit, self.socket = folder / "mta.service", folder / "mta.socket"
        self.unit.write_text(system_unit(PLACES))
        self.socket.write_text(socket_unit(PLACES, LISTENERS))

    def found(self, config: Path = PLACES.config) -> list[tuple[int, str]]:
        """The listeners without a socket, with one more."""
        listeners = [*LISTENERS, Listener("haproxy:tcp:366")]
        units = [self.unit.with_name("none"), self.unit]
        return list(without_socket(config, listeners, units, self.socket))

    def test_one_more(self) -> None:
        """The one that was added is named; high ports need no socket."""
        text = f"{self.socket} has no socket for haproxy:tcp:366: call `mta init` again"
        self.assertEqual(self.found(), [(3, text)])
        self.socket.unlink()
        self.assertEqual([number for number, _ in self.found()], [0, 1, 3])

    def test_other_servers(self) -> None:
        """Our unit has another configuration, opens ports itself, or is not there."""
        self.assertEqual(self.found(Path("/etc/mta/other.yaml")), [])
        for old, new in (
            ("CapabilityBoundingSet=", "AmbientCapabilities=CAP_NET_BIND_SERVICE"),
            ("User=mta", "User=root"),
        ):
            self.unit.write_text(system_unit(PLACES).replace(old, new))
            self.assertEqual(self.found(), [])
        self.unit.unlink()
        self.assertEqual(self.found(), [])
