"""Delivery into commands, and the agents that need nobody."""

from __future__ import annotations

import errno
import os
import shlex
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.task import Clock, deferLater
from twisted.logger import capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from mta.delivery import command_process
from mta.delivery.command_process import KILL_AFTER, LEFTOVER_TIMEOUT, MAX_OUTPUT
from mta.delivery.local import DiscardAgent, RejectAgent
from mta.delivery.pipe import TIMEOUT, PipeAgent
from mta.interfaces import IDeliveryAgent
from mta.mail import NULL_PATH, Agent, Hop, Mailbox, Outcome, Reply, Status
from mta.queued import Target
from mta.session import LOCAL_ADDRESS, Origin
from mta.testing import ALICE, TEXT, FakeContent, FakeMailSource, delivery
from tests.processes import temporary_folder

FINAL = (
    b"Return-Path: <carol@partner.example>\nDelivered-To: alice@example.com\n"
    b"Subject: test\n\nHello\n"
)


def is_alive(pid: int) -> bool:
    """Whether a process runs: neither gone nor waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def hop(command: str) -> Hop:
    """The hop of a command."""
    return Hop(Agent.PIPE, command)


class ProcessTests(TestCase):
    """With real commands."""

    timeout = 30.0

    def setUp(self) -> None:
        self.folder = temporary_folder(self)

    async def run_script(self, script: str, *arguments: str, **more: Any) -> Outcome:
        """Deliver to a shell script, which runs in our folder."""
        command = shlex.join(["sh", "-c", f"cd {self.folder}; {script}", "sh", *arguments])
        mail = FakeMailSource(delivery(hop(command), **more))
        await PipeAgent(reactor).deliver(hop(command), mail)
        return mail.outcome

    async def test_delivered(self) -> None:
        """The message in its final form is on the standard input; status 0 is success."""
        outcome = await self.run_script("cat >mail")
        self.assertEqual(str(outcome.reply), "250 2.0.0 Delivered to sh")
        self.assertEqual(outcome.status, Status.DELIVERED)
        self.assertEqual((self.folder / "mail").read_bytes(), FINAL)

    async def test_delivered_to_the_same_address_before(self) -> None:
        """It is no loop: a server in front of us may have said so already."""
        content = FakeContent(b"Delivered-To: alice@example.com\r\n" + TEXT)
        outcome = await self.run_script("cat >mail", content=content)
        self.assertEqual(outcome.status, Status.DELIVERED)

    async def test_content_that_takes_its_time(self) -> None:
        """A message that is read from the disk comes later than the wish for it."""

        class Slow(FakeContent):
            async def header(self) -> bytes:
                header, _ = await deferLater(  # type: ignore[arg-type]
                    reactor, 0, lambda: (TEXT, b"")
                )
                return header

            async def body(self) -> AsyncIterator[bytes]:
                yield await deferLater(reactor, 0, lambda: b"more\r\n")  # type: ignore[arg-type]

        outcome = await self.run_script("cat >mail", content=Slow(TEXT))
        self.assertEqual(outcome.status, Status.DELIVERED)
        self.assertEqual((self.folder / "mail").read_bytes(), FINAL + b"more\n")

    async def test_large(self) -> None:
        """A large message gets through piece by piece, to a command that takes its time."""
        pieces = [b"A: b\r\n\r\n", *([b"x" * 250_000] * 8)]
        await self.run_script("sleep 0.1; wc -c >size", content=FakeContent(*pieces))
        trace = FINAL.index(b"Subject")
        self.assertEqual(int((self.folder / "size").read_text()), trace + 6 + 2_000_000)

    async def test_environment(self) -> None:
        """It holds what the envelope says, and nothing of ours."""
        environment = await self.environment(to=[Mailbox("a b", "example.com")])
        expected = {
            "SENDER": "carol@partner.example",
            "RECIPIENT": '"a b"@example.com',
            "LOCAL": "a b",
            "DOMAIN": "example.com",
            "ORIGINAL_RECIPIENT": '"a b"@example.com',
            "EXTENSION": "",
            "QUEUE_ID": "A1",
        }
        self.assertEqual({**environment, **expected}, environment)
        self.assertLessEqual(set(environment), {*expected, "PATH", "PWD", "OLDPWD", "SHLVL", "_"})

    async def environment(self, **more: Any) -> Mapping[str, str]:
        """What a command finds there."""
        await self.run_script("env >env", **more)
        lines = (self.folder / "env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)

    async def test_client(self) -> None:
        """The client that handed us the message is named, as far as it is known."""
        origin = Origin("192.0.2.1", hello="mail.partner.example", protocol="ESMTPS")
        environment = await self.environment(origin=origin)
        expected = {
            "CLIENT_HELO": "mail.partner.example",
            "CLIENT_ADDRESS": "192.0.2.1",
            "CLIENT_PROTOCOL": "ESMTPS",
        }
        self.assertEqual({**environment, **expected}, environment)
        client = b"Received: from mail.partner.example ([192.0.2.1]) by x with ESMTPS id A1\r\n"
        for other in (
            await self.environment(content=FakeContent(client + TEXT)),
            await self.environment(origin=Origin(LOCAL_ADDRESS, user="0", service="sendmail")),
        ):
            self.assertFalse(expected.keys() & other.keys(), "the word of another program")
        told = Origin("192.0.2.1", told_by="vps")
        self.assertEqual((await self.environment(origin=told))["CLIENT_ADDRESS"], "192.0.2.1")
        local = await self.environment(origin=replace(origin, address=LOCAL_ADDRESS))
        self.assertEqual(local["CLIENT_ADDRESS"], "localhost")

    async def test_no_family_left(self) -> None:
        """Whom the command has started ends with it when its time is over."""
        command = f"sh -c 'cd {self.folder}; sleep 600 & echo $! >child; touch begun; sleep 600'"
        mail = FakeMailSource(delivery(hop(command)))
        await PipeAgent(reactor, timeout=0.5).deliver(hop(command), mail)
        self.assertEqual(mail.outcome.status, Status.DEFERRED)
        child = int((self.folder / "child").read_text())
        for _ in range(100):
            if not is_alive(child):
                break
            await deferLater(reactor, 0.05)
        self.assertFalse(is_alive(child))

    async def test_whom_it_leaves_behind(self) -> None:
        """A child that keeps the output open is nobody whom the message waits for."""
        self.patch(command_process, "LEFTOVER_TIMEOUT", 0.1)
        outcome = await self.run_script("cat >mail; sleep 600 & echo $! >child; exit 0")
        self.addCleanup(os.kill, int((self.folder / "child").read_text()), signal.SIGKILL)
        self.assertEqual(outcome.status, Status.DELIVERED)

    async def test_no_such_program_inside(self) -> None:
        """A script whose own program is missing can be put right, so the message waits."""
        outcome = await self.run_script("no-such-program")
        self.assertEqual(outcome.status, Status.DEFERRED)

    async def test_arguments(self) -> None:
        """Placeholders are filled in within an argument; no shell looks at them."""
        address = Mailbox("$(touch x); {sender} 'é", "example.com")
        await self.run_script(
            'printf "%s\\n" "$@" >arguments',
            *("{sender}", "--to={recipient}", "{local}", "{domain}", "{user}"),
            to=[address],
        )
        self.assertEqual(
            (self.folder / "arguments").read_text().splitlines(),
            [
                "carol@partner.example",
                f"--to={address}",
                "$(touch x); {sender} 'é",
                "example.com",
                "{user}",
            ],
        )

    async def test_temporary_failure(self) -> None:
        """EX_TEMPFAIL defers, in the command's own words from both its outputs."""
        outcome = await self.run_script("echo come back; echo later >&2; exit 75")
        self.assertEqual(outcome.status, Status.DEFERRED)
        self.assertEqual(outcome.reply.code, 451)
        self.assertEqual(set(outcome.reply.lines), {"come back", "later"})

    async def test_failure(self) -> None:
        """Other statuses fail, with the code that fits."""
        for status, enhanced in ((67, "5.1.1"), (77, "5.7.0"), (1, "5.3.0")):
            outcome = await self.run_script(f"exit {status}")
            self.assertEqual(outcome.status, Status.FAILED)
            self.assertEqual(
                outcome.reply, Reply(554, enhanced, (f"sh ended with status {status}",))
            )

    async def test_output_is_bounded(self) -> None:
        """Only the beginning of a long story is kept, without control characters."""
        outcome = await self.run_script("printf 'a\\033\\007b\\r\\n'; yes | head -c 100000; exit 1")
        self.assertEqual(outcome.reply.lines[:2], ("a b", "y"))
        self.assertLess(len(outcome.reply.text), MAX_OUTPUT)

    async def test_command_that_does_not_listen(self) -> None:
        """A command may end without reading: its status counts."""
        outcome = await self.run_script("exit 0", content=FakeContent(*([b"x" * 250_000] * 8)))
        self.assertEqual(outcome.status, Status.DELIVERED)

    async def test_signal(self) -> None:
        """A command that was killed may do better next time."""
        outcome = await self.run_script("kill -9 $$")
        self.assertEqual(str(outcome.reply), "451 4.3.0 sh was ended by signal 9")
        self.assertEqual(outcome.status, Status.DEFERRED)

    async def test_unreadable_spool(self) -> None:
        """A message that can't be read to its end never looks complete to the command."""
        broken = FakeContent(TEXT, failure=OSError(errno.EIO, "broken"))
        outcome = await self.run_script("cat >/dev/null && touch done", content=broken)
        self.assertEqual(outcome.status, Status.DEFERRED)
        self.assertFalse((self.folder / "done").exists())

    async def test_missing_command(self) -> None:
        """A command that is not there defers, and the log says so."""
        for command in ("no-such-command-1", "'", ""):
            mail = FakeMailSource(delivery(hop(command)))
            with capturedLogs() as events:
                await PipeAgent(reactor).deliver(hop(command), mail)
            self.assertEqual(mail.outcome.status, Status.DEFERRED)
            self.assertEqual(len(events), 1)


class Process:
    """The transport of a process that does nothing by itself."""

    pid = None  # as long as there is none

    def __init__(self, full_after: bytes) -> None:
        self.steps: list[str] = []
        self.input = b""
        self.has_exited = False
        self._full_after = full_after

    def write(self, data: bytes) -> None:
        """Remember it."""
        self.input += data
        if data == self._full_after:
            self._producer.pauseProducing()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Remember whom to tell."""
        self._producer = producer

    def unregisterProducer(self) -> None:
        """Nothing."""

    def closeStdin(self) -> None:
        """Remember it."""
        self.steps.append("close")

    def signalProcess(self, name: str) -> None:
        """Remember it."""
        if self.has_exited:
            raise ProcessExitedAlready
        self.steps.append(name)

    def loseConnection(self) -> None:
        """Remember it."""
        self.steps.append("lose")


class FakeReactor(Clock):
    """Starts processes that are none.

    `refusal` is raised where it is set.  After `full_after` was written, there is no room.
    """

    def __init__(self) -> None:
        super().__init__()
        self.processes: list[Process] = []
        self.protocols: list[Any] = []
        self.commands: list[list[bytes]] = []
        self.environments: list[Mapping[bytes, bytes]] = []
        self.refusal: OSError | None = None
        self.full_after = b""

    def spawnProcess(
        self, protocol: Any, executable: str, args: Sequence[bytes], env: Mapping[bytes, bytes]
    ) -> None:
        """The agent calls this."""
        if self.refusal is not None:
            raise self.refusal
        self.processes.append(Process(self.full_after))
        self.protocols.append(protocol)
        program = args.index(b"setsid") + 1 if b"setsid" in args else 0
        self.commands.append([args[program].rpartition(b"/")[2], *args[program + 1 :]])
        self.environments.append(env)
        protocol.makeConnection(self.processes[-1])

    def end(self, error: Exception | None = None) -> None:
        """The newest process ends."""
        self.protocols[-1].processEnded(Failure(error or ProcessDone(0)))


class PipeAgentTests(SynchronousTestCase):
    """Time, and what is not for commands."""

    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.agent = PipeAgent(self.reactor)

    def deliver(self, command: str = "cat", **more: Any) -> FakeMailSource:
        """Begin a delivery."""
        mail = FakeMailSource(delivery(hop(command), **more))
        self.running = Deferred.fromCoroutine(self.agent.deliver(hop(command), mail))
        return mail

    def test_interface(self) -> None:
        """The agent is a delivery agent."""
        self.assertTrue(verifyObject(IDeliveryAgent, self.agent))

    def test_one_run_for_each_target(self) -> None:
        """Two recipients are two runs, one after the other."""
        mail = self.deliver("cat {recipient}", to=[ALICE, Mailbox("bob", "example.com")])
        self.assertEqual(len(self.reactor.processes), 1)
        self.reactor.end()
        self.reactor.end(ProcessTerminated(67))
        self.successResultOf(self.running)
        self.assertEqual(
            self.reactor.commands,
            [[b"cat", b"alice@example.com"], [b"cat", b"bob@example.com"]],
        )
        self.assertEqual(
            [outcome.status for outcome in mail.outcomes["A1"]],
            [Status.DELIVERED, Status.FAILED],
        )
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_too_long(self) -> None:
        """A command that takes too long is asked to end, then killed; the message waits."""
        mail = self.deliver()
        (process,) = self.reactor.processes
        self.reactor.advance(TIMEOUT)
        self.assertEqual(process.steps, ["close", "TERM"])
        self.reactor.advance(KILL_AFTER)
        self.assertEqual(process.steps, ["close", "TERM", "KILL", "lose"])
        self.reactor.end(ProcessTerminated(signal=9))
        self.assertEqual(str(mail.outcome.reply), "451 4.3.0 cat took too long")
        self.assertEqual(mail.outcome.status, Status.DEFERRED)

    def test_pipes_that_stay_open(self) -> None:
        """Where the command has ended and its children keep its output, we let go of it."""
        mail = self.deliver()
        (process,) = self.reactor.processes
        self.reactor.advance(TIMEOUT - 1)
        process.has_exited = True
        self.reactor.protocols[-1].processExited(Failure(ProcessDone(0)))
        self.reactor.advance(LEFTOVER_TIMEOUT)
        self.assertEqual(process.steps, ["close", "lose"])
        self.reactor.end()
        self.assertEqual(mail.outcome.status, Status.DELIVERED)

    def test_waits_for_room(self) -> None:
        """What the command does not take yet is not read either."""
        self.reactor.full_after = b"two"
        self.deliver(content=FakeContent(b"A: b\r\n\r\n", b"one", b"two", b"three"))
        (process,), (protocol,) = self.reactor.processes, self.reactor.protocols
        self.assertTrue(process.input.endswith(b"\n\nonetwo"))
        protocol.resumeProducing()
        self.assertTrue(process.input.endswith(b"\n\nonetwothree"))

    def test_deaf(self) -> None:
        """A command that closes its input while we wait gets no more."""
        self.reactor.full_after = b"two"
        self.deliver(content=FakeContent(b"A: b\r\n\r\n", b"one", b"two", b"three"))
        self.reactor.protocols[0].inConnectionLost()
        self.assertTrue(self.reactor.processes[0].input.endswith(b"onetwo"))

    def test_stopped(self) -> None:
        """When the service stops, the command does not take a part for the whole."""
        self.deliver()
        self.running.cancel()
        self.failureResultOf(self.running)
        self.assertEqual(self.reactor.processes[0].steps, ["close", "KILL", "lose"])

    def test_address_like_an_option(self) -> None:
        """An address that would become an option fails; where it can't, it is welcome."""
        to = [Mailbox("-rf", "example.com")]
        mail = self.deliver("rm {local}", to=to)
        self.assertEqual(mail.outcome.reply.enhanced, "5.1.3")
        self.deliver("cat --for={local} -f{recipient} x{local}", to=to)
        self.assertEqual(len(self.reactor.processes), 1)

    def test_nul(self) -> None:
        """What no argument can hold fails."""
        mail = self.deliver(to=[Mailbox("a\0b", "example.com")])
        self.assertEqual(mail.outcome.status, Status.FAILED)

    def test_null_reverse_path(self) -> None:
        """It is an empty argument."""
        self.deliver("cat {sender} x", reverse_path=NULL_PATH)
        self.assertEqual(self.reactor.commands, [[b"cat", b"", b"x"]])

    def test_extension(self) -> None:
        """What was cut off the address as a detail is in the environment."""
        named, final = Mailbox("Alice+news", "example.com"), Target(0, ALICE, hop("cat"))
        more = replace(delivery(hop("cat"), to=[named]), targets=(final,))
        Deferred.fromCoroutine(self.agent.deliver(hop("cat"), FakeMailSource(more)))
        (environment,) = self.reactor.environments
        self.assertEqual(b"news", environment[b"EXTENSION"])
        self.assertEqual(b"Alice+news@example.com", environment[b"ORIGINAL_RECIPIENT"])

    def test_no_process(self) -> None:
        """Where the system has no process left, messages wait, and the log says so once."""
        self.reactor.refusal = OSError(errno.EAGAIN, "none left")
        with capturedLogs() as events:
            for _ in range(3):
                self.assertEqual(self.deliver().outcome.status, Status.DEFERRED)
        self.assertEqual([event["reason"] for event in events], ["none left"])


class LocalTests(SynchronousTestCase):
    """Discard and reject."""

    def outcome(self, agent: Any, where: Hop) -> Outcome:
        """What an agent makes of a message."""
        verifyObject(IDeliveryAgent, agent)
        mail = FakeMailSource(delivery(where))
        self.successResultOf(Deferred.fromCoroutine(agent.deliver(where, mail)))
        return mail.outcome

    def test_discard(self) -> None:
        """What is discarded is delivered."""
        outcome = self.outcome(DiscardAgent(), Hop(Agent.DISCARD))
        self.assertEqual(outcome.status, Status.DELIVERED)

    def test_reject(self) -> None:
        """What is rejected fails with the text of the configuration."""
        outcome = self.outcome(RejectAgent(), Hop(Agent.REJECT, "Moved away"))
        self.assertEqual(outcome, Outcome(Status.FAILED, Reply(550, "5.7.1", ("Moved away",))))
