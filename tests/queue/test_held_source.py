"""Held mail, and the source that hands it out on a turned connection."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import capturedLogs
from zope.interface.verify import verifyObject

from mta.interfaces import IHeldSource
from mta.queue.held_look import POLL
from mta.queue.held_source import BATCH_SIZE
from mta.queue.offers import MAX_DEFERRED, PAUSE_AFTER_DEFERRAL
from mta.queued import Delivery, Message, Settlement, State
from mta.settings import DAY, HOUR, Peer
from tests.queue.runners import (
    ARRIVED,
    LATER,
    NO,
    OFFICE,
    RELAYED,
    B,
    RunnerTests,
    SlowContent,
    message,
)


class HeldTests(RunnerTests):
    """Mail that waits for a peer, and the source that hands it out."""

    def source(self, linger: float = 0.0, *domains: str) -> IHeldSource:
        return self.runner.open_held("office", domains or ("office.example",), linger)

    def next(self, source: IHeldSource) -> Delivery | None:
        return self.successResultOf(Deferred.fromCoroutine(source.next()))

    def waiting_next(self, source: IHeldSource) -> Deferred[Delivery | None]:
        async def wait() -> Delivery | None:
            while (delivery := await source.next()) is None:
                if not await source.wait():
                    return None
            return delivery

        return Deferred.fromCoroutine(wait())

    def taken(self, source: IHeldSource) -> list[str]:
        """The ids of all that the source hands out, each relayed."""
        ids = []
        while (delivery := self.next(source)) is not None:
            ids.append(delivery.message.id)
            source.report(delivery, [RELAYED] * len(delivery.targets))
        return ids

    def hold(self, *ids: str) -> None:
        for id in ids:
            self.accept_address(id, "x@office.example")

    def test_leased_again_while_it_is_out(self) -> None:
        """Others had it while we stood still: what comes back is of the lease that we have now."""
        self.hold("1")
        source = self.source()
        delivery = self.next(source)
        assert delivery is not None
        self.queue.put(self.queue.leased.pop("1"))
        self.runner.start()
        self.clock.advance(1)
        self.assertIn("1", self.queue.leased)
        source.report(delivery, [RELAYED])
        source.close()
        self.clock.advance(1)
        self.assertEqual([State.DONE], self.states())
        self.assertEqual({}, self.queue.leased)

    def test_held(self) -> None:
        """A message with a hold hop waits for its peer until `hold_for` is over."""
        self.hold("1")
        (progress,) = self.last.progress
        self.assertEqual((State.HELD, "office"), (progress.state, progress.peer))
        self.assertEqual(ARRIVED + 20 * DAY, self.last.due)
        self.assertEqual(0, self.last.attempts)

    def test_expires(self) -> None:
        """Held mail that nobody fetched bounces when its time is over."""
        self.hold("1")
        self.runner.start()
        self.run_until(20 * DAY - 10)
        self.assertEqual([], self.queue.notices)
        self.run_until(20 * DAY + 10)
        self.assertEqual([b"x@office.example failed"], [n.content for n in self.queue.notices])

    def test_warning(self) -> None:
        """Where the peer's entry says so, the sender of held mail is warned, once."""
        self.peers = {"office": Peer("office", warn_after=DAY)}
        self.runner = self.make()
        self.hold("1")
        self.runner.start()
        self.run_until(DAY + 10)
        self.assertEqual([b"x@office.example held"], [n.content for n in self.queue.notices])
        self.run_until(10 * DAY)
        self.assertEqual(1, len(self.queue.notices))

    def test_route_changed(self) -> None:
        """Held mail that is due takes the route that the configuration has now."""
        self.hold("1")
        self.router.hops["office.example"] = B
        self.runner.start()
        self.run_until(20 * DAY + 10)
        self.assertEqual([(B, "1", ["x@office.example"])], self.agent.deliveries)

    def test_source(self) -> None:
        """A source provides IMailSource."""
        verifyObject(IHeldSource, self.source())

    def test_oldest_first(self) -> None:
        """All that waits is handed out, oldest first and in small portions."""
        ids = [f"{number:03}" for number in range(2 * BATCH_SIZE + 5)]
        self.hold(*ids)
        source = self.source()
        first = self.next(source)
        assert first is not None
        self.assertEqual(BATCH_SIZE, len(self.queue.leased))
        source.report(first, [RELAYED])
        self.assertEqual(ids[1:], self.taken(source))
        self.clock.advance(0)
        self.assertEqual(({}, {}), (self.queue.waiting, self.queue.leased))

    def test_own_domains_only(self) -> None:
        """A peer is never handed mail for other domains than it may have."""
        self.router.hops["branch.example"] = OFFICE
        self.accept_address("1", "x@branch.example")
        self.accept_address("2", "x@office.example", "x@branch.example")
        source = self.source()
        delivery = self.next(source)
        assert delivery is not None
        self.assertEqual(["x@office.example"], [str(target.address) for target in delivery.targets])
        source.report(delivery, [RELAYED])
        self.assertIsNone(self.next(source))
        self.assertEqual([State.DONE, State.HELD], self.states())

    def test_routed_anew(self) -> None:
        """What no longer waits for the peer takes its ordinary way."""
        self.hold("1")
        self.router.hops["office.example"] = B
        self.assertEqual([], self.taken(self.source()))
        self.assertEqual([(B, "1", ["x@office.example"])], self.agent.deliveries)

    def test_refused_by_the_peer(self) -> None:
        """A peer's refusal makes a notice."""
        self.hold("1")
        source = self.source()
        source.report(self.next(source), [NO])
        self.assertEqual([b"x@office.example failed"], [n.content for n in self.queue.notices])

    def test_deferred_by_the_peer(self) -> None:
        """What a peer deferred isn't handed out again at once, but on its next connection."""
        self.hold("1", "2")
        source = self.source()
        for _ in range(2):
            source.report(self.next(source), [LATER])
        self.assertIsNone(self.successResultOf(self.waiting_next(source)))
        source.close()
        self.assertEqual([State.HELD], self.states())
        self.assertEqual("451 4.3.0 Try later", self.last.progress[0].history[-1].reply)
        self.clock.advance(1)
        self.assertEqual(["1", "2"], self.taken(self.source()))

    def test_deferred_on_a_held_link(self) -> None:
        """What a peer deferred is offered again on the same connection after a while."""
        self.hold("1")
        source = self.source(HOUR)
        source.report(self.next(source), [LATER])
        waiting = self.waiting_next(source)
        self.run_until(PAUSE_AFTER_DEFERRAL - 1)
        self.assertNoResult(waiting)
        self.run_until(PAUSE_AFTER_DEFERRAL + POLL + 1)
        self.assertEqual("1", self.successResultOf(waiting).message.id)

    def test_all_deferred(self) -> None:
        """A peer that defers everything is offered each message once, and none is kept leased."""
        ids = [f"{number:03}" for number in range(MAX_DEFERRED + 30)]
        self.hold(*ids)
        source = self.source(HOUR)
        self.assertEqual(ids, self.deferred(source))
        self.assertEqual({}, self.queue.leased)

    def deferred(self, source: IHeldSource) -> list[str]:
        """The ids of all that the source hands out, each deferred."""
        ids = []
        while (delivery := self.next(source)) is not None:
            ids.append(delivery.message.id)
            source.report(delivery, [LATER])
        return ids

    def test_newer_mail_behind_what_the_peer_defers(self) -> None:
        """It does not wait, however much the peer defers, on a held link and on the next one."""
        stuck = [f"{number:03}" for number in range(250)]
        self.hold(*stuck)
        for linger in (HOUR, 0.0):
            source = self.source(linger)
            self.deferred(source)
            new = f"9{linger:04.0f}"
            self.hold_elsewhere(new)
            self.runner.wake()
            self.clock.advance(1)
            found = self.next(source)
            assert found is not None
            self.assertEqual(new, found.message.id)
            source.report(found, [RELAYED])
            source.close()
            self.clock.advance(1)
        self.hold("99999")
        first = self.next(self.source())
        assert first is not None
        self.assertEqual("99999", first.message.id)

    def test_what_a_peer_defers_takes_turns(self) -> None:
        """No more than a portion of it is offered again at once, the longest untried first."""
        stuck = [f"{number:03}" for number in range(2 * MAX_DEFERRED + 50)]
        self.hold(*stuck)
        offered: list[str] = []
        self.assertEqual(stuck, self.deferred(source := self.source(HOUR)))
        for minute in range(1, 4):
            waiting = self.waiting_next(source)
            self.run_until(minute * (POLL + 1))
            first = self.successResultOf(waiting)
            source.report(first, [LATER])
            portion = [first.message.id, *self.deferred(source)]
            self.assertLessEqual(len(portion), MAX_DEFERRED + BATCH_SIZE)
            offered += portion
        self.assertEqual(stuck, offered[: len(stuck)])

    def test_a_peer_that_recovers(self) -> None:
        """What it deferred comes in one go when it takes mail again."""
        ids = [f"{number:03}" for number in range(3 * MAX_DEFERRED)]
        self.hold(*ids)
        self.deferred(source := self.source(HOUR))
        waiting = self.waiting_next(source)
        self.run_until(POLL + 1)
        first = self.successResultOf(waiting)
        source.report(first, [RELAYED])
        self.assertEqual(ids, [first.message.id, *self.taken(source)])

    def test_partly_deferred(self) -> None:
        """What a peer took is recorded at once, whatever it deferred beside it."""
        self.accept_address("1", "x@office.example", "y@office.example")
        source = self.source(HOUR)
        source.report(self.next(source), [RELAYED, LATER])
        self.assertEqual([State.DONE, State.HELD], self.states())

    def test_broken_link(self) -> None:
        """What a broken connection leaves unsettled goes on waiting, and nothing else does."""
        self.hold("1", "2", "3", "4")
        source = self.source()
        first, second, third = (self.next(source) for _ in range(3))
        source.report(first, [RELAYED])
        source.report(second, [LATER])
        source.close()
        self.assertEqual(["2", "3", "4"], sorted(self.queue.waiting))
        self.clock.advance(1)
        self.assertEqual(["2", "3", "4"], self.taken(self.source()))
        source.report(third, [RELAYED])  # too late, and harmless

    def test_what_is_not_yet_recorded(self) -> None:
        """Who asks how much is held waits until what was just accepted is known to be."""

        def wait(peer: str) -> Deferred[None]:
            return Deferred.fromCoroutine(self.runner.record_held(peer, 5.0))

        self.successResultOf(wait("office"))
        recorded: Deferred[None] = Deferred()
        settle = self.queue.settle

        async def slow(settlement: Settlement) -> Sequence[Message]:
            await recorded
            return await settle(settlement)

        self.queue.settle = slow  # type: ignore[method-assign]
        self.runner.accept(self.queue.lend(message("1", "x@office.example")))
        waiting, impatient = wait("office"), wait("office")
        self.successResultOf(wait("other"))
        self.clock.advance(4.9)
        self.assertNoResult(waiting)
        recorded.callback(None)
        self.successResultOf(waiting)
        self.successResultOf(impatient)
        self.assertEqual([State.HELD], self.states())

    def test_what_can_not_be_recorded(self) -> None:
        """Nobody waits longer than he would, and it is recorded all the same."""
        recorded: Deferred[Sequence[Message]] = Deferred()
        self.queue.settle = lambda settlement: recorded  # type: ignore[method-assign, assignment]
        self.accept_address("1", "x@office.example")
        waiting = Deferred.fromCoroutine(self.runner.record_held("office", 5.0))
        self.clock.advance(5)
        self.successResultOf(waiting)
        recorded.callback([])
        self.assertEqual(0, len(self.runner._active))
        self.assertEqual([], self.flushLoggedErrors())

    def test_alias_into_a_held_domain(self) -> None:
        """What waits is the final address: an alias of another domain is fetched with it."""
        self.router.aliases["chief@a.example"] = ["chief@office.example"]
        self.accept(message("1", "chief@a.example"))
        self.assertEqual(["1"], self.taken(self.source()))

    def test_forward_into_a_held_domain(self) -> None:
        """A forward is handed out though the look whether it goes in a circle takes its time."""
        self.router.is_ours = lambda domain: domain == "a.example"
        self.router.aliases["x@a.example"] = ["x@office.example"]
        content = SlowContent()
        self.accept_address("1", "x@a.example", content=content)
        content.arrived.callback(None)
        self.clock.advance(0)
        self.assertEqual([State.HELD], self.states())
        for linger in (0.0, HOUR):
            content.arrived = Deferred()
            source = self.source(linger)
            waiting = Deferred.fromCoroutine(source.next())
            self.assertNoResult(waiting)
            content.arrived.callback(None)
            delivery = self.successResultOf(waiting)
            assert delivery is not None
            source.close()
            self.clock.advance(1)

    def test_lingers(self) -> None:
        """A lingering source hands out new mail at once, without a detour by the spool."""
        waiting = self.waiting_next(source := self.source(HOUR))
        self.clock.advance(0)
        self.assertNoResult(waiting)
        self.hold("1")
        delivery = self.successResultOf(waiting)
        assert delivery is not None
        self.assertEqual([], self.queue.settlements)
        source.report(delivery, [RELAYED])
        self.clock.advance(0)
        self.assertEqual([State.DONE], self.states())

    def test_lingers_for_others(self) -> None:
        """Mail that another process held goes out when we are told of it."""
        waiting = self.waiting_next(self.source(HOUR))
        self.hold_elsewhere("1")
        self.assertNoResult(waiting)
        self.runner.wake()
        self.assertIsNotNone(self.successResultOf(waiting))

    def test_lingers_untold(self) -> None:
        """Mail that nobody told of is found within a minute."""
        waiting = self.waiting_next(self.source(HOUR))
        self.hold_elsewhere("1")
        self.run_until(POLL)
        self.assertIsNotNone(self.successResultOf(waiting))

    def test_one_link_of_many(self) -> None:
        """Mail of another process makes one source look into the spool, of a hundred."""
        leased: list[str] = []
        real = self.queue.lease_held

        async def lease_held(
            peer: str, domains: Collection[str], limit: int, before: float
        ) -> Sequence[Message]:
            leased.append(peer)
            return await real(peer, domains, limit, before)

        waiting = {}
        for peer in (*(f"office{number}" for number in range(100)), "office"):
            waiting[peer] = self.waiting_next(self.runner.open_held(peer, ["office.example"], HOUR))
        self.queue.lease_held = lease_held  # type: ignore[method-assign]
        self.hold_elsewhere("1")
        self.runner.wake()
        self.assertIsNotNone(self.successResultOf(waiting.pop("office")))
        self.run_until(10 * POLL)
        self.assertEqual(leased, ["office"])
        for each in waiting.values():
            self.assertNoResult(each)

    def test_a_spool_that_can_not_be_read(self) -> None:
        """The mail is found by the next look."""
        waiting = self.waiting_next(self.source(HOUR))
        self.hold_elsewhere("1")
        self.queue.failure = OSError("gone")
        with capturedLogs() as events:
            self.runner.wake()
        self.assertEqual([event["error"] for event in events], ["gone"])
        self.queue.failure = None
        self.assertNoResult(waiting)
        self.run_until(POLL)
        self.assertIsNotNone(self.successResultOf(waiting))

    def test_no_link_no_look(self) -> None:
        """The last source leaves no timer behind."""
        self.source(HOUR).close()
        self.run_until(2 * POLL)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def hold_elsewhere(self, id: str) -> None:
        held = message(id, "x@office.example")
        progress = replace(
            held.progress[0], state=State.HELD, peer="office", domain="office.example"
        )
        self.queue.put(replace(held, progress=(progress,)), self.now() + DAY)

    def test_linger_ends(self) -> None:
        """Without new mail the source ends after its time, however often it was asked."""
        source = self.source(100)
        for _ in range(4):
            waiting = self.waiting_next(source)
            self.run_until(self.clock.seconds() + 24)
            waiting.cancel()
            self.failureResultOf(waiting, CancelledError)
        waiting = self.waiting_next(source)
        self.run_until(101)
        self.assertIsNone(self.successResultOf(waiting))

    def test_cancelled(self) -> None:
        """Cancelling the wait loses no mail, not even while a portion is on its way."""
        self.hold("1")
        lease, answer = self.queue.lease_held, Deferred()
        self.patch(self.queue, "lease_held", lambda *arguments: answer)
        source = self.source(HOUR)
        waiting = self.waiting_next(source)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        answer.callback(self.successResultOf(lease("office", ["office.example"], 5, self.now())))
        self.assertEqual("1", self.next(source).message.id)

    def test_burst(self) -> None:
        """Mail that comes faster than it goes keeps its order, and memory its bounds."""
        self.hold_elsewhere("000")
        source = self.source(HOUR)
        ids = [f"{number:03}" for number in range(2 * BATCH_SIZE)]
        self.hold(*ids[1:5])
        waiting = self.waiting_next(source)
        self.hold(*ids[5:])
        self.assertLessEqual(len(self.queue.leased), BATCH_SIZE)
        first = self.successResultOf(waiting)
        source.report(first, [RELAYED])
        self.assertEqual(ids, [first.message.id, *self.taken(source)])

    def test_takeover(self) -> None:
        """A second connection of a peer takes over, and the first ends with what it has out."""
        self.hold("1", "2")
        older = self.source(HOUR)
        out = self.next(older)
        assert out is not None
        self.clock.advance(1)
        newer = self.source(HOUR)
        self.assertIsNone(self.next(older))
        second = self.next(newer)
        assert second is not None
        self.assertEqual("2", second.message.id)
        older.report(out, [RELAYED])
        older.close()
        self.clock.advance(0)
        self.assertEqual(["2"], list(self.queue.leased))
        waiting = self.waiting_next(newer)
        self.hold("3")
        self.assertEqual("3", self.successResultOf(waiting).message.id)

    def test_stop(self) -> None:
        """At the end a source hands out no more, and what is out may end in the grace time."""
        self.hold("1", "2")
        source = self.source(HOUR)
        out = self.next(source)
        assert out is not None
        stopping = Deferred.fromCoroutine(self.runner.stop(10))
        self.assertIsNone(self.next(source))
        self.clock.advance(5)
        self.assertNoResult(stopping)
        source.report(out, [RELAYED])
        self.successResultOf(stopping)
        self.assertEqual(["2"], list(self.queue.waiting))
        self.assertEqual({}, self.queue.leased)

    def test_spool_trouble(self) -> None:
        """Where the spool can't be read there is no mail to hand out."""
        self.hold("1")
        self.queue.faults = 1
        self.assertEqual([], self.taken(self.source()))

    def test_no_circles(self) -> None:
        """What has come to wait under another domain doesn't go round and round."""
        self.hold(*(f"{number:03}" for number in range(BATCH_SIZE)))
        self.router.hops["branch.example"] = OFFICE
        self.router.aliases["x@office.example"] = ["x@branch.example"]
        before = len(self.queue.settlements)
        waiting = self.waiting_next(self.source(HOUR))
        self.clock.advance(1)
        self.assertNoResult(waiting)
        self.assertEqual(BATCH_SIZE, len(self.queue.settlements) - before)
