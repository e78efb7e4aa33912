"""Runners on a spool, with a peer that comes and goes, against a model.

Hypothesis chooses what happens: mail comes, hosts answer, processes die or stop, the clock is set,
a person puts mail on hold, releases and removes it.  After each step, and whatever came before:

* what was acknowledged, and is neither taken, nor refused, nor removed, is in the spool;
* nobody has taken a message twice, but where a process died, or the office left, between its taking
  it and the record of that;
* what waits is due in time.

In the end hosts and office take all there is, and then nothing is left.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)

from mta.mail import NULL_PATH, Envelope, Mailbox, Recipient
from mta.queued import Delivery, State
from mta.session import UNKNOWN_ORIGIN
from mta.spool.owner_rows import SUSPECT_DELAY
from tests.queue.node import (
    ANSWERS,
    OFFICE,
    OUTSIDE,
    SETTINGS,
    SILENCE,
    Copy,
    Node,
    World,
    copies_of,
)
from tests.state_machines import run_machine

EXAMPLES = int(os.environ.get("MTA_MODEL_EXAMPLES", "0"))  # more than a test has time for
STEPS = 40  # of each
MAX_ROUNDS = 200  # until all is at rest
HELD_AGAIN = 61.0  # seconds after which a link offers what the office put off
MAX_RETRY = max(SETTINGS.retry) * 1.2  # seconds, chance and all
# Chooses among what there is.  It is drawn whatever there is: how far processes have come when it
# is drawn may differ from run to run, and Hypothesis repeats what it drew.
NUMBERS = st.integers(0, 999)
TO: tuple[tuple[Mailbox, ...], ...] = ((OUTSIDE,), (OFFICE,), (OUTSIDE, OFFICE))


@dataclass
class Acknowledged:
    """What the model knows of a message."""

    copies: tuple[Copy, ...]
    is_removed: bool = False
    excuses: Counter[Mailbox] = field(default_factory=Counter)  # a second copy may come


class RunnerModel(RuleBasedStateMachine):
    """What happens, and what must be true then."""

    case: Any
    is_shared = True  # several processes may have the spool

    @initialize()
    def begin(self) -> None:
        """A new spool with one process."""
        self.case.setUp()
        self.world = World()
        self.mail: dict[str, Acknowledged] = {}
        self.nodes: list[Node] = []
        self.start()

    # --- processes

    @rule(what=st.sampled_from(("start", "die", "die at once", "stop")), number=NUMBERS)
    def process(self, what: str, number: int) -> None:
        """A process begins, is killed, or stops."""
        match what:
            case "start" if self.is_shared and len(self.nodes) < 2:
                self.start()
            case "stop":
                self.stop(number)
            case _:
                self.die(number, is_sudden=what == "die at once")

    def start(self) -> None:
        """Another process begins."""
        self.case.advance(1)  # ids of owners are times
        node = Node(self.case, self.world)
        self.nodes.append(node)
        self.case.take_over(node.spool)
        self.rest()

    def die(self, number: int, *, is_sudden: bool) -> None:
        """A process is killed, perhaps before it has written down what it knows."""
        node = self.chosen(number)
        if is_sudden and node.out:
            self.world.decide(node.out[number % len(node.out)], "yes")
        self.excuse(node.out)
        self.excuse_other_recipients(node)
        self.nodes.remove(node)
        node.attempts.is_over = True
        self.case.kill(node.spool)
        if not self.nodes:
            self.start()
        self.case.take_over(self.nodes[0].spool)
        self.rest()

    def stop(self, number: int) -> None:
        """A process stops in an orderly way, and another one is there."""
        node = self.chosen(number)
        self.excuse(node.out)
        node.leave()
        self.finish(node)
        self.nodes.remove(node)
        if not self.nodes:
            self.start()
        self.rest()

    @rule(number=NUMBERS)
    def stand_still(self, number: int) -> None:
        """A process stands still until another one has its mail, and goes on."""
        if not self.is_shared:
            return
        if len(self.nodes) < 2:
            self.start()
        node = self.chosen(number)
        (other,) = (each for each in self.nodes if each is not node)
        self.excuse(node.out)
        self.excuse_other_recipients(node)
        under_way = node.under_way
        for id in under_way:  # a host may take it yet
            self.mail[id].excuses.update((OUTSIDE, OFFICE))
        self.case.end_leases(node.spool, other.spool)
        assert {*self.case.wait(node.spool.recalled(under_way))} == {*under_way}
        self.turn(other)
        self.rest()

    def finish(self, node: Node) -> None:
        """End runner and spool."""
        ended = self.case.deferred(node.runner.stop(0.0))
        for _ in range(MAX_ROUNDS):
            if ended.called:
                break
            node.clock.advance(1)
            self.case.beat(node.spool)
        assert ended.called, "the runner does not stop"
        self.case.stop(node.spool)
        node.attempts.is_over = True

    def chosen(self, number: int) -> Node:
        """One of the processes."""
        return self.nodes[number % len(self.nodes)]

    def excuse(self, out: list[Delivery]) -> None:
        """What the office has taken, and was not recorded, comes again."""
        for delivery in out:
            for id, address in copies_of(delivery):
                if self.world.taken[id, address]:
                    self.mail[id].excuses[address] += 1

    def excuse_other_recipients(self, node: Node) -> None:
        """What a host took comes again where another recipient's part was still under way.

        An attempt is recorded as a whole, when all recipients' parts are over.
        """
        for delivery in node.with_office():
            message = delivery.message
            for progress in message.progress:
                address = progress.recipient.forward_path
                is_unrecorded = address == OUTSIDE and progress.state is not State.DONE
                if is_unrecorded and self.world.taken[message.id, address]:
                    self.mail[message.id].excuses[address] += 1

    # --- mail

    @rule(number=NUMBERS, to=st.sampled_from(TO), count=st.integers(1, 3))
    def accept(self, number: int, to: tuple[Mailbox, ...], count: int) -> None:
        """Messages come, and are acknowledged."""
        node = self.chosen(number)
        for _ in range(count):
            self.accept_one(node, to)
        self.rest()

    def accept_one(self, node: Node, to: tuple[Mailbox, ...]) -> None:
        """A message comes."""
        draft = node.spool.draft()
        self.case.wait(draft.write(b"body"))
        envelope = Envelope(NULL_PATH, tuple(map(Recipient, to)))
        commit = node.spool.commit(draft, envelope, b"Subject: x\r\n\r\n", UNKNOWN_ORIGIN)
        message = self.case.wait(commit)
        self.mail[message.id] = Acknowledged(tuple((message.id, each) for each in to))
        node.runner.accept(message)

    @rule(answer=st.sampled_from((*sorted(ANSWERS), SILENCE)))
    def answer(self, answer: str) -> None:
        """From now on, hosts say this, or nothing until they say something."""
        self.world.answer = answer
        if answer != SILENCE:
            self.speak()

    def speak(self) -> None:
        """Let all hosts answer that have not."""
        for node in self.nodes:
            node.hosts.speak()
        self.rest()

    # --- the office

    @rule(number=NUMBERS, what=st.sampled_from(("connect", "leave", "take", *ANSWERS, *ANSWERS)))
    def office(self, number: int, what: str) -> None:
        """It comes, goes, takes what there is, or says what became of a message."""
        node = self.chosen(number)
        self.excuse(node.out if what in ("connect", "leave") else [])
        if what == "connect" or node.source is None:
            node.connect()
            self.take_one(node)
        elif what == "leave":
            node.leave()
        elif what == "take" or not node.out:
            for _ in range(3):
                self.take_one(node)
        else:
            self.say(node, what, number)
        self.rest()

    def take_one(self, node: Node) -> bool:
        """Send it the next one; returns whether there was one."""
        assert node.source is not None
        handing = self.case.deferred(node.source.next())
        results: list[Any] = []
        handing.addBoth(results.append)
        for _ in range(MAX_ROUNDS):
            if results:
                break
            self.turn(node)
        (delivery,) = results
        if delivery is not None:
            node.out.append(delivery)
        return delivery is not None

    def say(self, node: Node, answer: str, number: int) -> None:
        """It answers about one that it was sent."""
        assert node.source is not None
        delivery = node.out.pop(number % len(node.out))
        node.source.report(delivery, self.world.decide(delivery, answer))

    # --- a person

    def waiting(self) -> list[str]:
        """What is in the spool, and was not asked to go."""
        return sorted(id for id, known in self.mail.items() if not self.is_over(known))

    @rule(number=NUMBERS, what=st.sampled_from(("hold", "release", "delete")))
    def person(self, number: int, what: str) -> None:
        """Someone puts a message on hold, releases it, or removes it for good."""
        waiting = self.waiting()
        if not (self.is_shared and waiting):
            return
        id = waiting[number % len(waiting)]
        getattr(self.case.tool, what)([id])
        self.mail[id].is_removed = what == "delete"
        for node in self.nodes:
            if what == "release":
                node.runner.wake()
            else:
                node.runner.recall()
        self.rest()

    # --- time

    @rule(is_set=st.booleans(), number=st.integers(0, 3))
    def time(self, is_set: bool, number: int) -> None:
        """Time passes, or the wall clock is set, wrong or right again."""
        if is_set:
            self.case.set_clock((-86400.0, -3600.0, 3600.0, 86400.0)[number])
            self.rest()
        else:
            self.advance((SUSPECT_DELAY, HELD_AGAIN, 901.0, 7300.0)[number])

    def advance(self, seconds: float) -> None:
        """Let time pass for all that live."""
        self.case.advance(seconds)
        for node in self.nodes:
            node.clock.advance(seconds)
        self.rest()

    def turn(self, node: Node) -> None:
        """Let a process do what it can do now."""
        node.hear()
        node.clock.advance(0)
        self.case.beat(node.spool)

    def rest(self) -> None:
        """Let all do what they can do now."""
        quiet = 0
        for _ in range(MAX_ROUNDS):
            for node in self.nodes:
                self.turn(node)
            quiet = quiet + 1 if all(node.is_at_rest for node in self.nodes) else 0
            if quiet == 2:
                return
        raise AssertionError(f"it does not come to rest: {[str(node) for node in self.nodes]}")

    # --- what must be true

    def is_over(self, known: Acknowledged) -> bool:
        """Tell whether all of a message was taken, refused for good, or removed."""
        return known.is_removed or all(
            self.world.taken[copy] or copy in self.world.refused for copy in known.copies
        )

    @invariant()
    def nothing_is_lost(self) -> None:
        """What is not over is in the spool; nothing is twice where it need not be."""
        if not getattr(self, "nodes", None):
            return
        found = self.case.found()
        for id, known in self.mail.items():
            assert id in found or self.is_over(known), f"{id} is lost"
            for copy in known.copies:
                allowed = 1 + known.excuses[copy[1]]
                assert self.world.taken[copy] <= allowed, f"{copy} came more often"

    @invariant()
    def due_in_time(self) -> None:
        """What waits for a host is tried again soon enough."""
        if not getattr(self, "nodes", None):
            return
        for id, (state, due) in self.case.found().items():
            assert state != "waiting" or due <= self.nodes[0].spool.now() + MAX_RETRY, (id, due)

    # --- the end

    def teardown(self) -> None:
        """Hosts and office take everything, and it is over."""
        if not getattr(self, "nodes", None):
            return
        self.world.answer = "yes"
        self.speak()
        for node in self.nodes[1:]:  # the office has one link
            self.excuse(node.out)
            node.leave()
        self.rest()
        self.release_all()
        for _ in range(30):
            if not self.case.found():
                break
            self.empty()
        left = self.case.found()
        for node in list(self.nodes):
            node.leave()
            self.finish(node)
        assert not left, f"never over: {left}"

    def release_all(self) -> None:
        """Nothing is on hold any longer."""
        if self.is_shared:
            self.case.tool.release(sorted(self.case.found()))

    def empty(self) -> None:
        """The office takes what there is, and time passes for the others."""
        node = self.nodes[0]
        if node.source is None or node.out:
            self.excuse(node.out)
            node.connect()
        while self.take_one(node):
            (delivery,) = node.out
            node.out = []
            assert node.source is not None
            node.source.report(delivery, self.world.decide(delivery, "yes"))
            self.rest()
        self.advance(MAX_RETRY)


class RunnerModelContract:
    """Runners on any spool."""

    examples = 10
    is_shared = True
    now: Callable[[], float]

    def test_model(self) -> None:
        """All is as the model says, after each step, and in the end nothing is left."""
        run_machine(
            RunnerModel,
            EXAMPLES or self.examples,
            STEPS,
            is_random=bool(EXAMPLES),
            case=self,
            is_shared=self.is_shared,
        )
