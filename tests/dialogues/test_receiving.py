r"""The golden dialogues, held with a real Link and a Receiver.

Each file in ``tests/dialogues`` holds conversations.  ``== title`` begins one; then come
settings (``service: lmtp``), and the dialogue line by line:

====================  ==========================================================================
``C: text``           the client sends a line; ``C: a | b`` sends two in one segment
``C raw: text``       it sends just these octets; ``\r \n \0 \t \\ \xNN`` as in Python, and
                      ``{text * 1000}`` a thousand times the text
``S: text``           the next line of the replies starts with this
``S* 250``            the next lines are one reply of this code
``S: (closed)``       the server closes the connection
``S: (nothing)``      there is no reply yet
``W: 1``              the replies since the last ``C:`` came in so many writes
``T: 300``            so many seconds pass
``E: event``          something happens, see `Conversation.event`
``M: A -> B, C``      the next message accepted has this envelope; ``M: A -> B: text`` and this
                      in its content
====================  ==========================================================================

All replies must be told before the client speaks again.  Every conversation is held twice, the
second time with each octet in a segment of its own, but for those with ``drip: no``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from twisted.trial.unittest import FailTest, SynchronousTestCase

from tests.conversations import Conversation

FOLDER = Path(__file__).parent


class Playable(Protocol):
    """What holds a conversation, step by step."""

    def step(self, kind: str, text: str) -> None:
        """Take one line of a dialogue."""

    def end(self) -> None:
        """The dialogue is over."""


class Script:
    """A conversation in a file: its title, settings and steps with their line numbers."""

    STEP = re.compile(r"(C raw|S\*|[CSWTEM]):? ?(.*)")

    def __init__(self, path: Path, title: str) -> None:
        self.path = path
        self.title = title
        self.settings: dict[str, str] = {}
        self.steps: list[tuple[int, str, str]] = []

    @property
    def name(self) -> str:
        """What its test is called."""
        return re.sub(r"\W+", "_", f"test_{self.path.stem}_{self.title}").rstrip("_")

    def begin(self, *, dripped: bool) -> Playable:
        """Who holds it."""
        return Conversation(self.settings, dripped=dripped)

    def hold(self, *, dripped: bool) -> None:
        """Hold the conversation.  Raises AssertionError with the place in the file."""
        conversation = self.begin(dripped=dripped)
        place = f"{self.path}:{self.title}"
        try:
            for number, kind, text in self.steps:
                place = f"{self.path}:{number}"
                conversation.step(kind, text)
            conversation.end()
        except AssertionError as error:
            raise FailTest(f"{place}: {error}") from None


def scripts(path: Path, kind: type[Script] = Script) -> Iterator[Script]:
    """The conversations in one file."""
    script: Script | None = None
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if line.startswith("== "):
            if script:
                yield script
            script = kind(path, line.removeprefix("== "))
        elif line and not line.startswith("#"):
            assert script is not None, f"{path}:{number}: before the first =="
            step = kind.STEP.fullmatch(line)
            if step:
                script.steps.append((number, step[1], step[2]))
            else:
                name, colon, value = line.partition(": ")
                assert colon and not script.steps, f"{path}:{number}: not understood"
                script.settings[name] = value
    if script:
        yield script


def add_tests(case: type[SynchronousTestCase], folder: Path, kind: type[Script] = Script) -> None:
    """Give a test case two tests for each conversation: as it is, and in single octets."""
    for path in sorted(folder.glob("*.txt")):
        for script in scripts(path, kind):
            _add(case, script)


def _add(case: type[SynchronousTestCase], script: Script) -> None:
    def held(self: SynchronousTestCase) -> None:
        script.hold(dripped=False)

    def dripped(self: SynchronousTestCase) -> None:
        script.hold(dripped=True)

    for name, test in ((script.name, held), (f"{script.name}_dripped", dripped)):
        if test is held or script.settings.get("drip") != "no":
            assert not hasattr(case, name), f"two conversations are called {name}"
            test.__doc__ = f"{script.path.stem}: {script.title}."
            test.__name__ = name
            setattr(case, name, test)


class DialogueTests(SynchronousTestCase):
    """One test for each conversation, and one for the same in single octets."""


add_tests(DialogueTests, FOLDER)
