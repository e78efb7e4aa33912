"""The configuration: what each value means, and the line that each mistake gets."""

import json
import os
import re
import string
from dataclasses import fields, replace
from ipaddress import ip_network
from pathlib import Path
from textwrap import dedent

import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.endpoints import serverFromString
from twisted.internet.testing import MemoryReactor
from twisted.trial.unittest import SynchronousTestCase

from mta.config import REMOVED, ConfigurationError, EditRejected, edited, load, schema
from mta.config.hops import PORTS
from mta.config.schema import SECTIONS
from mta.mail import Agent, Hop, Mailbox, Security
from mta.routing import Router
from mta.settings import (
    DAY,
    Authentication,
    CertificatePair,
    DKIMKey,
    Domain,
    Forward,
    Judgement,
    JunkUse,
    KeyState,
    Limits,
    Listener,
    ListenerTLS,
    Log,
    OnDNSError,
    Peer,
    Queue,
    Relay,
    Service,
    Settings,
    TLSSettings,
)
from mta.smtp.errors import Refusal

EXAMPLE = re.compile(r"^( *)\.\. code-block:: yaml\n\n((?:\1 +.*\n|\n)+)", re.MULTILINE)
ROOT = Path(__file__).parent.parent.parent
LEAST = "hostname: mail.example.com\nroutes: {}\n"
PRINT = "AB" * 32


class ConfigTestCase(SynchronousTestCase):
    """Tests that write a configuration file and load it."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).resolve()
        self.folder.mkdir()
        self.file = self.folder / "mta.yaml"
        self.environ: dict[str, str] = {}

    def load(self, text: str) -> Settings:
        """Load a file with this text."""
        self.file.write_text(dedent(text), "utf-8")
        return load(self.file, self.environ)

    def problems(self, text: str) -> list[str]:
        """The problems of a file with this text, as LINE:COLUMN: TEXT."""
        error = self.assertRaises(ConfigurationError, self.load, text)
        self.assertEqual([str(problem) for problem in error.problems], str(error).split("\n"))
        return [line.removeprefix(f"{self.file}:") for line in str(error).split("\n")]

    def write(self, name: str, text: str = "") -> Path:
        """Write a file beside the configuration."""
        path = self.folder / name
        path.write_text(text)
        return path


class ContractTests(ConfigTestCase):
    """The file that shows every key in every form."""

    def setUp(self) -> None:
        super().setUp()
        text = (ROOT / "tests/config/contract.yaml").read_text("utf-8")
        for path in ("/etc/mta/cert.pem", "/etc/mta/key.pem", "/etc/ssl/certs/ca-certificates.crt"):
            text = text.replace(path, str(self.write(Path(path).name)))
        self.settings = self.load(text)

    def test_it_means_what_it_says(self) -> None:
        """Every key of the contract reaches the settings."""
        office, provider = "office.example", "relay.example.net"
        maildir = Hop(Agent.MAILDIR, "/var/mail/{domain}/{local}")
        alice, bob = Mailbox("alice", "example.com"), Mailbox("bob", "example.com")
        expected = Settings(
            hostname="mail.example.com",
            spool="/var/spool/mta",
            listen=(
                Listener("tcp:25", Service.SMTP, ListenerTLS.OPPORTUNISTIC),
                Listener("tcp:587", Service.SUBMISSION, ListenerTLS.REQUIRED),
                Listener("tcp:465", Service.SUBMISSION, ListenerTLS.IMPLICIT),
                Listener("tcp:366", Service.ODMR, ListenerTLS.OPPORTUNISTIC),
                Listener("unix:/run/mta/lmtp.sock", Service.LMTP, ListenerTLS.OFF),
            ),
            tls=TLSSettings(
                CertificatePair(self.folder / "cert.pem", self.folder / "key.pem"),
                ca=self.folder / "ca-certificates.crt",
            ),
            domains={
                "example.com": Domain(
                    "example.com",
                    maildir,
                    frozenset({"alice", "bob"}),
                    {
                        "postmaster": (alice,),
                        "sales": (alice, bob, Mailbox("carol", "partner.example")),
                    },
                    alice,
                    "+",
                ),
                office: Domain(office, Hop(Agent.HOLD, "office"), None, mailboxes_elsewhere=True),
            },
            routes={
                "partner.example": Hop(Agent.SMTP, "10.0.0.5", 2525),
                ".internal.example": Hop(Agent.LMTP, "10.0.0.6", 24),
            },
            default_route=Hop(Agent.MX),
            relay=Relay((ip_network("127.0.0.0/8"), ip_network("::1/128"))),
            users=str(self.folder / "users.yaml"),
            peers={
                "office": Peer(
                    "office",
                    (office,),
                    "office",
                    hold_for=20 * DAY,
                    etrn=Hop(Agent.SMTP, "10.1.2.3", 25),
                ),
                "provider": Peer(
                    "provider",
                    (office,),
                    connect=Hop(
                        *(Agent.SMTP, provider, 465, True),
                        security=Security.VERIFY,
                        user="office",
                        secret="SECRET",
                    ),
                ),
            },
        )
        for field in fields(Settings):
            with self.subTest(field.name):
                self.assertEqual(getattr(self.settings, field.name), getattr(expected, field.name))

    def test_the_defaults_are_the_ones_shown(self) -> None:
        """A file with nothing but what is needed means the same where the contract has defaults."""
        least = self.load(LEAST)
        for name in (
            "spool",
            "resolver",
            "default_route",
            "relay",
            "users",
            "queue",
            "limits",
            "log",
        ):
            with self.subTest(name):
                self.assertEqual(getattr(least, name), getattr(self.settings, name))


class ExampleTests(SynchronousTestCase):
    """The files in etc/ load as they stand."""

    def test_demonstration(self) -> None:
        """It listens on this machine alone, stays in ../var, and lets nothing out."""
        settings = load(ROOT / "etc/demo.yaml", {})
        self.assertEqual(
            [listener.endpoint for listener in settings.listen],
            [f"tcp:{port}:interface=127.0.0.1" for port in (2525, 2587, 2366)],
        )
        self.assertEqual(settings.spool, str(ROOT / "var/spool"))
        self.assertEqual(settings.users, str(ROOT / "var/users.yaml"))
        self.assertEqual(
            settings.domains["demo.example"].deliver.next_hop,
            str(ROOT / "var/mail/{domain}/{local}"),
        )
        self.assertIs(settings.default_route.agent, Agent.REJECT)

    def test_ordinary_server(self) -> None:
        """It is an MX and a submission server."""
        settings = load(ROOT / "etc/mta.yaml", {})
        self.assertEqual(
            {listener.service for listener in settings.listen}, {Service.SMTP, Service.SUBMISSION}
        )
        self.assertIs(settings.default_route.agent, Agent.MX)


HOPS = {
    "mx": Hop(Agent.MX),
    "discard": Hop(Agent.DISCARD),
    "smtp://host": Hop(Agent.SMTP, "host", 25),
    "smtp://host.example/": Hop(Agent.SMTP, "host.example", 25),
    "smtp://my_host:2525": Hop(Agent.SMTP, "my_host", 2525),
    "smtp://[2001:db8::1]": Hop(Agent.SMTP, "2001:db8::1", 25),
    "smtp://[::1]:2525": Hop(Agent.SMTP, "::1", 2525),
    "smtps://host": Hop(Agent.SMTP, "host", 465, True),
    "smtp://u:s@host": Hop(Agent.SMTP, "host", 25, user="u", secret="s"),
    "smtps://u%40x:%3A%2f%25:s@10.0.0.1:1": Hop(
        *(Agent.SMTP, "10.0.0.1", 1, True), user="u@x", secret=":/%:s"
    ),
    "lmtp://host": Hop(Agent.LMTP, "host", 24),
    "lmtp://[::1]:2424": Hop(Agent.LMTP, "::1", 2424),
    "lmtp+unix:/run/lmtp": Hop(Agent.LMTP, "unix:/run/lmtp"),
    "lmtp+unix:run/lmtp": Hop(Agent.LMTP, "unix:FOLDER/run/lmtp"),
    "maildir:/var/mail/{domain}/{local}": Hop(Agent.MAILDIR, "/var/mail/{domain}/{local}"),
    "maildir:../mail/{address}": Hop(Agent.MAILDIR, "PARENT/mail/{address}"),
    "pipe:/usr/bin/sort -u": Hop(Agent.PIPE, "/usr/bin/sort -u"),
    "hold:office": Hop(Agent.HOLD, "office"),
    "'reject:No mail here, sorry'": Hop(Agent.REJECT, "No mail here, sorry"),
    "{to: mx, tls: verify}": Hop(Agent.MX, security=Security.VERIFY),
    f"{{to: 'smtp://h', pin: 'sha256:{'AB' * 32}'}}": Hop(
        Agent.SMTP, "h", 25, security=Security.VERIFY, pin="ab" * 32
    ),
    "{to: 'smtp://h', tls: off}": Hop(Agent.SMTP, "h", 25, security=Security.OFF),
    "{to: 'smtp://h', user: u, secret: s}": Hop(Agent.SMTP, "h", 25, user="u", secret="s"),
    "{to: 'smtps://h', user: u, secret: {file: secret}, tls: verify}": Hop(
        *(Agent.SMTP, "h", 465, True, Security.VERIFY), user="u", secret="from a file"
    ),
    "{to: 'smtp://h', user: 1, secret: {env: SECRET}}": Hop(
        *(Agent.SMTP, "h", 25), user="1", secret="from the environment"
    ),
}


class ValueTests(ConfigTestCase):
    """The forms of single values."""

    def setUp(self) -> None:
        super().setUp()
        self.write("secret", "from a file\r\nand no further\n")
        self.environ["SECRET"] = "from the environment"

    def with_key(self, section: str, key: str, text: str) -> object:
        """One setting of a section, read from this text."""
        settings = self.load(f"{LEAST}{section}: {{{key}: {text}}}\n")
        return getattr(getattr(settings, section), key)

    def test_next_hops(self) -> None:
        """Each form of a next hop, and a next hop's own text is read as itself."""
        peers = "peers: {office: {user: office, domains: [partner.example]}}"
        for text, expected in HOPS.items():
            with self.subTest(text):
                settings = self.load(
                    f"hostname: h.example\n{peers}\nroutes:\n  partner.example: {text}\n"
                )
                hop = settings.routes["partner.example"]
                next_hop = expected.next_hop.replace("FOLDER", str(self.folder))
                next_hop = next_hop.replace("PARENT", str(self.folder.parent))
                self.assertEqual(hop, replace(expected, next_hop=next_hop))

    def test_durations(self) -> None:
        """A number and a unit; a bare number is seconds."""
        for text, seconds in {
            "90s": 90,
            "5m": 300,
            "4h": 14400,
            "5d": 432000,
            "7": 7,
            "0": 0,
            "0s": 0,
            "1.5h": 5400,
            "'20 m'": 1200,
        }.items():
            with self.subTest(text):
                self.assertEqual(self.with_key("queue", "warn_after", text), seconds)

    def test_sizes(self) -> None:
        """A number and a unit; a bare number is octets."""
        for text, octets in {
            "1000": 1000,
            "512KiB": 512 * 1024,
            "50MiB": 50 * 1024**2,
            "1GiB": 1024**3,
            "1.5KiB": 1536,
        }.items():
            with self.subTest(text):
                self.assertEqual(self.with_key("limits", "message_size", text), octets)

    @given(st.integers(1, 10**9), st.sampled_from([("KiB", 2**10), ("MiB", 2**20), ("", 1)]))
    def test_any_size(self, number: int, unit: tuple[str, int]) -> None:
        """A size is exact, whatever the number, up to a tebibyte."""
        octets = number * unit[1]
        if octets <= 2**40:
            found = self.with_key("limits", "message_size", f"{number}{unit[0]}")
            self.assertEqual(found, octets)

    def test_words_that_yaml_takes_for_truth_values(self) -> None:
        """``off`` is a word where a word is wanted."""
        settings = self.load(f"{LEAST}listen: [{{endpoint: 'tcp:25', tls: off}}]\n")
        self.assertIs(settings.listen[0].tls, ListenerTLS.OFF)

    def test_endpoints(self) -> None:
        """Each kind of endpoint is one to Twisted, with an absolute path if it has any."""
        for text, expected in {
            "tcp:25": "tcp:25",
            "tcp:0:interface=127.0.0.1": "tcp:0:interface=127.0.0.1",
            "tcp:port=25": "tcp:port=25",
            r"tcp6:25:interface=\:\:1": r"tcp6:25:interface=\:\:1",
            "unix:/run/s:mode=660": "unix:/run/s:mode=660",
            "unix:address=/run/s": "unix:/run/s",
            r"unix:a\:b=c": rf"unix:{self.folder}/a\:b\=c",
            "haproxy:tcp:25": "haproxy:tcp:25",
            "haproxy:unix:s": f"haproxy:unix:{self.folder}/s",
        }.items():
            with self.subTest(text):
                settings = self.load(f"{LEAST}listen:\n  - endpoint: {text}\n")
                self.assertEqual(settings.listen[0].endpoint, expected)
                serverFromString(MemoryReactor(), settings.listen[0].endpoint)

    def test_commands(self) -> None:
        """Placeholders are words of their own, also behind the code of a shell."""
        for command in (
            "/bin/deliver {sender} {recipient} -d {local} --domain={domain}",
            "dovecot-lda -f {sender} -d {recipient} -local={local}",
            "sh -c 'notify \"$1\"' x {local}",
            "python3 -m module {recipient}",
            "/usr/bin/shipmail {local}",
        ):
            with self.subTest(command):
                text = (
                    f"{LEAST}domains: {{a.example: {{deliver: {json.dumps('pipe:' + command)}}}}}"
                )
                self.assertEqual(self.load(text).domains["a.example"].deliver.next_hop, command)

    def test_endpoint_of_systemd(self) -> None:
        """A socket that systemd opened is left for it to name."""
        settings = self.load(f"{LEAST}listen:\n  - endpoint: systemd:domain=INET:index=0\n")
        self.assertEqual(settings.listen[0].endpoint, "systemd:domain=INET:index=0")

    def test_tls_depends_on_the_service(self) -> None:
        """A listener that says nothing of TLS is as safe as its service allows."""
        for service, tls in {
            "smtp": "opportunistic",
            "submission": "required",
            "lmtp": "off",
            "odmr": "opportunistic",
        }.items():
            with self.subTest(service):
                settings = self.load(
                    f"{LEAST}listen: [{{endpoint: 'tcp:1', service: {service}}}]\n"
                )
                self.assertIs(settings.listen[0].tls, ListenerTLS(tls))

    def test_default_listeners(self) -> None:
        """Without ``listen``: SMTP and submission; with a peer that dials in, ODMR too."""
        usual = ["tcp:25", "tcp:587", "tcp:465"]
        office = "office: {user: office}"
        provider = "provider: {connect: 'smtps://h', domains: [example.com]}"
        for peers, expected in {
            "": usual,
            provider: usual,
            office: [*usual, "tcp:366"],
            f"{office}, {provider}": [*usual, "tcp:366"],
        }.items():
            with self.subTest(peers):
                settings = self.load(f"{LEAST}peers: {{{peers}}}\n")
                self.assertEqual([listener.endpoint for listener in settings.listen], expected)
        self.assertEqual(self.load(f"{LEAST}listen: []\n").listen, ())

    def test_name_servers(self) -> None:
        """An address, and a port behind it; IPv6 with a port stands in brackets."""
        settings = self.load(
            f'{LEAST}resolver: [192.0.2.1, 192.0.2.1:5353, "::1", "[::1]", "[2001:db8::1]:54"]\n'
        )
        self.assertEqual(
            settings.resolver,
            (("192.0.2.1", 53), ("192.0.2.1", 5353), ("::1", 53), ("::1", 53), ("2001:db8::1", 54)),
        )

    def test_networks(self) -> None:
        """A block may be written with any of its addresses, and an address is a block of one."""
        self.assertEqual(
            self.with_key("relay", "networks", "[192.0.2.7/24, 10.0.0.1, '2001:db8::1/32']"),
            tuple(map(ip_network, ("192.0.2.0/24", "10.0.0.1/32", "2001:db8::/32"))),
        )

    def test_fingerprints(self) -> None:
        """Colons and the case of letters don't matter."""
        colons = ":".join(["AB"] * 32)
        settings = self.load(
            f"""\
            hostname: h.example
            peers:
              office: {{certificate: "sha256:{colons}"}}
              provider: {{connect: "smtps://h", domains: [a.example], pin: SHA256:{PRINT}}}
            """
        )
        self.assertEqual(settings.peers["office"].certificate, PRINT.lower())
        self.assertEqual(settings.peers["provider"].pin, PRINT.lower())

    def test_paths(self) -> None:
        """A relative path starts from the folder of the file, however that was named."""
        settings = self.load(f"{LEAST}spool: spool/here\nusers: dovecot:auth\n")
        self.assertEqual(settings.spool, str(self.folder / "spool/here"))
        self.assertEqual(settings.users, f"dovecot:{self.folder}/auth")
        named = load(Path(os.path.relpath(self.file)), {})
        self.assertEqual(named.spool, settings.spool)

    def test_certificates(self) -> None:
        """Several pairs, and who may issue certificates of clients."""
        a, b = self.write("a.pem"), self.write("b.pem")
        settings = self.load(
            f"""\
            {LEAST.splitlines()[0]}
            routes: {{}}
            tls:
              certificates:
                - {{certificate: a.pem, key: b.pem}}
                - {{certificate: b.pem, key: a.pem}}
              client_ca: a.pem
            """
        )
        pairs = (CertificatePair(a, b), CertificatePair(b, a))
        self.assertEqual(settings.tls, TLSSettings(None, pairs, client_ca=a))

    def test_domain(self) -> None:
        """Names are in lower case; a bare name is in its own domain."""
        settings = self.load(
            """\
            hostname: Mail.Example.COM
            domains:
              Example.com:
                mailboxes: [Alice, böb]
                aliases: {Sales: [ALICE, BöB, Carol@Other.example], all: sales+x}
                catch_all: Carol@Other.example
                subaddress: ""
            """
        )
        self.assertEqual(settings.hostname, "mail.example.com")
        here = "example.com"
        carol = Mailbox("Carol", "other.example")
        expected = Domain(
            here,
            Hop(Agent.MAILDIR, "/var/mail/{domain}/{local}"),
            frozenset({"alice", "böb"}),
            {
                "sales": (Mailbox("alice", here), Mailbox("böb", here), carol),
                "all": (Mailbox("sales+x", here),),
            },
            carol,
            "",
        )
        self.assertEqual(settings.domains, {here: expected})

    def test_mailboxes_of_others(self) -> None:
        """Where something else knows the mailboxes, all are taken unless some are named."""
        for text, expected in {
            "": frozenset(),
            "deliver: 'maildir:/m'": frozenset(),
            "deliver: 'maildir:/m', mailboxes: any": None,
            "deliver: 'lmtp://h'": None,
            "deliver: 'lmtp://h', mailboxes: [alice]": frozenset({"alice"}),
        }.items():
            with self.subTest(text):
                settings = self.load(f"hostname: h.example\ndomains: {{a.example: {{{text}}}}}\n")
                self.assertEqual(settings.domains["a.example"].mailboxes, expected)

    def test_peer_that_is_not_verified(self) -> None:
        """What a peer demands of TLS is what its hop demands."""
        settings = self.load(
            """\
            hostname: h.example
            peers:
              provider:
                connect: {to: smtp://h, user: u, secret: s}
                tls: off
                domains: [.a.example]
                send: false
            """
        )
        peer = settings.peers["provider"]
        self.assertEqual(
            peer.connect,
            Hop(Agent.SMTP, "h", 25, security=Security.OFF, user="u", secret="s"),
        )
        self.assertEqual((peer.domains, peer.send), ((".a.example",), False))

    def test_keys_to_sealed_mail(self) -> None:
        """The public ones are for a peer that dials in, the private ones for one that we dial."""
        settings = self.load(
            """\
            hostname: h.example
            peers:
              office: {user: office, seal: {file: office.age.pub}}
              provider: {connect: "smtps://h", domains: [a.example], seal: {key: /etc/p.age}}
              other: {user: other}
            """
        )
        folder = str(self.file.parent)
        self.assertEqual(
            {name: peer.seal for name, peer in settings.peers.items()},
            {"office": f"{folder}/office.age.pub", "provider": "/etc/p.age", "other": ""},
        )

    def test_mail_held_for_a_peer_that_we_dial(self) -> None:
        """Any mail may wait for it: its domains are those that it has mail for."""
        settings = self.load(
            """\
            hostname: h.example
            peers:
              provider: {connect: "smtps://h", domains: [a.example]}
            routes:
              b.example: hold:provider
              default: hold:provider
            """
        )
        self.assertEqual(settings.routes["b.example"], settings.default_route)

    def test_nothing_is_an_empty_mapping(self) -> None:
        """A section whose every line is a comment has its defaults."""
        settings = self.load(f"{LEAST}queue:\nlimits:\n  # errors: 3\npeers:\n")
        self.assertEqual((settings.queue, settings.limits), (Queue(), Limits()))

    def test_byte_order_mark(self) -> None:
        """A mark that some editors put first is no part of the text."""
        self.assertEqual(self.load("\ufeff" + LEAST).hostname, "mail.example.com")

    def test_anchors(self) -> None:
        """A value may be named once and used again."""
        settings = self.load(
            """\
            hostname: h.example
            domains:
              a.example: &usual {mailboxes: [alice]}
              b.example: *usual
            """
        )
        self.assertEqual(settings.domains["b.example"].mailboxes, {"alice"})


HOST = "hostname: h.example\n"
DOMAIN = HOST + "domains:\n  a.example:\n    "
ROUTE = HOST + "routes:\n  default: "


class MistakeTests(ConfigTestCase):
    """What is wrong gets one line, with its place and what was expected."""

    def setUp(self) -> None:
        super().setUp()
        self.write("empty")
        (self.folder / "latin").write_bytes(b"\xe9t\xe9\n")

    def test_each(self) -> None:
        """Each mistake of ``config_mistakes.txt`` alone: exactly this line."""
        text = (ROOT / "tests/config/config_mistakes.txt").read_text("utf-8")
        cases = re.findall(r"((?:^\|.*\n)+)((?:^> .*\n)+)", text, re.M)
        self.assertGreater(len(cases), 100)
        wrong = []
        for file, expected in cases:
            lines = re.sub("^> ", "", expected.replace("FOLDER", str(self.folder)), flags=re.M)
            found = self.problems(re.sub(r"^\| ?", "", file, flags=re.M))
            if found != lines.splitlines():
                wrong.append(file + "\n".join(found))
        self.assertFalse(wrong, "\n\n".join(wrong))

    def test_characters(self) -> None:
        """What can't be seen in a file has its place too."""
        self.assertEqual(
            self.problems(LEAST + "a: \x07"), ["3:4: found a control character, expected text"]
        )
        self.assertEqual(
            self.problems(HOST + "\troutes: {}"),
            [
                "2:1: not YAML: while scanning for the next token, "
                "found character '\\t' that cannot start any token"
            ],
        )

    def test_depth(self) -> None:
        """Lists in lists come to an end before Python's stack does."""
        self.assertEqual(
            self.problems(LEAST + "a: " + "[" * 2000),
            ["3:23: not YAML: expected no more than 20 levels"],
        )

    def test_all_at_once(self) -> None:
        """All problems of a file are found, in its order."""
        self.assertEqual(
            self.problems(
                """\
                hostname: mail.example.com
                spol: /x
                listen:
                  - endpoint: tcp:x
                  - service: smpt
                domains:
                  a.example:
                    mailboxes: [a@b, '']
                    deliver: hold:nobody
                queue: {retry: [1x, 2m, 3y], workers: 0}
                peers:
                  office: {}
                """
            ),
            [
                "2:1: unknown key 'spol', did you mean 'spool'?",
                "4:15: 'x' is not a port, expected tcp:PORT",
                "5:14: 'smpt' is none of the choices, did you mean 'smtp'?",
                "8:17: 'a@b' is not a mailbox name, expected one such as alice (without @)",
                "8:22: '' is not a mailbox name, expected one such as alice (without @)",
                "10:17: found '1x', expected a duration such as 90s, 5m, 4h or 5d",
                "10:25: found '3y', expected a duration such as 90s, 5m, 4h or 5d",
                "10:39: found '0', expected a whole number from 1 to 1024",
                "12:11: the peer 'office' can't prove who it is, expected 'user' or 'certificate'",
            ],
        )

    def test_references_among_other_problems(self) -> None:
        """A wrong name is found though another section has problems of its own."""
        self.assertEqual(
            self.problems(ROUTE + "hold:office\nlog: {level: x}\n"),
            [
                "3:12: no peer is called 'office', expected the name of one of the 'peers'",
                "4:14: 'x' is none of the choices, expected debug, info, warn or error",
            ],
        )

    def test_each_alias_loop(self) -> None:
        """Loops that don't touch each other are all found."""
        lines = self.problems(DOMAIN + "aliases: {a: b, b: [a, x@b.example], c: c, d: a}\n")
        self.assertEqual([line.split(",")[0] for line in lines], [
            "4:15: alias loop: a@a.example -> b@a.example -> a@a.example",
            "4:42: alias loop: c@a.example -> c@a.example",
        ])  # fmt: skip

    def test_forward(self) -> None:
        """A mailbox forwards to what exists, and never to itself."""
        text = (
            DOMAIN + "mailboxes: [a, b, c]\n    aliases: {d: a}\n    forward:\n"
            "      {a: b, b: {to: [x@else.example, a]}, c: nobody, d: x@else.example, e: a}\n"
        )
        self.assertEqual(
            [line.partition(": ")[2] for line in self.problems(text)],
            [
                "no mailbox or alias is called nobody@a.example, expected one of a.example",
                "'d' is no mailbox that mail could be forwarded from, expected one of the"
                " 'mailboxes'",
                "'e' is no mailbox that mail could be forwarded from, expected one of the"
                " 'mailboxes'",
            ],
        )
        loop = DOMAIN + "mailboxes: [a, b]\n    forward: {a: b, b: {to: [x@else.example, a]}}\n"
        (problem,) = self.problems(loop)
        self.assertIn("alias loop: a@a.example -> b@a.example -> a@a.example", problem)

    def test_senders(self) -> None:
        """A sender is an address or a domain, and held mail has its peer."""
        text = ROUTE + "mx\nsenders: {A@B.example: discard, .c.example: 'hold:nobody'}\n"
        (problem,) = self.problems(text)
        self.assertIn("no peer is called 'nobody'", problem)
        settings = self.load(text.replace("hold:nobody", "mx"))
        self.assertEqual({"a@b.example", ".c.example"}, set(settings.senders))

    def test_alias_of(self) -> None:
        """Another name for a domain of ours is nothing else, and leads on at once."""
        other = DOMAIN + "mailboxes: [a]\n  b.example: "
        settings = self.load(other + "{alias_of: a.example}\n")
        self.assertEqual("a.example", settings.domains["b.example"].alias_of)
        for keys, problem in (
            (
                "{alias_of: a.example, mailboxes: [b]}",
                "5:14: 'alias_of' makes a domain another name and no more, expected nothing beside"
                " it but 'dkim'",
            ),
            (
                "{alias_of: b.example}",
                "5:25: 'b.example' is an alias itself, did you mean 'a.example'?",
            ),
            (
                "{alias_of: c.example}",
                "5:25: 'c.example' is none of our domains, did you mean 'a.example'?",
            ),
        ):
            self.assertEqual([problem], self.problems(other + keys + "\n"))

    def test_keys_of_a_domain(self) -> None:
        """Keys lie beside the configuration, need not be there, and have a state."""
        text = """\
            hostname: mail.example.com
            domains:
              example.com:
                dkim:
                  - {selector: 2026A, key: dkim/a.pem}
                  - {selector: b.mail, key: /keys/b.pem, state: next}
                  - {selector: c, key: c.pem, state: retiring}
              example.org: {alias_of: example.com, dkim: [{selector: d, key: d.pem}]}
              example.net: {dkim: [{selector: e, key: e.pem, state: next}]}
            """
        settings = self.load(text)
        a = DKIMKey("2026a", self.folder / "dkim/a.pem")
        b = DKIMKey("b.mail", Path("/keys/b.pem"), KeyState.NEXT)
        c = DKIMKey("c", self.folder / "c.pem", KeyState.RETIRING)
        self.assertEqual((a, b, c), settings.domains["example.com"].dkim)
        self.assertEqual((a,), settings.domains["example.com"].signing_keys)
        for name, signing in (
            ("example.com", "example.com"),
            ("mail.example.com", "example.com"),
            ("example.org", "example.org"),
            ("example.net", ""),
            ("sub.example.net", ""),
            ("com", ""),
        ):
            self.assertEqual(signing, settings.signing_domain(name), name)

    def test_authentication(self) -> None:
        """Words for each part; forwarders by name, by domain and by network."""
        self.assertIsNone(self.load(LEAST).authentication)
        self.assertEqual(
            self.load(f"{LEAST}authentication: {{}}\n").authentication, Authentication()
        )
        given = """\
            authentication:
              authserv_id: MX.example.com
              spf: reject
              dkim: off
              dmarc: record
              on_dns_error: defer
              trusted_forwarders: [MX.alumni.example, .lists.example, 192.0.2.7/24, "2001:db8::1"]
              reports: daily
              junk: hold
            """
        self.assertEqual(
            self.load(LEAST + dedent(given)).authentication,
            Authentication(
                "mx.example.com",
                Judgement.REJECT,
                False,
                Judgement.RECORD,
                OnDNSError.DEFER,
                (
                    "mx.alumni.example",
                    ".lists.example",
                    ip_network("192.0.2.0/24"),
                    ip_network("2001:db8::1"),
                ),
                "daily",
                JunkUse.HOLD,
            ),
        )

    def test_alias_into_another_name(self) -> None:
        """What leads into a domain's other name must exist under its own."""
        text = DOMAIN + "mailboxes: [a]\n    aliases: {c: a@b.example, d: e@b.example}\n"
        (problem,) = self.problems(text + "  b.example: {alias_of: a.example}\n")
        self.assertIn("no mailbox or alias is called e@b.example", problem)

    def test_no_secret_is_shown(self) -> None:
        """Whatever is wrong with a value that holds a secret, the secret isn't repeated."""
        for text in (
            "smpt://user:HIDDEN@host",
            "smtp:user:HIDDEN@host",
            "smtp://user:HIDDEN",
            "smtp://user:HIDDEN@host:99999",
            "smtp://user:HIDDEN%@host",
            "smtp://user:HIDDEN@host@",
            "lmtp://user:HIDDEN@host",
            "office:HIDDEN@host",
            "{to: mx, user: u, secret: HIDDEN}",
            '{to: mx, user: u, secret: "HIDDEN\\n"}',
            "{to: mx, user: u, secret: [HIDDEN]}",
            "{to: mx, user: u, secret: {file: {a: HIDDEN}}}",
        ):
            with self.subTest(text):
                self.assertNotIn("HIDDEN", "".join(self.problems(ROUTE + text)))

    def test_absent_file(self) -> None:
        """A file that isn't there is one line."""
        error = self.assertRaises(ConfigurationError, load, self.folder / "no.yaml")
        self.assertEqual(
            str(error),
            f"{self.folder}/no.yaml:1:1: can't be read: No such file or directory, expected a file",
        )

    def test_other_encoding(self) -> None:
        """A file in another encoding is one line, for the first octet that can't be read."""
        self.file.write_bytes(b"hostname: h.example\n# gr\xfc\xdfe\n")
        error = self.assertRaises(ConfigurationError, load, self.file)
        self.assertEqual(
            str(error),
            f"{self.file}:2:5: not UTF-8 text, expected the file in that encoding",
        )

    def test_too_large(self) -> None:
        """A file that has no end is not read to it."""
        error = self.assertRaises(ConfigurationError, load, Path("/dev/zero"))
        self.assertEqual(str(error), "/dev/zero:1:1: too large, expected at most 4194304 octets")

    def test_aliases_that_explode(self) -> None:
        """Aliases of aliases are counted as what they stand for, before anything reads them."""
        lists = "\n".join(
            f"  - &{name} [{', '.join([f'*{before}'] * 9)}]"
            for before, name in zip(string.ascii_letters, string.ascii_letters[1:16], strict=False)
        )
        text = f"{LEAST}resolver:\n  - &a [x]\n{lists}\n"
        self.assertEqual(
            self.problems(text),
            ["1:1: too large with all aliases, expected at most 200000 values"],
        )

    def test_alias_of_itself(self) -> None:
        """A value that holds itself has no end either."""
        self.assertEqual(
            self.problems(LEAST + "resolver: &a [*a]\n"),
            ["1:1: too large with all aliases, expected at most 200000 values"],
        )

    def test_one_value_at_two_places(self) -> None:
        """A mistake that an alias repeats is one line."""
        text = HOST + "domains:\n  a.example: &x {mailboxes: no}\n  b.example: *x\n"
        self.assertEqual(len(self.problems(text)), 1)

    @given(st.text(st.characters(codec="utf-8"), max_size=200))
    def test_any_text(self, text: str) -> None:
        """Nothing that a file may hold ends in anything but problems or settings."""
        for before in ("", ROUTE, DOMAIN, LEAST + "listen: [{endpoint: "):
            try:
                self.load(before + text)
            except ConfigurationError as error:
                self.assertTrue(error.problems)


NAMES = st.sampled_from(["a", "b", "m", "m+x", "a+x", "ghost", "b@b.example", "x@c.example"])
DOMAINS = st.fixed_dictionaries(
    {
        "mailboxes": st.sampled_from([["m"], [], "any"]),
        "aliases": st.dictionaries(
            st.sampled_from(["a", "b", "m"]), st.lists(NAMES, min_size=1, max_size=3), max_size=3
        ),
    },
    optional={"catch_all": NAMES},
)


class AliasTests(ConfigTestCase):
    """What the file may say of aliases, against what the router makes of it."""

    @example({"mailboxes": "any", "aliases": {"a": ["a+x"]}}, {})
    @given(DOMAINS, DOMAINS)
    def test_only_what_can_be_delivered_loads(
        self, here: dict[str, object], there: dict[str, object]
    ) -> None:
        """A file loads if, and only if, every alias and every catch-all leads somewhere."""
        domains = {"a.example": here, "b.example": there}
        text = yaml.safe_dump({"hostname": "h.example", "domains": domains})
        try:
            loaded = self.load(text).domains
        except ConfigurationError:
            loaded = {}
        self.assertEqual(bool(loaded), self.can_be_delivered(domains), text)

    def can_be_delivered(self, domains: dict[str, dict[str, object]]) -> bool:
        """Whether the router finds an end for all, given what the file says unchecked."""
        self.patch(schema, "check_aliases", lambda root, domains: None)
        settings = self.load(yaml.safe_dump({"hostname": "h.example", "domains": domains}))
        self.doCleanups()
        router = Router("h.example", settings.domains, {}, Hop(Agent.MX))
        try:
            for name, domain in settings.domains.items():
                for alias in domain.aliases:
                    router.route(Mailbox(alias, name))
                if domain.catch_all:
                    router.route(domain.catch_all)
        except Refusal:
            return False
        return True


class ReferenceTests(ConfigTestCase):
    """docs/config.rst against the schema."""

    def setUp(self) -> None:
        super().setUp()
        self.text = (ROOT / "docs/config.rst").read_text("utf-8")
        self.entries = dict(
            re.findall(
                r"^\.\. confval:: (\S+)\n    :type: .+\n    :default: (.+)$", self.text, re.M
            )
        )

    def test_every_key(self) -> None:
        """Every key is described, with its type and default, and nothing else is."""
        keys = {section + key for section, fields in SECTIONS.items() for key in fields}
        self.assertEqual(set(self.entries), keys)
        self.assertEqual(self.text.count(".. confval::"), len(keys))

    def test_every_default(self) -> None:
        """What is described as the default means the same as leaving it out."""
        for name, default in self.entries.items():
            value = re.match("``([^`]+)``", default)
            incomplete = ("HOP.", "SECRET.", "listen[]", "domains.NAME.forward.NAME")
            incomplete += ("spool_folder",)  # of a spool in a database
            incomplete += ("domains.NAME.dkim[]", "milters[]", "block_lists[]", "allow_lists[]")
            if value is None or name.startswith(incomplete):
                continue
            with self.subTest(name):
                self.assertEqual(self.with_member(name, value[1]), self.with_member(name))

    def with_member(self, name: str, *given: str) -> Settings:
        """Settings with the key of this name given, or with what it stands in alone."""
        content: dict[str, object] = {
            "hostname": "h.example",
            "routes": {},
            "domains": {"name.example": {}},
            "peers": {"name": {"user": "u"}},
        }
        place: dict[str, object] = content
        *sections, key = name.split(".")
        for section in sections:
            found = "name.example" if section == "NAME" and sections[0] == "domains" else section
            inner = place.setdefault(found.replace("NAME", "name"), {})
            assert isinstance(inner, dict)
            place = inner
        for text in given:
            place[key] = yaml.safe_load(text) if sections or key != "users" else text
        if not given and key in ("domains", "peers") and not sections:
            content[key] = {}
        self.file.write_text(yaml.safe_dump(content))
        return load(self.file, {})

    def test_every_example(self) -> None:
        """Every example of the manual loads, in a file with what it needs around it."""
        for name in ("cert.pem", "key.pem", "other.pem", "other.key"):
            self.write(name)
        for name in ("provider-ca.pem", "client-ca.pem"):
            self.write(name)
        self.write("provider.secret", "SECRET")
        self.write("relay.secret", "SECRET")
        self.write("shop.secret", "SECRET")
        self.environ["RELAY_SECRET"] = "SECRET"
        self.write("smart-host.secret", "SECRET")
        found = 0
        for page in (ROOT / "docs").rglob("*.rst"):
            for _, block in EXAMPLE.findall(page.read_text("utf-8")):
                found += 1
                with self.subTest(block, page=page.stem):
                    text = dedent(block)
                    text += "" if "hostname:" in text else "hostname: mail.example.com\n"
                    text += "" if "routes:" in text else "routes: {}\n"
                    self.load(text)
        self.assertGreater(found, 20)

    def test_default_listeners(self) -> None:
        """The listeners that are shown as the default are."""
        shown = re.findall(r"- (\{endpoint: .+\})", self.text)
        least = self.load(f"{LEAST}peers: {{office: {{user: office}}}}\n")
        given = self.load(f"{LEAST}listen: [{', '.join(shown)}]\n")
        self.assertEqual(given.listen, least.listen)

    def test_ports(self) -> None:
        """The ports of next hops are the ones described."""
        for scheme, port in PORTS.items():
            self.assertRegex(self.text, rf"(?s){scheme}://.{{1,400}}on port {port}\b")


class WithoutSecretsTests(ConfigTestCase):
    """The configuration for who may read it, and nothing that it names."""

    TEXT = """\
        hostname: mail.example.com
        tls:
          certificate: nowhere.pem
          key: nowhere.key
          certificates: [{certificate: other.pem, key: other.key}]
          ca: nowhere.ca
          client_ca: nowhere.client-ca
        routes:
          default: {to: smtp://relay.example.net, user: office, secret: {file: nowhere.secret}}
          b.example: {to: smtp://relay.example.net, user: office, secret: {env: NOT_SET}}
          c.example: smtp://office:in-the-file@relay.example.net
        """

    def test_nothing_that_it_names_is_read(self) -> None:
        """Files that are not there and variables that are not set keep nobody from loading it."""
        self.file.write_text(dedent(self.TEXT))
        settings = load(self.file, {}, secrets=False)
        self.assertEqual(settings.tls.ca, self.folder / "nowhere.ca")
        self.assertEqual(settings.default_route.user, "office")
        self.assertEqual(settings.default_route.secret, "")
        self.assertEqual(settings.routes["b.example"].secret, "")

    def test_each_is_read_with_them(self) -> None:
        """The server, and who checks for it, hears of every one of them."""
        problems = self.problems(dedent(self.TEXT))
        self.assertEqual(len(problems), 8, problems)

    def test_what_is_wrong_is_wrong(self) -> None:
        """A mistake in the file itself is found all the same."""
        self.file.write_text("hostname: h.example\nroutes: {default: {to: mx, secret: {file: []}}}")
        with self.assertRaises(ConfigurationError):
            load(self.file, {}, secrets=False)

    def test_more_is_put_in(self) -> None:
        """A person who may not read the key can change the configuration."""
        self.file.write_text(dedent(self.TEXT))
        text = edited(self.file, {("domains", "example.com", "mailboxes"): ["alice"]}, {})
        self.assertIn("mailboxes: [alice]", text)

    def test_edits_that_are_wrong(self) -> None:
        """Each problem comes with the edit in whose line it is."""
        self.file.write_text("hostname: h.example\ndomains: {}\nlimits:\n  errors: 20\n")
        with self.assertRaises(EditRejected) as caught:
            edited(self.file, {("limits", "errors"): 0, ("domains",): REMOVED}, {})
        self.assertEqual(set(caught.exception.blamed), {("limits", "errors")})
        self.assertEqual(len(caught.exception.problems), 2)


class SchemaTests(SynchronousTestCase):
    """The schema against the settings."""

    def test_every_setting_can_be_configured(self) -> None:
        """Each field of a section has its key, and each key its field."""
        for section, kind, derived in (
            ("", Settings, {"default_route", "database"}),
            ("listen[].", Listener, set()),
            ("tls.certificates[].", CertificatePair, set()),
            ("domains.NAME.", Domain, {"name", "mailboxes_elsewhere", "told"}),
            ("domains.NAME.forward.NAME.", Forward, set()),
            ("relay.", Relay, set()),
            ("authentication.", Authentication, set()),
            ("peers.NAME.", Peer, {"name"}),
            ("queue.", Queue, set()),
            ("limits.", Limits, set()),
            ("log.", Log, set()),
        ):
            with self.subTest(section):
                names = {field.name for field in fields(kind)}
                keys = set(SECTIONS[section]) - {"spool_folder"}  # with it `spool` is `database`
                self.assertEqual(keys, names - derived)
