"""A reload: every setting counts, or is said to need a restart."""

from __future__ import annotations

import re
import signal
import smtplib
import socket
import ssl
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mta.config.schema import SECTIONS
from mta.inspection_settings import AllowList, BlockList
from mta.mail import Agent, Hop, Mailbox
from mta.service.effects import EFFECTS, Effect, effect_of, in_force
from mta.settings import (
    Authentication,
    CertificatePair,
    DKIMKey,
    Domain,
    Forward,
    Listener,
    Milter,
    Peer,
    Service,
    Settings,
    TLSSettings,
)
from mta.users.file import UserFile
from tests.certificates import Authority
from tests.processes import (
    DEADLINE,
    ROOT,
    Server,
    configuration,
    listener,
    local_domain,
    wait_until,
)

SETTINGS = Settings(
    "mail.example.com",
    listen=(Listener("tcp:25"), Listener("tcp:26")),
    tls=TLSSettings(
        CertificatePair(Path("c"), Path("k")),
        (CertificatePair(Path("c2"), Path("k2")),),
        Path("ca"),
        Path("client_ca"),
    ),
    resolver=(("192.0.2.53", 53),),
    domains={
        "a.example": Domain(
            "a.example",
            Hop(Agent.MX),
            forward={"x": Forward((Mailbox("y"),))},
            dkim=(DKIMKey("s", Path("k")),),
        )
    },
    routes={"b.example": Hop(Agent.MX)},
    senders={"c.example": Hop(Agent.MX)},
    authentication=Authentication(),
    peers={"office": Peer("office")},
    milters=(Milter("unix:/run/filter", "filter"),),
    block_lists=(BlockList("zen.example"),),
    allow_lists=(AllowList("known.example"),),
)


def changes(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Each setting by its key, with `value` as it is where that one is another."""
    if is_dataclass(value):
        for field in fields(value):
            if not field.init or field.name == "name":
                continue
            key = f"{place}.{field.name}" if place else field.name
            for name, changed in changes(getattr(value, field.name), key):
                yield name, replace(value, **{field.name: changed})  # type: ignore[type-var]
    elif isinstance(value, tuple) and value and is_dataclass(value[0]):
        for name, changed in changes(value[0], f"{place}[]"):
            yield name, (changed, *value[1:])
    elif isinstance(value, dict) and value and not isinstance(next(iter(value.values())), Hop):
        [(key, member)] = value.items()
        for name, changed in changes(member, f"{place}.NAME"):
            yield name, {key: changed}
    else:
        yield place, other(value)


def other(value: Any) -> Any:
    """Another value of the same kind."""
    match value:
        case bool():
            return not value
        case Enum():
            return next(member for member in type(value) if member is not value)
        case int() | float():
            return value + 1
        case str():
            return value + "x"
        case Path():
            return value / "x"
        case None:
            return frozenset({"any"})
        case frozenset():
            return value ^ {"x"}
        case dict():
            return {"x.example": Hop(Agent.DISCARD)}
        case tuple():
            return (*value, ip_network("192.0.2.1/32"))
    raise AssertionError(f"{value!r}: say what another one is")


class InForceTests(SynchronousTestCase):
    """What a reload makes of each setting."""

    def test_every_setting(self) -> None:
        """The table says when it applies; where that is at the next start, it is kept and named."""
        walked = set()
        for key, new in changes(SETTINGS):
            with self.subTest(key):
                walked.add(key)
                is_kept = effect_of(key) is Effect.NEXT_START
                settings, restart = in_force(new, SETTINGS)
                self.assertNotEqual(new, SETTINGS)
                self.assertEqual(list(restart), [key] if is_kept else [])
                self.assertEqual(settings == SETTINGS, is_kept)
                self.assertEqual(settings == new, not is_kept)
        for key in EFFECTS:
            self.assertTrue(any(each.startswith(key) for each in walked), key)

    def test_every_key_is_walked(self) -> None:
        """Whatever the configuration has is a setting that the other test changes."""
        walked = {key for key, _ in changes(SETTINGS)}
        known = {key[: match.start()] for key in walked for match in re.finditer(r"\.|\[\]|$", key)}
        known |= {"tls.certificate", "tls.key"}  # together, the pair
        known |= {"domains.NAME.dkim[].key"}  # its `file`
        known |= {"peers.NAME.seal.file", "peers.NAME.seal.key"}  # one of them is `seal`
        known |= {"spool_folder"}  # `spool` beside a database
        known |= {"milters[].name"}  # a name, as those of peers
        keys = {
            f"{section}{name}"
            for section, names in SECTIONS.items()
            for name in names
            if section not in ("HOP.", "SECRET.")
        }
        self.assertEqual(keys - known, set())

    def test_listeners(self) -> None:
        """Those that are open are served as they are now configured, whatever their order."""
        first, second = SETTINGS.listen
        new = replace(SETTINGS, listen=(second, replace(first, tls=other(first.tls))))
        settings, restart = in_force(new, SETTINGS)
        self.assertEqual(settings.listen, (new.listen[1], second))
        self.assertEqual(list(restart), [])
        for listen in ((first,), (*SETTINGS.listen, Listener("tcp:27"))):
            settings, restart = in_force(replace(SETTINGS, listen=listen), SETTINGS)
            self.assertEqual(settings.listen, SETTINGS.listen)
            self.assertEqual(list(restart), ["listen[].endpoint"])

    def test_equal_endpoints(self) -> None:
        """Where the system chooses the ports, listeners are told apart by their order."""
        twins = (Listener("tcp:0"), Listener("tcp:0", Service.SUBMISSION))
        old = replace(SETTINGS, listen=twins)
        self.assertEqual(in_force(old, old), (old, []))

    def test_documented(self) -> None:
        """The manual has the same table, where its last row is for all others."""
        page = (ROOT / "docs/config.rst").read_text("utf-8").partition("Reading it again")[2]
        documented = {}
        for line in page.split("=\n", 2)[1].splitlines():
            keys, effect = line[:49], line[49:]
            documented.update(dict.fromkeys(re.findall("``(.*?)``", keys), effect))
        self.assertLessEqual(set(documented), set(EFFECTS))
        for key, effect in EFFECTS.items():
            key = {"default_route": "routes", "database": "spool"}.get(key, key)
            text = documented.get(key, Effect.NEXT_CONNECTION.value)
            self.assertTrue(text.startswith(effect.value), f"{key}: {text}")


CONTENT = b"Subject: x\r\n\r\nbody\r\n"


class ReloadTests(SynchronousTestCase):
    """A real server reads another configuration."""

    def setUp(self) -> None:
        self.server = Server(self, configuration(hostname="old.office.example"))
        self.server.start()

    def reload(self, answer: str = "read again", **keys: Any) -> None:
        """Let it read its base with these keys in it, and wait for what it says."""
        assert self.server.process is not None
        before = len(self.server.process.output)
        self.server.configure(configuration(**{"hostname": "old.office.example"} | keys))
        self.server.process.signal(signal.SIGHUP)
        self.server.process.wait_for(answer, after=before)

    def client(self) -> smtplib.SMTP:
        """A new client that has said EHLO."""
        client = smtplib.SMTP("127.0.0.1", self.server.ports["smtp"], "c.example", timeout=DEADLINE)
        self.addCleanup(client.close)
        client.ehlo()
        return client

    def listen(self) -> tuple[socket.socket, int]:
        """A socket that somebody is to connect to, and its port."""
        listening = socket.create_server(("127.0.0.1", 0))
        listening.settimeout(DEADLINE)
        self.addCleanup(listening.close)
        return listening, listening.getsockname()[1]

    def rcpt(self, address: str) -> int:
        """The reply to this recipient."""
        client = self.client()
        client.mail("a@client.example")
        return client.rcpt(address)[0]

    def test_hostname(self) -> None:
        """In greetings, and in the notices that we write."""
        self.reload(hostname="new.office.example")
        client = self.client()
        self.assertIn(b"new.office.example", client.ehlo_resp or b"")
        client.sendmail("a@office.example", "b@office.example", CONTENT, (), ["NOTIFY=SUCCESS"])
        [notice] = self.server.wait_for_mail("office.example/a")
        self.assertIn(b"MAILER-DAEMON@new.office.example", notice)
        self.assertNotIn(b"old.office.example", notice)

    def test_limits(self) -> None:
        """The size of messages, and the room that is left on the disk."""
        self.reload(limits={"message_size": "3MiB"})
        self.assertEqual(self.client().esmtp_features["size"], str(3 * 2**20))
        self.reload(limits={"free_space": "1023GiB"})
        self.assertRaises(
            smtplib.SMTPResponseException, self.server.send, CONTENT, "b@office.example"
        )
        self.reload()
        self.server.send(CONTENT, "b@office.example")

    def test_who_may_what(self) -> None:
        """Domains, routes, relaying, proxies and users."""
        self.assertEqual(self.rcpt("x@elsewhere.example"), 250)
        self.reload(relay={"networks": [], "xclient": ["127.0.0.1"]})
        self.assertEqual(self.rcpt("x@elsewhere.example"), 550)
        self.assertTrue(self.client().has_extn("xclient"))
        self.reload(domains={"new.example": local_domain()})
        self.assertEqual(self.rcpt("x@new.example"), 250)
        self.reload(routes={"no.example": "reject:No"})
        self.assertEqual(self.rcpt("x@no.example"), 550)
        UserFile(self.server.folder / "others.yaml").add("alice", "wonderland")
        self.assertFalse(self.client().has_extn("auth"))
        self.reload(users="others.yaml")
        self.assertTrue(self.client().has_extn("auth"))

    def test_listeners(self) -> None:
        """What an open listener is for, and when it has TLS."""
        self.assertFalse(self.client().has_extn("starttls"))
        listeners = [listener("smtp") | {"tls": "opportunistic"}]
        self.reload(listen=listeners)
        client = self.client()
        self.assertTrue(client.has_extn("starttls"))
        self.reload(listen=[listener("lmtp")])
        with socket.create_connection(("127.0.0.1", self.server.ports["smtp"]), DEADLINE) as lmtp:
            lmtp.recv(1000)
            lmtp.sendall(b"LHLO c.example\r\n")
            self.assertIn(b"250", lmtp.recv(1000))

    def test_certificates(self) -> None:
        """Another certificate is shown."""
        shown = set()
        authority = Authority(self.server.folder)
        for name in ("a.example", "b.example"):
            pair = authority.issue(name)
            self.reload(
                listen=[listener("smtp") | {"tls": "opportunistic"}],
                tls={"certificate": str(pair.certificate), "key": str(pair.key)},
            )
            client = self.client()
            client.starttls(context=ssl._create_unverified_context())
            assert isinstance(client.sock, ssl.SSLSocket)
            shown.add(client.sock.getpeercert(binary_form=True))
        self.assertEqual(len(shown), 2)

    def test_where_mail_goes(self) -> None:
        """Routes by sender, for mail that waits as well, and name servers."""
        listening, port = self.listen()
        self.reload(
            routes={"default": "hold:x"},
            peers={"x": {"connect": "smtp://h", "every": "0s", "domains": ["x.example"]}},
        )
        self.server.send(CONTENT, "x@elsewhere.example")
        self.reload(senders={"client.example": f"smtp://127.0.0.1:{port}"})
        self.server.send(CONTENT, "x@elsewhere.example")
        listening.accept()[0].close()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as name_server:
            name_server.bind(("127.0.0.1", 0))
            name_server.settimeout(DEADLINE)
            self.reload(resolver=[f"127.0.0.1:{name_server.getsockname()[1]}"])
            self.server.send(CONTENT, "x@nowhere.example")
            self.assertIn(b"nowhere", name_server.recv(1000).lower())

    def test_peers(self) -> None:
        """One that is new, or elsewhere, is dialled at the first reload, and the old no more."""
        for name in ("provider", "provider", "another"):
            listening, port = self.listen()
            peer = {"connect": f"smtp://127.0.0.1:{port}", "domains": ["office.example"]}
            self.reload(peers={name: peer | {"every": "1h"}})
            connection, _ = listening.accept()
            connection.sendall(b"220 provider.example\r\n")
            self.assertIn(b"EHLO old.office.example", connection.recv(1000))
            connection.close()

    def test_the_log(self) -> None:
        """Format, level and file."""
        self.reload(answer='"message": "[^"]* accepted|read again', log={"format": "json"})
        self.server.send(CONTENT, "b@office.example")
        assert self.server.process is not None
        self.server.process.wait_for('"message": "[0-9A-Z]{13} accepted')
        self.reload(log={"file": "mta.log"})
        self.server.send(CONTENT, "b@office.example")
        file = self.server.folder / "mta.log"
        wait_until(lambda: "accepted" in file.read_text(), "the event is in the file")

    def test_what_takes_a_restart(self) -> None:
        """One line names all of it."""
        self.reload(
            answer="what changed of `spool`, `listen\\[\\].endpoint`, `metrics`, `queue.workers` "
            "takes a restart",
            spool="elsewhere",
            listen=[listener("smtp"), listener("lmtp")],
            metrics="tcp:0:interface=127.0.0.1",
            queue={"workers": 2},
        )
        self.server.send(CONTENT, "b@office.example")
        self.server.wait_for_mail("office.example/b")

    def test_what_can_not_be(self) -> None:
        """A broken file, key or user base is one line each, and what was before stays."""
        (self.server.folder / "broken.pem").write_text("no certificate")
        (self.server.folder / "broken.yaml").write_text("{")
        (self.server.folder / "of-another.yaml").mkdir()
        authority = Authority(self.server.folder)
        pairs = [authority.issue(name) for name in ("a.example", "b.example")]
        for keys, words in (
            ({"hostnme": "x"}, "unknown key 'hostnme'"),
            ({"tls": {"certificate": "broken.pem", "key": "broken.pem"}}, "no PEM certificate"),
            (
                {"tls": {"certificate": str(pairs[0].certificate), "key": str(pairs[1].key)}},
                "is not the key of",
            ),
            ({"users": "broken.yaml"}, "this is not YAML"),
            ({"users": "of-another.yaml"}, "Is a directory"),
        ):
            with self.subTest(words):
                before = len(self.server.log)
                self.reload("the configuration stays as it was", hostname="new.example", **keys)
                said = self.server.log[before:]
                self.assertEqual(len(said.splitlines()), 2, said)
                self.assertIn(words, said)
                self.assertIn(b"old.office.example", self.client().ehlo_resp or b"")
