"""A database that fails, and processes that stand still: nothing acknowledged is lost."""

from __future__ import annotations

import os
import pwd
import secrets
import subprocess
from dataclasses import replace
from urllib.parse import quote

import psycopg
from psycopg import errors
from twisted.internet.defer import Deferred

from bench.postgresql import as_postgres
from mta.queued import Filter, SpoolFull
from mta.session import UNKNOWN_ORIGIN
from mta.spool.database import SpoolAway
from mta.spool.postgres import wakeups, writer
from mta.spool.postgres.spool import PostgresSpool
from tests.processes import Process, need_program, temporary_folder, wait_until
from tests.spool.cases import failing
from tests.spool.contract import HEADER, LARGE, Contract, done, envelope, settlement
from tests.spool.postgres import Cluster, PostgresTestCase, own_cluster


class Case(Contract, PostgresTestCase):
    """The contract's ways to commit."""

    def backend(self, spool: PostgresSpool) -> int:
        """The server's process for the connection that commits."""
        connection = spool._writer._connection
        assert connection is not None
        return connection.info.backend_pid

    def queued(self) -> list[str]:
        """The ids of all that is in the spool."""
        return [each.id for each in self.tools().listed(Filter())]


def beats(case: Case, spool: PostgresSpool) -> bool:
    """Tell whether a process can commit."""
    try:
        case.wait(spool.beat())
    except OSError:
        return False
    return True


class UnknownTests(Case):
    """COMMIT gives no answer."""

    def commit_without_answer(self, spool: PostgresSpool, body: bytes = b"body") -> str:
        """Commit, and lose the connection after the server has committed; returns the id."""
        real = psycopg.Connection.pipeline

        def cut(connection: psycopg.Connection[object]) -> object:
            return _Cut(connection, real(connection))

        patch = self.patch(psycopg.Connection, "pipeline", cut)
        draft = spool.draft()
        for start in range(0, len(body), 65536):
            self.wait(draft.write(body[start : start + 65536]))
        with self.assertRaises(OSError):
            self.wait(spool.commit(draft, envelope(), HEADER, UNKNOWN_ORIGIN))
        patch.restore()
        return draft.id

    def test_it_is_removed(self) -> None:
        """The sender heard 451 and brings it again: of the two only the second one stays."""
        spool = self.process()
        self.commit(spool)
        for body in (b"body", LARGE):
            lost = self.commit_without_answer(spool, body)
            self.assertIn(lost, self.queued())
            again = self.commit(spool, body)
            self.assertNotIn(lost, self.queued())
            self.assertEqual(self.halves(again), (HEADER, body))
        self.assertEqual(self.sql("SELECT count(*) FROM upload"), [(0,)])
        self.assertEqual(self.sql("SELECT count(DISTINCT message) FROM chunk"), [(1,)])

    def test_others_have_it(self) -> None:
        """What another process took over meanwhile is its own."""
        spool = self.process()
        self.commit(spool)
        lost = self.commit_without_answer(spool)
        self.sql("UPDATE schedule SET owner = NULL, due = 0")
        self.commit(spool)
        self.assertIn(lost, self.queued())

    def test_a_peers_memory(self) -> None:
        """What a peer brings again after a 451 is taken."""
        spool = self.process()
        self.commit(spool)
        brought = replace(UNKNOWN_ORIGIN, turned_peer="relay", told_id="ID1")
        real = psycopg.Connection.pipeline
        patch = self.patch(
            psycopg.Connection, "pipeline", lambda connection: _Cut(connection, real(connection))
        )
        with self.assertRaises(OSError):
            self.commit(spool, origin=brought)
        patch.restore()
        self.wait(spool.beat())
        self.assertTrue(self.commit(spool, origin=brought).id)


class _Cut:
    """A pipeline whose connection breaks when the server has done all of it."""

    def __init__(self, connection: psycopg.Connection[object], pipeline: object) -> None:
        self._connection = connection
        self._pipeline = pipeline

    def __enter__(self) -> object:
        return self._pipeline.__enter__()  # type: ignore[attr-defined]

    def __exit__(self, *error: object) -> None:
        self._pipeline.__exit__(*error)  # type: ignore[attr-defined]
        self._connection.close()
        raise psycopg.OperationalError("server closed the connection unexpectedly")


class ServerCase(Case):
    """A server of the test's own."""

    def setUp(self) -> None:
        self.server = own_cluster(self)
        super().setUp()

    def cluster(self) -> Cluster:
        """See `PostgresTestCase.cluster`."""
        return self.server


class ServerTests(ServerCase):
    """A server that stops."""

    def test_it_stops_at_once(self) -> None:
        """What was acknowledged is there when it is up again; meanwhile mail is refused at MAIL."""
        spool = self.process()
        kept = self.commit(spool)
        large = self.commit(spool, LARGE)
        self.server.stop("immediate")
        with self.assertRaises(OSError):
            self.commit(spool)
        self.assertRaises(SpoolAway, spool.draft)
        with self.assertRaises(OSError):
            self.wait(spool.settle(done(kept)))
        self.assertFalse(beats(self, spool))
        self.assertIn("can't be reached", spool.failure)
        self.server.start()
        wait_until(lambda: beats(self, spool), "it beats again")
        self.assertEqual(spool.failure, "")
        self.assertEqual(sorted(self.queued()), sorted([kept.id, large.id]))
        self.wait(spool.settle(done(kept)))
        again = self.commit(spool)
        self.assertEqual(sorted(self.queued()), sorted([large.id, again.id]))
        self.assertEqual(self.halves(large), (HEADER, LARGE))

    def test_a_start_without_it(self) -> None:
        """Mail is refused at MAIL until it is there; then there are tables, and all works."""
        self.server.stop("immediate")
        spool = self.process()
        self.assertRaises(SpoolAway, spool.draft)
        self.assertFalse(beats(self, spool))
        self.assertIn("can't be reached", spool.failure)
        self.server.start()
        wait_until(lambda: beats(self, spool), "it beats")
        self.assertEqual(spool.failure, "")
        message = self.commit(spool)
        self.assertEqual(self.queued(), [message.id])
        self.assertEqual(len(self.sql("SELECT id FROM owner")), 1)

    def test_an_idle_connection(self) -> None:
        """A connection that the server closed while it was idle costs no message a 451."""
        spool = self.process()
        self.commit(spool)
        self.sql("SELECT pg_terminate_backend(%s, 5000)", self.backend(spool))
        self.commit(spool)

    def test_a_full_disk(self) -> None:
        """452, and the next message is taken when there is room."""
        spool = self.process()
        self.commit(spool)
        patch = self.patch(writer.rows, "insert", failing(errors.DiskFull("no room")))
        with self.assertRaises(SpoolFull):
            self.commit(spool)
        patch.restore()
        self.commit(spool)


class StandbyTests(ServerCase):
    """The wait for a synchronous standby is cancelled."""

    def test_a_warning_is_no_commit(self) -> None:
        """COMMIT that only warns is a 451, and what it left is removed."""
        self.assertIn("not confirmed", self.end_a_commit("pg_cancel_backend"))

    def test_terminated_in_commit(self) -> None:
        """So is one whose connection ends in the middle of it."""
        self.assertIn("closed the connection", self.end_a_commit("pg_terminate_backend"))

    def end_a_commit(self, function: str) -> str:
        """End a COMMIT that waits for a standby; returns the error that it gives."""
        spool = self.process()
        self.commit(spool)
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET synchronous_standby_names = 'nowhere'")
            connection.execute("SELECT pg_reload_conf()")
            with psycopg.connect(self.url, autocommit=True) as probe:
                wait_until(lambda: self.awaits(connection, probe), "commits wait for a standby")
            pid, answers = self.backend(spool), []
            draft = spool.draft()
            waiting = Deferred.fromCoroutine(
                spool.commit(draft, envelope(), HEADER, UNKNOWN_ORIGIN)
            )
            waiting.addBoth(answers.append)
            wait_until(lambda: is_waiting(connection, pid), "it waits")
            connection.execute("ALTER SYSTEM RESET synchronous_standby_names")
            connection.execute(f"SELECT {function}(%s)".encode(), (pid,))
            while not answers:
                self.clock.make_call()
            connection.execute("SELECT pg_reload_conf()")
        error = answers[0].value
        self.assertIsInstance(error, OSError)
        self.assertIn(draft.id, self.queued())
        wait_until(lambda: beats(self, spool), "it beats")
        self.assertNotIn(draft.id, self.queued())
        return str(error)

    def awaits(
        self, connection: psycopg.Connection[object], probe: psycopg.Connection[object]
    ) -> bool:
        """Tell whether a commit waits for a standby, and end that wait.

        The server takes over what it has read again a moment after it has said so.
        """
        pid, has_waited = probe.info.backend_pid, False
        probe.pgconn.send_query(b"SELECT pg_logical_emit_message(true, '', '')")
        while probe.pgconn.is_busy():
            if not has_waited and is_waiting(connection, pid):
                has_waited = True
                connection.execute("SELECT pg_cancel_backend(%s)", (pid,))
            probe.pgconn.consume_input()
        while probe.pgconn.get_result() is not None:
            pass
        return has_waited


def is_waiting(connection: psycopg.Connection[object], pid: int) -> bool:
    """Tell whether a backend waits for a standby."""
    query = "SELECT wait_event FROM pg_stat_activity WHERE pid = %s"
    return connection.execute(query, (pid,)).fetchone() == ("SyncRep",)


class FullDiskTests(ServerCase):
    """The database's disk is full, for real."""

    def setUp(self) -> None:
        if os.geteuid() != 0:
            self.skipTest("a small disk needs root")
        self.disk = temporary_folder(self)
        self.mount(f"size=3m,uid={pwd.getpwnam('postgres').pw_uid}")
        self.addCleanup(subprocess.run, ["umount", str(self.disk)], check=True)
        super().setUp()
        self.sql(f"CREATE TABLESPACE small LOCATION '{self.disk}'")
        self.url = self.url.replace("search_path", "default_tablespace%3Dsmall%20-csearch_path")

    def mount(self, options: str) -> None:
        """Mount the disk; skips where that can't be."""
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.disk)]
        if subprocess.run(command, check=False).returncode:
            self.skipTest("no disk can be mounted here")

    def test_full(self) -> None:
        """452; what was acknowledged stays, what is delivered is removed, the rest comes later."""
        spool = self.process()
        kept = []
        with self.assertRaises(SpoolFull):
            while True:
                kept.append(self.commit(spool, os.urandom(200_000)))
        self.assertGreater(len(kept), 3)
        self.assertEqual(self.queued(), [each.id for each in kept])
        for message in kept[1:]:
            self.wait(spool.settle(done(message)))
        with self.assertRaises(SpoolFull):
            self.wait(spool.settle(settlement(kept[0], self.now())))
        self.mount("remount,size=9m")
        self.wait(spool.settle(settlement(kept[0], self.now())))
        last = self.commit(spool, os.urandom(200_000))
        self.assertEqual(self.queued(), [kept[0].id, last.id])


class LongTransactionTests(Case):
    """Somebody else's transaction is open all the time, such as that of pg_dump."""

    def test_beside_us(self) -> None:
        """Processes start, mail comes and goes, dead ones are buried: none waits for it."""
        spool = self.process()
        kept = self.commit(spool)
        with psycopg.connect(self.url) as reader:
            reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            for table in ("format", "schedule", "message", "recipient", "owner", "chunk", "taken"):
                reader.execute(f"SELECT count(*) FROM {table}".encode())
            heir = self.process()
            self.wait(spool.settle(done(self.commit(spool, LARGE))))
            self.kill(spool)
            self.take_over(heir)
            self.assertEqual(self.due(heir), [kept.id])
            self.assertEqual(reader.execute("SELECT count(*) FROM message").fetchone(), (1,))


class StillTests(Case):
    """A process stands still past its time, and goes on."""

    def test_fenced(self) -> None:
        """Its mail is another's; what it reports then changes nothing, but done is done."""
        still, heir = self.process(), self.process()
        deferred, delivered = self.commit(still), self.commit(still)
        self.sql("UPDATE owner SET alive_until = '-infinity' WHERE id = %s", still._owner.number)
        self.take_over(heir)
        self.assertEqual(sorted(self.due(heir)), sorted([deferred.id, delivered.id]))
        self.wait(still.settle(settlement(deferred, self.now())))
        self.assertEqual(sorted(self.wait(still.recalled([deferred.id]))), [deferred.id])
        self.wait(still.settle(done(delivered)))
        self.assertEqual(self.queued(), [deferred.id])
        self.assertEqual(self.due(heir), [])
        self.wait(still.beat())
        self.assertIn("recall", self.listeners[still].heard)

    def test_it_begins_nothing(self) -> None:
        """Half a lifetime after its last beat it begins no attempt, until it has beaten."""
        spool = self.process()
        message = self.commit(spool)
        self.assertTrue(spool.begin_attempt(message.id))
        self.clock.rightNow += 31
        self.assertFalse(spool.begin_attempt(message.id))
        self.wait(spool.beat())
        self.assertTrue(spool.begin_attempt(message.id))

    def test_outage(self) -> None:
        """Processes that lived when it went away lose no mail, whichever is back first."""
        lasting, other = self.process(), self.process()
        mine = self.commit(lasting)
        # What the database sees after ten minutes away: no owner is alive.
        self.sql("UPDATE owner SET alive_until = alive_until - interval '10 minutes'")
        self.sql(
            "UPDATE owner SET alive_until = alive_until + interval '9 seconds' WHERE id = %s",
            other._owner.number,
        )
        self.assertEqual(self.wait(other.take_over()), 0)
        self.assertTrue(beats(self, lasting))
        self.assertNotIn("recall", self.listeners[lasting].heard)
        self.wait(lasting.settle(done(mine)))
        self.assertEqual(self.queued(), [])

    def test_dead_before_an_outage(self) -> None:
        """What died before it went away is taken over."""
        dead, other = self.process(), self.process()
        message = self.commit(dead)
        self.sql("UPDATE owner SET alive_until = alive_until - interval '10 minutes'")
        self.sql(
            "UPDATE owner SET alive_until = alive_until - interval '30 seconds' WHERE id = %s",
            dead._owner.number,
        )
        self.take_over(other)
        self.assertEqual(self.due(other), [message.id])

    def test_an_upload(self) -> None:
        """A large body that was swept away is never committed without its chunks."""
        spool, heir = self.process(), self.process()
        draft = spool.draft()
        self.wait(draft.write(LARGE))
        self.wait(Deferred.fromCoroutine(draft.finish()))
        self.sql("UPDATE owner SET alive_until = '-infinity' WHERE id = %s", spool._owner.number)
        self.take_over(heir)
        self.assertEqual(self.sql("SELECT count(*) FROM chunk"), [(0,)])


class WakeTests(Case):
    """Processes on other nodes are told."""

    def test_work(self) -> None:
        """A message that is free at once wakes the others, and not its own process."""
        one, other = self.process(), self.process()
        for spool in (one, other):
            self.until_heard(spool)
        message = self.commit(one)
        self.wait(one.release({message.id: 0.0}))
        self.until_heard(other)
        self.assertEqual(self.listeners[one].heard, [])

    def test_a_lost_notification(self) -> None:
        """Where none comes, the next look of another process wakes it."""
        one, other = self.process(), self.process()
        for spool in (one, other):
            self.until_heard(spool)
        self.patch(wakeups, "notify", lambda *words: None)
        message = self.commit(one)
        self.wait(one.release({message.id: 0.0}))
        self.assertEqual(self.listeners[other].heard, [])
        self.take_over(other)
        self.assertEqual(self.listeners[other].heard, ["wake"])
        self.assertEqual(self.due(other), [message.id])

    def test_tools(self) -> None:
        """What a person wants is told apart."""
        spool, tools = self.process(), self.tools()
        self.until_heard(spool)
        message = self.commit(spool)
        tools.hold([message.id])
        self.until_heard(spool, "recall")
        tools.release([message.id])
        self.until_heard(spool, "retry")

    def until_heard(self, spool: PostgresSpool, word: str = "wake") -> None:
        """Wait until a process was told."""
        heard = self.listeners[spool].heard
        while word not in heard:
            self.clock.make_call()
        heard.clear()


class PromotionTests(Case):
    """A synchronous standby takes the place of a server that is lost."""

    def setUp(self) -> None:
        self.first, self.second = Cluster("synchronous_standby_names=*"), Cluster()
        for each in (self.first, self.second):
            self.addCleanup(each.remove)
        self.first.make()
        self.first.start()
        self.second.follow(self.first)
        self.second.start()
        super().setUp()

    def cluster(self) -> Cluster:
        """See `PostgresTestCase.cluster`."""
        return self.first

    def test_promoted(self) -> None:
        """All that was acknowledged is there, and the processes find it by themselves."""
        first, second = self.first.folder, self.second.folder
        self.url = self.url.replace(quote(str(first), safe=""), quote(f"{first},{second}", safe=""))
        self.url += "&target_session_attrs=read-write"
        spool = self.process()
        acknowledged = [self.commit(spool).id for _ in range(20)]
        large = self.commit(spool, LARGE)
        self.first.stop("immediate")
        with self.assertRaises(OSError):
            self.commit(spool)
        self.second.run("pg_ctl", "promote", "-w", "-D", str(self.second.data))
        wait_until(lambda: beats(self, spool), "it beats again")
        self.assertEqual(self.queued(), sorted([*acknowledged, large.id]))
        self.assertEqual(self.halves(large), (HEADER, LARGE))
        self.wait(spool.settle(done(self.commit(spool))))


class BouncerTests(Case):
    """PgBouncer stands between, in session mode."""

    def setUp(self) -> None:
        program = need_program(self, "pgbouncer")
        super().setUp()
        database = f"b{secrets.token_hex(6)}"
        self.sql(f"CREATE DATABASE {database}")
        folder = temporary_folder(self)
        folder.chmod(0o777)
        self.configuration = folder / "pgbouncer.ini"
        self.configuration.write_text(
            f"[databases]\n* = host={self.cluster().folder} user=mta\n"
            f"[pgbouncer]\nlisten_addr=\nunix_socket_dir={folder}\nauth_type=any\n"
            f"pool_mode=session\nmax_client_conn=100\ndefault_pool_size=50\n"
        )
        command = [*as_postgres("--pdeathsig", "TERM"), program, str(self.configuration)]
        bouncer = Process(command, folder)
        self.addCleanup(bouncer.end)
        self.url = f"postgresql://mta@/{database}?host={quote(str(folder), safe='')}&port=6432"
        wait_until(self.answers, "PgBouncer answers")

    def answers(self) -> bool:
        """Tell whether it takes connections."""
        try:
            psycopg.connect(self.url).close()
        except psycopg.OperationalError:
            return False
        return True

    def test_session_mode(self) -> None:
        """Mail goes in and out, claims, wake-ups and take-over work."""
        one, other = self.process(), self.process()
        messages = [self.waiting(one) for _ in range(20)]
        self.waiting(one, body=LARGE)
        self.assertEqual(len(self.due(other)), 21)
        heard = self.listeners[one].heard
        heard.clear()
        self.wait(other.release({messages[0].id: 0.0}))
        while "wake" not in heard:
            self.clock.make_call()
        self.kill(other)
        self.take_over(one)
        self.assertEqual(len(self.due(one)), 21)
