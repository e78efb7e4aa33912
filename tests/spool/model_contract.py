"""A spool against a model that is a table, with processes that die, stop and take over.

Hypothesis chooses what happens.  Any spool that several processes share can run it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from mta.queued import EVERYWHERE, Filter, Message, State
from tests.spool.contract import DAY, HEADER, LARGE, Contract, done, ids, settlement
from tests.state_machines import run_machine

EXAMPLES = 12
STEPS = 25  # of each
BODIES = (b"body", LARGE)
WAITS = (0.0, 60.0, 3600.0)  # seconds


@dataclass
class Entry:
    """The model of one message: who has it, or when it is due, or for whom it waits."""

    body: bytes
    owner: int = -1  # the number of a process; below 0: none
    due: float = 0.0
    is_held: bool = False
    released_by: int = -1


class Model(RuleBasedStateMachine):
    """What is done to the spool, and to the table."""

    case: Any

    @initialize()
    def begin(self) -> None:
        """A new store with one process."""
        self.case.setUp()
        self.entries: dict[str, Entry] = {}
        self.messages: dict[str, Message] = {}
        self.processes: dict[int, Any] = {}
        self.count = 0
        self.start()

    def teardown(self) -> None:
        """The end of the processes."""
        for spool in getattr(self, "processes", {}).values():
            self.case.stop(spool)

    # --- processes

    @precondition(lambda self: len(self.processes) < 3)
    @rule()
    def start(self) -> None:
        """Another process, which looks for what dead ones left."""
        self.case.advance(1)  # ids of owners are times
        self.processes[self.count] = self.case.process()
        self.take_over(self.count)
        self.count += 1

    @precondition(lambda self: len(self.processes) > 1)
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        """A process is killed, and another one takes over."""
        number = self.chosen(data)
        self.case.kill(self.processes.pop(number))
        self.take_over(min(self.processes))
        self.ended(number)

    @precondition(lambda self: len(self.processes) > 1)
    @rule(data=st.data())
    def stop(self, data: st.DataObject) -> None:
        """A process stops in an orderly way."""
        number = self.chosen(data)
        self.case.stop(self.processes.pop(number))
        self.ended(number)

    def take_over(self, number: int) -> None:
        """Look for what dead processes left."""
        self.case.take_over(self.processes[number])

    def ended(self, number: int) -> None:
        """What it had is due, and so is what it had released for later."""
        for entry in self.entries.values():
            if number in (entry.owner, entry.released_by):
                entry.owner, entry.released_by, entry.due = -1, -1, 0.0

    def chosen(self, data: st.DataObject) -> int:
        """One of the processes."""
        return data.draw(st.sampled_from(sorted(self.processes)))

    # --- mail

    @rule(data=st.data(), body=st.sampled_from(BODIES))
    def commit(self, data: st.DataObject, body: bytes) -> None:
        """A message comes."""
        number = self.chosen(data)
        message = self.case.commit(self.processes[number], body)
        self.entries[message.id] = Entry(body, owner=number)
        self.messages[message.id] = message

    @rule(data=st.data())
    def lease(self, data: st.DataObject) -> None:
        """A process leases all that is due, and nothing else."""
        number, now = self.chosen(data), self.case.now()
        found = self.case.wait(self.processes[number].lease_due(100))
        due = {id for id, entry in self.entries.items() if entry.owner < 0 and entry.due <= now}
        assert set(ids(found)) == due, (ids(found), due)
        self.leased(number, found)

    @rule(data=st.data())
    def lease_held(self, data: st.DataObject) -> None:
        """A process leases what is held for a peer, and nothing else."""
        number = self.chosen(data)
        found = self.case.wait(
            self.processes[number].lease_held("office", {EVERYWHERE}, 100, math.inf)
        )
        held = {id for id, entry in self.entries.items() if entry.owner < 0 and entry.is_held}
        assert set(ids(found)) == held, (ids(found), held)
        self.leased(number, found)

    def leased(self, number: int, found: Any) -> None:
        """Each is whole."""
        for message in found:
            entry = self.entries[message.id]
            assert self.case.halves(message) == (HEADER, entry.body)
            entry.owner, entry.released_by = number, -1
            self.messages[message.id] = message

    def mine(self, data: st.DataObject) -> tuple[Any, str, Entry]:
        """A process, and a message that it has."""
        id = data.draw(st.sampled_from(sorted(i for i, e in self.entries.items() if e.owner >= 0)))
        entry = self.entries[id]
        return self.processes[entry.owner], id, entry

    @precondition(lambda self: any(entry.owner >= 0 for entry in self.entries.values()))
    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        """An attempt after which nothing is left to do."""
        spool, id, _ = self.mine(data)
        self.case.wait(spool.settle(done(self.messages[id])))
        del self.entries[id]

    @precondition(lambda self: any(entry.owner >= 0 for entry in self.entries.values()))
    @rule(data=st.data(), seconds=st.sampled_from(WAITS))
    def defer(self, data: st.DataObject, seconds: float) -> None:
        """An attempt that is to be repeated."""
        spool, id, entry = self.mine(data)
        entry.owner, entry.due, entry.is_held = -1, self.case.now() + seconds, False
        waiting = settlement(self.messages[id], entry.due, state=State.WAITING, peer="")
        self.case.wait(spool.settle(waiting))

    @precondition(lambda self: any(entry.owner >= 0 for entry in self.entries.values()))
    @rule(data=st.data())
    def hold(self, data: st.DataObject) -> None:
        """An attempt after which the message waits for a peer."""
        spool, id, entry = self.mine(data)
        entry.owner, entry.is_held, entry.due = -1, True, self.case.now() + DAY
        held = settlement(self.messages[id], entry.due, state=State.HELD, peer="office")
        self.case.wait(spool.settle(held))

    @precondition(lambda self: any(entry.owner >= 0 for entry in self.entries.values()))
    @rule(data=st.data(), seconds=st.sampled_from(WAITS))
    def release(self, data: st.DataObject, seconds: float) -> None:
        """A lease that ends without an attempt."""
        spool, id, entry = self.mine(data)
        entry.due = self.case.now() + seconds
        entry.owner, entry.released_by = -1, entry.owner if seconds else -1
        self.case.wait(spool.release({id: entry.due}))

    @rule(seconds=st.sampled_from((1.0, 61.0, 3601.0)))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.case.advance(seconds)

    @invariant()
    def all_is_there(self) -> None:
        """Nothing that was acknowledged is missing, nothing that is done is there."""
        if getattr(self, "processes", None):
            found = {entry.message.id for entry in self.case.tools().find(Filter())}
            assert found == set(self.entries), (found, set(self.entries))


class ModelContract(Contract):
    """Several processes, and whatever happens to them."""

    tools: Callable[[], Any]
    kill: Callable[[Any], None]
    stop: Callable[[Any], None]
    take_over: Callable[[Any], None]

    def test_model(self) -> None:
        """The spool is as the model, after each step."""
        run_machine(Model, EXAMPLES, STEPS, case=self)
