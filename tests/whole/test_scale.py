"""The page on many nodes: its tables are those of the simulation, and its configurations hold."""

from __future__ import annotations

import re
from textwrap import dedent, indent

from twisted.trial.unittest import SynchronousTestCase

from bench.capacity import Costs, Needs, Plan, Provider, Simulation, limit, report
from tests.commands.test_commands import CommandCase
from tests.processes import ROOT, temporary_folder

PAGE = (ROOT / "docs/scale.rst").read_text("utf-8")


class SimulationTests(SynchronousTestCase):
    """Group commit, as it is simulated."""

    def test_alone(self) -> None:
        """A message that comes alone takes its work and a sync."""
        costs = Costs()
        found = Simulation(Plan(nodes=1000, rate=50.0), costs, 2.0).run()
        alone = 1000 * (costs.commit + costs.message + 30 * costs.kib) + 1.0
        self.assertAlmostEqual(found.median, alone, places=6)
        self.assertEqual(found.commits, 49.5)

    def test_together(self) -> None:
        """What comes meanwhile shares the next commit."""
        found = Simulation(Plan(nodes=1, processes=1, rate=5000.0), Costs()).run()
        self.assertLess(found.commits, 1000)
        self.assertLess(found.slow, 30)

    def test_limit(self) -> None:
        """A database is enough below its end, and not above."""
        plan = Plan(cores=2, nodes=8)
        most = limit(plan, Costs())
        self.assertLess(Needs.of(Plan(cores=2, nodes=2, rate=most / 3), Costs()).cores, 1)
        self.assertGreater(Needs.of(Plan(cores=2, nodes=8, rate=most * 3), Costs()).cores, 1)


class PageTests(CommandCase):
    """docs/scale.rst."""

    def test_tables(self) -> None:
        """They are what the program prints."""
        for table in report(Plan(), Costs(), Provider()).split("\n\n"):
            self.assertIn(indent(table, "   "), PAGE)

    def test_configurations(self) -> None:
        """``mta check`` takes them."""
        blocks = re.findall(r"\.\. code-block:: yaml\n\n((?: {3}.*\n|\n)+)", PAGE)
        self.assertEqual(len(blocks), 2)
        for block in blocks:
            folder = temporary_folder(self)
            text = dedent(block).replace("/srv/mta/spool", f"{folder}/spool")
            config = folder / "mta.yaml"
            config.write_text(re.sub(r"(?m)^spool: postgresql.*", _database(folder), text))
            status, output, errors = self.run_command("check", "-c", str(config))
            self.assertEqual((status, output), (0, f"{config}: ok\n"), errors)


def _database(folder: object) -> str:
    """A spool in a database that is not there, and nothing of this host's."""
    return f"spool: postgresql://mta@/mta?host={folder}\nspool_folder: {folder}/spool"
