"""The form of the source: `tests.whole.rules`, held against ``mta/``."""

from __future__ import annotations

import ast
from textwrap import dedent

from twisted.trial.unittest import SynchronousTestCase

from tests.whole import rules


def broken(text: str) -> set[str]:
    """The rules that a source file breaks."""
    text = dedent(text)
    source = rules.Source("mta/room/file.py", text, ast.parse(text))
    aliases = rules.callable_aliases([source])
    found = [
        *(each for rule in (rules.sizes, rules.interfaces) for each in rule(source)),
        *(each for rule in (rules.docstrings, rules.comments) for each in rule(source)),
        *rules.constants(source),
        *rules.seams(source, aliases),
    ]
    return {each.rule for each in found}


class RuleTests(SynchronousTestCase):
    """Each rule, on the least source that breaks it and the most that does not."""

    def test_files(self) -> None:
        """A file has a bound."""
        self.assertEqual({"file"}, broken("x = 1\n" * 451))
        self.assertEqual(set(), broken("x = 1\n" * 450))

    def test_classes(self) -> None:
        """A class has a bound."""
        self.assertEqual({"class"}, broken("class A:\n" + "    x = 1\n" * 250))
        self.assertEqual(set(), broken("class A:\n" + "    x = 1\n" * 249))

    def test_functions(self) -> None:
        """A function has a bound, to which its signature and docstring do not count."""
        head = 'def a(\n    b,\n):\n    """Do it."""\n'
        self.assertEqual(set(), broken(head + "    x = 1\n" * 35))
        self.assertEqual({"function"}, broken(head + "    x = 1\n" * 36))

    def test_interfaces(self) -> None:
        """Inherited methods and attributes do not count."""
        methods = "".join(f"    def a{n}(): ...\n" for n in range(5))
        self.assertEqual(set(), broken(f"class IA(Interface):\n    x = Attribute('')\n{methods}"))
        more = f"{methods}    async def more(): ...\n"
        self.assertEqual({"interface"}, broken(f"class IA(Interface):\n{more}"))
        self.assertEqual({"interface"}, broken(f"class IA(interfaces.IBase):\n{more}"))

    def test_one_kind_of_interface(self) -> None:
        """A protocol of Twisted's is no interface, a function's type neither."""
        shape = "class A(Protocol):\n    def a(self): ...\n"
        self.assertEqual({"interface"}, broken(f"from typing import Protocol\n{shape}"))
        self.assertEqual(set(), broken(f"from twisted.internet.protocol import Protocol\n{shape}"))
        self.assertEqual(
            set(), broken("from typing import Protocol\n" + shape.replace("a(", "__call__("))
        )

    def test_callables(self) -> None:
        """Neither a parameter, a field, nor an attribute."""
        for text in (
            "class A:\n    def __init__(self, done: Callable[[str], None]) -> None: ...\n",
            "class A:\n    def __init__(self, *, done: Callable[..., None] | None) -> None: ...\n",
            "class A:\n    done: Callable[[str], None]\n",
            "Done = Callable[[str], None]\nclass A:\n    done: Done | None = None\n",
            "class A:\n    def a(self):\n        self.on_end: Callable[[], None] = f\n",
            "class A:\n    @property\n    def on_end(self) -> Callable[[], None]: ...\n",
        ):
            self.assertEqual({"callable"}, broken(text), text)

    def test_plain_functions(self) -> None:
        """A clock, chance, a runner of threads; an interface's method; a field of data."""
        for text in (
            "class A:\n    def __init__(self, now: Callable[[], float]) -> None: ...\n",
            "class A:\n    def __init__(self, in_thread: Callable[..., None]) -> None: ...\n",
            "class A(Interface):\n    def on_end() -> None: ...\n",
            "class A:\n    on_hold: str\n",
            "class A:\n    def a(self, key: Callable[[str], str]) -> None: ...\n",
        ):
            self.assertEqual(set(), broken(text), text)

    def test_lambdas(self) -> None:
        """No default of a class's function is one, and no attribute."""
        for text in (
            "class A:\n    def __init__(self, done=lambda: None): ...\n",
            "class A:\n    def a(self, *, done=lambda: None): ...\n",
            "class A:\n    done = lambda: None\n",
            "class A:\n    def a(self):\n        self.b.done = lambda: None\n",
        ):
            self.assertEqual({"lambda"}, broken(text), text)
        self.assertEqual(set(), broken("class A:\n    x = field(default_factory=lambda: 1)\n"))

    def test_clauses(self) -> None:
        """A docstring begins with a noun or a verb."""
        for word in ("What", "Whether", "How", "Who", "Where", "When", "Why", "If", "Which"):
            self.assertEqual({"clause"}, broken(f'"""{word} it is."""'), word)
        self.assertEqual(set(), broken('"""Tell whether it is."""'))
        self.assertEqual(set(), broken('"""Whole files."""'))

    def test_summaries(self) -> None:
        """The first sentence is short; points inside of words do not end it."""
        long = "one two three four five six seven eight nine ten"
        self.assertEqual(set(), broken(f'"""The 1.5 {long}."""'))
        self.assertEqual(set(), broken(f'"""The 1.5 {long}.  More: {long}."""'))
        self.assertEqual({"summary"}, broken(f'"""The 1.5 more {long}."""'))
        self.assertEqual(
            {"summary"}, broken(f'def a():\n    """The, e.g. 1.5\n    {long}.\n    """')
        )

    def test_people(self) -> None:
        """Programs are no people."""
        self.assertEqual({"people"}, broken('"""Close.\n\nFor whom it concerns.\n"""'))
        self.assertEqual({"people"}, broken('"""Nobody knows."""'))
        self.assertEqual({"people"}, broken("x = 1  # for whom it concerns"))
        self.assertEqual(set(), broken('"""Refuse `nobody`."""\nx = "nobody"  # not `nobody`\n'))
        self.assertEqual(set(), broken('"""Close it for the user."""'))

    def test_undocumented(self) -> None:
        """What others use says what it is for; what is private may."""

        def missing(text: str) -> list[str]:
            source = rules.Source("mta/room/file.py", text, ast.parse(text))
            return sorted({each.text for each in rules.undocumented(source)})

        self.assertEqual(["the module"], missing("x = 1"))
        self.assertEqual(["A", "a", "b"], missing('"""A."""\nclass A:\n  def a(): 1\ndef b(): 1'))
        self.assertEqual([], missing('"""A."""\nclass _A:\n  def a(): 1\ndef _b():\n  def c(): 1'))

    def test_constants(self) -> None:
        """MAX, MIN and DEFAULT."""
        self.assertEqual({"constant"}, broken("MOST_OCTETS = 3"))
        self.assertEqual({"constant"}, broken("class A:\n    _LEAST_AGE: int = 3"))
        self.assertEqual(set(), broken("MAX_OCTETS = 3"))

    def test_places(self) -> None:
        """A module stands in the entry of its own room."""
        page = dedent("""
            The rooms
            ---------

            ``one``, ``two``
                A room: ``here``.

            ``three``
                A room: ``there``.

            Who may import whom
            -------------------
            """)

        def is_missing(path: str) -> bool:
            source = rules.Source(f"mta/{path}.py", "", ast.parse(""))
            return bool(list(rules.places(source, page)))

        for path in ("__init__", "two", "three/__init__", "two/here", "three/there"):
            self.assertFalse(is_missing(path), path)
        for path in ("four", "four/__init__", "three/here", "two/there"):
            self.assertTrue(is_missing(path), path)


class SourceTests(SynchronousTestCase):
    """The whole of ``mta/``."""

    def test_all(self) -> None:
        """No place breaks a rule."""
        if found := rules.violations():
            self.fail("\n".join(map(str, found)))
