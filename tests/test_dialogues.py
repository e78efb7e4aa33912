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

from twisted.trial.unittest import FailTest, SynchronousTestCase

from tests.conversations import Conversation

FOLDER = Path(__file__).parent / "dialogues"
_STEP = re.compile(r"(C raw|S\*|[CSWTEM]):? ?(.*)")


class Script:
    """A conversation in a file: its title, settings and steps with their line numbers."""

    def __init__(self, path: Path, title: str) -> None:
        self.path = path
        self.title = title
        self.settings: dict[str, str] = {}
        self.steps: list[tuple[int, str, str]] = []

    @property
    def name(self) -> str:
        """What its test is called."""
        return re.sub(r"\W+", "_", f"test_{self.path.stem}_{self.title}").rstrip("_")

    def hold(self, *, dripped: bool) -> None:
        """Hold the conversation.  Raises AssertionError with the place in the file."""
        conversation = Conversation(self.settings, dripped=dripped)
        place = f"{self.path}:{self.title}"
        try:
            for number, kind, text in self.steps:
                place = f"{self.path}:{number}"
                conversation.step(kind, text)
            conversation.end()
        except AssertionError as error:
            raise FailTest(f"{place}: {error}") from None


def scripts(path: Path) -> Iterator[Script]:
    """The conversations in one file."""
    script: Script | None = None
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if line.startswith("== "):
            if script:
                yield script
            script = Script(path, line.removeprefix("== "))
        elif line and not line.startswith("#"):
            assert script is not None, f"{path}:{number}: before the first =="
            step = _STEP.fullmatch(line)
            if step:
                script.steps.append((number, step[1], step[2]))
            else:
                name, colon, value = line.partition(": ")
                assert colon and not script.steps, f"{path}:{number}: not understood"
                script.settings[name] = value
    if script:
        yield script


class DialogueTests(SynchronousTestCase):
    """One test for each conversation, and one for the same in single octets."""


def _add(script: Script) -> None:
    def held(self: DialogueTests) -> None:
        script.hold(dripped=False)

    def dripped(self: DialogueTests) -> None:
        script.hold(dripped=True)

    for name, test in ((script.name, held), (f"{script.name}_dripped", dripped)):
        if test is held or script.settings.get("drip") != "no":
            assert not hasattr(DialogueTests, name), f"two conversations are called {name}"
            test.__doc__ = f"{script.path.stem}: {script.title}."
            test.__name__ = name
            setattr(DialogueTests, name, test)


for _path in sorted(FOLDER.glob("*.txt")):
    for _script in scripts(_path):
        _add(_script)
