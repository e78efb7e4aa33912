"""The implementations of the program's interfaces, all of them, by their signatures."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from importlib import import_module

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementedBy
from zope.interface.interface import InterfaceClass
from zope.interface.verify import verifyClass

from tests.processes import ROOT


def implementations() -> Iterator[tuple[type, InterfaceClass]]:
    """Each class of the source with each interface of ours that it implements."""
    for path in sorted((ROOT / "mta").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for _, found in inspect.getmembers(import_module(name), inspect.isclass):
            if found.__module__ == name:
                for interface in implementedBy(found).flattened():
                    if interface.__module__.startswith("mta."):
                        yield found, interface


class ImplementationTests(SynchronousTestCase):
    """Each has every method, with the signature that its interface has."""

    def test_all(self) -> None:
        """What `mypy` can't see, where a part is given as an interface, is seen here."""
        found = list(implementations())
        self.assertGreater(len(found), 60)
        for implementation, interface in found:
            self.assertTrue(verifyClass(interface, implementation))
