"""Role reversal between real processes: two of ours, and programs that others wrote.

Every connection is on the loopback interface.  What waits for something does so until a generous
deadline, so nothing here measures speed.
"""

from __future__ import annotations

import re
import socket
import ssl

from twisted.trial.unittest import SynchronousTestCase

from bench.servers import free_port
from tests.certificates import Authority
from tests.interop.reversal import (
    BOB,
    BOBS,
    CAROL,
    CAROLS,
    PASSWORD,
    Peer,
    Provider,
    customer,
    dial,
    enqueue,
    letter,
    numbers,
    office,
    plain_login,
    run_mta,
    waiting,
)
from tests.interop.sink import Sink
from tests.processes import (
    DEADLINE,
    MTA,
    ROOT,
    Process,
    Server,
    configuration,
    need_program,
    source_environment,
    temporary_folder,
    wait_for_mail,
    wait_until,
)


class MethodTests(SynchronousTestCase):
    """``mta turn`` while no server of the office is up: mail goes both ways on one connection."""

    def setUp(self) -> None:
        self.provider = Provider(self)
        self.provider.start()

    def exchange(self, customer: Server, says: str) -> None:
        """Mail waits on both sides, and one ``mta turn`` moves what it says."""
        self.provider.send(letter(1), BOB)
        enqueue(customer, letter(2, BOB), BOB, CAROL)
        self.assertEqual(run_mta(customer, "turn", "provider"), f"{says}\n")
        self.assertEqual(numbers(customer.wait_for_mail(BOBS)), [1])

    def test_atrn_over_tls(self) -> None:
        """TLS from the first octet, the provider's certificate pinned."""
        self.exchange(office(self, self.provider), "sent 1, received 1")
        self.assertEqual(numbers(self.provider.wait_for_mail(CAROLS)), [2])

    def test_atrn_on_its_own_port(self) -> None:
        """On an odmr listener nobody hands in mail: ours goes on waiting, and nothing bounces."""
        customer = office(self, self.provider, "smtp://office:correct%20horse@localhost:{odmr}")
        self.exchange(customer, "sent 0, received 1")
        self.assertEqual(waiting(customer.folder), 1)

    def test_turn_over_starttls(self) -> None:
        """STARTTLS, and a certificate verified by `tls.ca` and the host's name."""
        customer = office(
            self,
            self.provider,
            "smtp://office:correct%20horse@localhost:{smtp}",
            {"tls": {"ca": str(self.provider.authority.path)}},
            method="turn",
        )
        self.exchange(customer, "sent 1, received 1")
        self.assertEqual(numbers(self.provider.wait_for_mail(CAROLS)), [2])

    def test_no_mail(self) -> None:
        """453 to ATRN is no failure, and both sides remember the exchange."""
        customer = office(self, self.provider)
        self.assertEqual(run_mta(customer, "turn", "provider"), "sent 0, received 0\n")
        self.assertRegex(run_mta(customer, "peers"), r"provider +customer +- +0 +\d+s ago\n")


class LingeringProviderTests(SynchronousTestCase):
    """A provider that would hold the link for an hour."""

    def test_one_exchange_ends(self) -> None:
        """``mta turn`` takes what is there, waits a moment for more, and ends the connection."""
        provider = Provider(self, {"linger": "1h"})
        provider.start()
        provider.send(letter(1), BOB)
        customer = office(self, provider)
        self.assertEqual(run_mta(customer, "turn", "provider"), "sent 0, received 1\n")
        self.assertEqual(numbers(customer.wait_for_mail(BOBS)), [1])
        wait_until(lambda: "was sent 1 message" in provider.log, "the provider's end of it")
        self.assertNotRegex(provider.log, r"(?<![.\d])421 ")  # "0.421 s" is no reply


class EtrnTests(SynchronousTestCase):
    """ETRN: the provider sends the mail on a connection of its own."""

    def test_the_provider_dials_back(self) -> None:
        """``mta turn`` shows what the provider said; the mail comes to the office's listener."""
        port = free_port()
        provider = Provider(self, {"etrn": f"smtp://127.0.0.1:{port}"})
        provider.start()
        customer = office(
            self,
            provider,
            "smtp://office:correct%20horse@localhost:{smtp}",
            {"listen": [{"endpoint": f"tcp:{port}:interface=127.0.0.1", "tls": "off"}]},
            method="etrn",
        )
        customer.start()
        provider.send(letter(1), BOB)
        self.assertRegex(run_mta(customer, "turn", "provider"), r"253 .*\nsent 0, received 0\n")
        self.assertEqual(numbers(customer.wait_for_mail(BOBS)), [1])


class DistrustTests(SynchronousTestCase):
    """Whoever is not the provider, or is not let in, gets nothing of our mail."""

    def setUp(self) -> None:
        self.provider = Provider(self)
        self.provider.start()

    def refuse(self, customer: Server, why: str) -> None:
        """``mta turn`` fails with this reason in one line, and our message still waits."""
        enqueue(customer, letter(2, BOB), BOB, CAROL)
        errors = run_mta(customer, "turn", "provider", status=1)
        self.assertRegex(errors, f"^mta: provider: .*{why}.*\n$")
        self.assertEqual(waiting(customer.folder), 1)
        self.assertNotIn("accepted", self.provider.log)

    def test_another_certificate_than_the_pinned_one(self) -> None:
        """It is refused in the handshake, before any log-in."""
        self.refuse(office(self, self.provider, pin="sha256:" + "ab" * 32), "not the one")

    def test_a_certificate_of_an_unknown_issuer(self) -> None:
        """The same where `tls.ca` decides, after STARTTLS."""
        ca = Authority(temporary_folder(self), "another")
        url = "smtp://office:correct%20horse@localhost:{smtp}"
        customer = office(self, self.provider, url, {"tls": {"ca": str(ca.path)}}, method="turn")
        self.refuse(customer, "issuer")

    def test_a_wrong_password(self) -> None:
        """The log-in is refused, and the advice says where to look."""
        url = "smtps://office:wrong@localhost:{submission}"
        self.refuse(office(self, self.provider, url), "535 .*check the user and secret")

    def test_a_domain_of_somebody_else(self) -> None:
        """450 to ATRN: nothing is handed out."""
        self.provider.send(letter(1), BOB)
        customer = office(self, self.provider, domains=["elsewhere.example"])
        self.assertIn("check `domains`", run_mta(customer, "turn", "provider", status=1))
        self.assertEqual(waiting(self.provider.folder), 1)

    def test_nobody_there(self) -> None:
        """A host that can't be reached is named."""
        url = f"smtps://office:secret@localhost:{free_port()}"
        self.refuse(office(self, self.provider, url), "Cannot connect to localhost")


class HeldLinkTests(SynchronousTestCase):
    """With `linger`, the turned connection stays, and mail goes out on it as it comes."""

    def setUp(self) -> None:
        self.provider = Provider(self, {"linger": "1h"})
        self.provider.start()
        self.customer = office(self, self.provider, every="1h")
        self.customer.start()
        self.provider.wait_for_links()

    def test_mail_is_pushed(self) -> None:
        """What the provider takes in, or finds in its spool, is at the office at once."""
        for number in range(5):
            self.provider.send(letter(number), BOB)
            self.customer.wait_for_mail(BOBS, number + 1)
        enqueue(self.provider, letter(5), CAROL, BOB)
        self.assertEqual(numbers(self.customer.wait_for_mail(BOBS, 6)), [*range(6)])
        self.assertEqual(self.provider.links, 1)
        self.assertRegex(run_mta(self.customer, "peers"), r"provider +customer +\d+s +0 ")
        self.assertRegex(run_mta(self.provider, "peers"), r"office +provider +\d+s +0 ")

    def test_mail_of_the_office_does_not_wait(self) -> None:
        """It goes out on a second connection, while the first one stays turned."""
        self.customer.send(letter(1, BOB), CAROL, reverse_path=BOB)
        self.assertEqual(numbers(self.provider.wait_for_mail(CAROLS)), [1])
        enqueue(self.customer, letter(2, BOB), BOB, CAROL)
        self.assertEqual(numbers(self.provider.wait_for_mail(CAROLS, 2)), [1, 2])
        self.provider.send(letter(3), BOB)
        self.assertEqual(numbers(self.customer.wait_for_mail(BOBS)), [3])
        self.assertEqual(self.provider.links, 1)

    def test_turning_while_the_server_holds_a_link(self) -> None:
        """``mta turn`` takes the link over, and ends although the provider would hold it."""
        self.provider.send(letter(1), BOB)
        self.customer.wait_for_mail(BOBS)
        self.assertEqual(run_mta(self.customer, "turn", "provider"), "sent 0, received 0\n")

    def test_the_office_is_killed(self) -> None:
        """kill -9 in the middle: all mail is there in the end, at most one message twice."""
        self.customer.kill()
        for number in range(10):
            self.provider.send(letter(number), BOB)
        self.customer.start()
        self.customer.wait_for_mail(BOBS, 3)
        self.customer.kill()
        self.customer.start()
        arrived = numbers(self.customer.wait_for_mail(BOBS, 10))
        wait_until(lambda: not waiting(self.provider.folder), "the provider has nothing left")
        arrived = numbers(self.customer.wait_for_mail(BOBS, 10))
        self.assertEqual(sorted(set(arrived)), [*range(10)])

    def test_the_provider_is_killed(self) -> None:
        """The office dials again by itself, and mail on both sides goes on."""
        self.provider.kill()
        self.customer.send(letter(1, BOB), CAROL, reverse_path=BOB)
        self.provider.start()
        self.provider.wait_for_links(2)
        self.provider.send(letter(2), BOB)
        self.assertEqual(numbers(self.customer.wait_for_mail(BOBS)), [2])
        self.assertEqual(numbers(self.provider.wait_for_mail(CAROLS)), [1])


class RecipeTests(SynchronousTestCase):
    """etc/vps.yaml and etc/office.yaml, with other ports and paths so that they need no rights.

    `tests.interop.test_nat` starts them as they stand, which takes root.
    """

    def machine(self, name: str, *changes: tuple[str, str]) -> Server:
        """A server with a file of etc/, in which each of these texts is replaced."""
        folder = temporary_folder(self)
        text = (ROOT / "etc" / name).read_text()
        for old, new in (*changes, ("run_as: mta\n", "run_as: root\n"), ("/var/", f"{folder}/")):
            self.assertIn(old, text)
            text = text.replace(old, new)
        environment = source_environment() | {"SSL_CERT_FILE": str(self.authority.path)}
        return Server(self, text, folder=folder, environment=environment)

    def test_mail_both_ways(self) -> None:
        """What comes to the VPS is in the office's Maildir, and the office's mail is at the VPS."""
        self.authority = Authority(temporary_folder(self))
        local = "tcp:0:interface=127.0.0.1"
        vps = self.machine("vps.yaml", ("tcp:25", local), ("tcp:465", local))
        pair = self.authority.issue("localhost")
        pair.certificate.rename(vps.folder / "cert.pem")
        pair.key.rename(vps.folder / "key.pem")
        run_mta(vps, "user", "add", "office", "--password-stdin", stdin="secret\n")
        vps.start()
        office = self.machine(
            "office.yaml",
            ("tcp:25:interface=127.0.0.1", local),
            ("tcp:587", local),
            ("mail.example.com:465", f"localhost:{vps.ports['submission']}"),
        )
        (office.folder / "vps.secret").write_text("secret\n")
        office.start()
        vps.send(letter(1), "alice@example.com")
        arrived = wait_for_mail(office.folder / "mail/example.com/alice")
        self.assertEqual(numbers(arrived), [1])
        alice = "alice@example.com"
        office.send(letter(2, alice), "carol@partner.example", reverse_path=alice)
        wait_until(lambda: f"accepted <{alice}>" in vps.log, "the VPS has it, to send it on")


class ForeignCustomerTests(SynchronousTestCase):
    """Peers that others might have written dial our provider."""

    def setUp(self) -> None:
        self.provider = Provider(self)
        self.provider.start()

    def test_turn_of_the_old_kind(self) -> None:
        """A peer that knows RFC 821 and AUTH turns the connection, and gets its mail."""
        self.provider.send(letter(1), BOB)
        peer = dial(self, self.provider, "submission")
        peer.expect("220 ")
        self.log_in(peer)
        peer.say("TURN")
        peer.expect("250 ")
        peer.say("220 old.example")
        peer.expect("EHLO provider.example")
        peer.say("500 what?")
        peer.expect("HELO provider.example")
        peer.say("250 old.example")
        self.assertIn("number 1", self.take_message(peer))
        peer.expect("QUIT")
        peer.say("221 bye")
        peer.expect_end()
        wait_until(lambda: not waiting(self.provider.folder), "nothing is left")

    def test_atrn_as_exim_has_it(self) -> None:
        """The dialogues of the test that Exim has for ATRN: refusals, no mail, mail."""
        peer = dial(self, self.provider, "submission")
        peer.expect("220")
        peer.say("EHLO tester")
        peer.expect("250")
        peer.say("ATRN")
        peer.expect("530")
        self.log_in(peer)
        peer.say(f"MAIL FROM:<{BOB}>")
        peer.expect("250")
        peer.say("ATRN")
        peer.expect("503")
        peer.say("RSET")
        peer.expect("250")
        peer.say("ATRN elsewhere.example")
        peer.expect("450")
        peer.say("ATRN")
        peer.expect("453")
        self.provider.send(letter(1), BOB)
        peer.say("ATRN office.example")
        peer.expect("250")
        peer.say("220 ODMR client now in reversed state")
        peer.expect("EHLO")
        peer.say("250-hello, mate", "250 HELP")
        self.assertIn("number 1", self.take_message(peer))
        peer.expect("QUIT")
        peer.say("221 bye")
        peer.expect_end()

    def test_octets_sent_ahead(self) -> None:
        """A greeting that came with ATRN is no greeting: 503, and the roles stay."""
        self.provider.send(letter(1), BOB)
        peer = dial(self, self.provider, "submission")
        peer.expect("220")
        self.log_in(peer)
        peer.say("ATRN", "220 forged")
        peer.expect("503")
        peer.expect("500")
        peer.say("QUIT")
        peer.expect("221")
        self.assertEqual(waiting(self.provider.folder), 1)

    def log_in(self, peer: Peer) -> None:
        """EHLO, and AUTH as the office."""
        peer.say("EHLO tester")
        peer.expect("250")
        peer.say(plain_login())
        peer.expect("235")

    def take_message(self, peer: Peer) -> str:
        """Take one message to Bob in the old way; returns its content."""
        peer.expect(f"MAIL FROM:<{'sender@client.example'}>")
        peer.say("250 saw your MAIL cmd")
        peer.expect(f"RCPT TO:<{BOB}>")
        peer.say("250 saw your RCPT cmd")
        peer.expect("DATA")
        peer.say("354 go ahead")
        content = peer.hear_content()
        peer.say("250 ODMR client: message accepted")
        return content


class ForeignProviderTests(SynchronousTestCase):
    """Our office dials peers that others might have written; the test plays them."""

    def setUp(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(DEADLINE)
        self.addCleanup(self.listener.close)

    def dialled_by(self, method: str, user: str = "") -> Peer:
        """An office with a message for Carol that runs ``mta turn``; our end of its connection."""
        port = self.listener.getsockname()[1]
        url = f"smtp://{user}127.0.0.1:{port}"
        self.office = customer(self, {"connect": url, "tls": "off", "method": method})
        enqueue(self.office, letter(2, BOB), BOB, CAROL)
        self.turn = mta_turn(self, self.office)
        return Peer(self, self.listener.accept()[0])

    def test_turn_of_the_old_kind(self) -> None:
        """HELO, our mail, TURN: then we greet and take mail for our domains, and no other."""
        peer = self.dialled_by("turn")
        self.greet(peer)
        peer.say("500 what?")
        peer.expect("HELO office.example")
        self.hear_message(peer)
        peer.say("250 ok")
        peer.expect("TURN")
        peer.say("250 ok")
        peer.expect("220 office.example")
        peer.say("HELO old.example")
        peer.expect("250")
        peer.say("TURN")
        peer.expect("502")
        self.hand_in(peer, "DATA")
        self.assertEqual(self.turn.wait(), 0)
        self.assertIn("sent 1, received 1", self.turn.output)
        self.assertEqual(numbers(self.office.wait_for_mail(BOBS)), [1])

    def test_atrn_as_exim_has_it(self) -> None:
        """ATRN shown in EHLO before AUTH, 250 in one line, then Exim's way to send."""
        peer = self.dialled_by("atrn", "office:secret@")
        peer.say("220 mail.example ESMTP Exim 4.99 Tue, 24 Nov 2026 12:00:00 +0000")
        peer.expect("EHLO office.example")
        peer.say(
            "250-mail.example Hello office.example [127.0.0.1]",
            *("250-SIZE 52428800", "250-LIMITS MAILMAX=1000 RCPTMAX=50000", "250-8BITMIME"),
            *("250-ATRN", "250-PIPELINING", "250-AUTH CRAM-MD5", "250 HELP"),
        )
        peer.expect("AUTH CRAM-MD5")
        peer.say("334 PDEyMy40NTZAbWFpbC5leGFtcGxlPg==")
        peer.expect("")
        peer.say("235 Authentication succeeded")
        peer.expect(f"MAIL FROM:<{BOB}>")
        peer.expect(f"RCPT TO:<{CAROL}>")
        peer.expect("DATA")
        peer.say("250 OK", "250 Accepted", '354 Enter message, ending with "." on a line by itself')
        peer.hear_content()
        peer.say("250 OK id=1abcde-00000000001-2Xyz")
        peer.expect("ATRN office.example")
        peer.say("250 OK, turning the connection")
        peer.expect("220 office.example")
        peer.say("EHLO mail.example")
        peer.expect("250")
        self.hand_in(peer, "DATA")
        self.assertEqual(self.turn.wait(), 0)
        self.assertIn("sent 1, received 1", self.turn.output)

    def test_octets_after_the_turn(self) -> None:
        """Commands that come with the 250 came before our greeting: the connection is dropped."""
        peer = self.dialled_by("turn")
        peer.say("220 old.example")
        peer.expect("EHLO")
        peer.say("250 old.example")
        peer.expect("MAIL")
        peer.say("450 not now")
        peer.expect("RSET")
        peer.say("250 ok")
        peer.expect("TURN")
        peer.say("250 ok", f"MAIL FROM:<{CAROL}>")
        peer.expect_end()
        self.assertEqual(self.turn.wait(), 1)
        self.assertIn("octets after the reply that turned", self.turn.output)

    def test_killed_with_mail_on_its_way(self) -> None:
        """The next call brings it, though it is tried by no process that has just begun."""
        peer = self.dialled_by("turn")
        self.greet(peer)
        self.hear_message(peer)
        self.turn.kill()
        self.turn = mta_turn(self, self.office)
        peer = Peer(self, self.listener.accept()[0])
        self.greet(peer)
        self.hear_message(peer)
        peer.say("250 ok")
        peer.expect("TURN")
        peer.say("502 no")
        self.assertEqual(self.turn.wait(), 1)
        self.assertEqual(waiting(self.office.folder), 0)

    def greet(self, peer: Peer) -> None:
        """Send the greeting, and hear EHLO."""
        peer.say("220 old.example")
        peer.expect("EHLO office.example")

    def hear_message(self, peer: Peer) -> None:
        """Reply to EHLO or HELO, and take the message to Carol, all but its last reply."""
        peer.say("250 old.example")
        peer.expect(f"MAIL FROM:<{BOB}>")
        peer.say("250 ok")
        peer.expect(f"RCPT TO:<{CAROL}>")
        peer.say("250 ok")
        peer.expect("DATA")
        peer.say("354 go on")
        self.assertIn("number 2", peer.hear_content())

    def test_a_peer_that_says_nothing(self) -> None:
        """``--timeout`` ends the wait."""
        url = f"smtp://127.0.0.1:{self.listener.getsockname()[1]}"
        server = customer(self, {"connect": url, "tls": "off"})
        errors = run_mta(server, "turn", "provider", "--timeout", "1s", status=1)
        self.assertEqual(errors, "mta: provider: not over after 1s; sent 0, received 0\n")

    def hand_in(self, peer: Peer, verb: str) -> None:
        """Offer mail for somebody else, and hand in a message to Bob."""
        peer.say(f"MAIL FROM:<{CAROL}>", "RCPT TO:<dave@elsewhere.example>")
        peer.expect("250")
        peer.expect("550 5.7.1")
        peer.say(f"RCPT TO:<{BOB}>")
        peer.expect("250")
        peer.say(verb)
        peer.expect("354")
        peer.say(*letter(1).decode().splitlines(), ".")
        peer.expect("250")
        peer.say("QUIT")
        peer.expect("221")
        peer.expect_end()


class FetchmailTests(SynchronousTestCase):
    """fetchmail: a customer that hands what comes to an SMTP server beside it."""

    def setUp(self) -> None:
        self.program = need_program(self, "fetchmail")

    def fetch(self, *lines: str) -> Process:
        """Run fetchmail once with this configuration."""
        folder = temporary_folder(self)
        config = folder / "fetchmailrc"
        config.write_text("\n".join(lines) + "\n")
        config.chmod(0o600)
        command = [self.program, "-v", "-v", "--nodetach", "--nosyslog", "-f", str(config)]
        environment = source_environment() | {"FETCHMAILHOME": str(folder)}
        process = Process(command, folder, environment)
        self.addCleanup(process.kill)
        return process

    def test_odmr(self) -> None:
        """CRAM-MD5, ATRN, and the turned connection led on to the SMTP server."""
        provider = Provider(self)
        provider.start()
        sink = Sink(self)
        provider.send(letter(1), BOB)
        provider.send(letter(2), BOB)
        wait_until(lambda: waiting(provider.folder, "held") == 2, "both are held")
        fetchmail = self.fetch(
            f"poll 127.0.0.1 service {provider.ports['odmr']} protocol odmr",
            f'  user "office" password "{PASSWORD}" sslproto ""',
            f"  smtphost 127.0.0.1/{sink.port} fetchdomains office.example",
        )
        fetchmail.wait()
        self.assertEqual(numbers(sink.wait_for_mail(2)), [1, 2], fetchmail.output)
        wait_until(lambda: not waiting(provider.folder), "the provider has nothing left")

    def recipe(self, provider: Provider, port: int) -> str:
        """What docs/turn/recipe.rst says, with the names of this test."""
        text = (ROOT / "docs" / "turn" / "recipe.rst").read_text()
        found = re.search(r"(?m)^    poll .*protocol odmr\n(?:    .*\n)+", text)
        assert found is not None
        recipe = found[0]
        for theirs, ours in (
            ("mail.example.com service 366", f"localhost service {provider.ports['odmr']}"),
            ('"..."', f'"{PASSWORD}"'),
            ("sslcertck", f'sslcertck sslcertfile "{provider.authority.path}"'),
            ("smtphost localhost", f"smtphost 127.0.0.1/{port}"),
            ("domains example.com", "domains office.example"),
        ):
            self.assertIn(theirs, recipe)
            recipe = recipe.replace(theirs, ours)
        return recipe

    def provider_with_letters(self) -> Provider:
        """A provider whose odmr listener begins with TLS, and three letters of many lines."""
        provider = Provider(self, listeners={"smtp": "off", "odmr": "implicit"})
        provider.start()
        for number in range(3):
            provider.send(letter(number) + b"a line, and a dot\r\n..\r\n" * 2000, BOB)
        # ATRN waits for no more than seconds for mail on its way there, and fetchmail asks once.
        wait_until(lambda: waiting(provider.folder, "held") == 3, "all are held")
        return provider

    def test_odmr_under_tls(self) -> None:
        """The recipe of the manual, word by word, to a server that takes DATA."""
        provider, sink = self.provider_with_letters(), Sink(self)
        fetchmail = self.fetch(self.recipe(provider, sink.port))
        fetchmail.wait()
        self.assertEqual(numbers(sink.wait_for_mail(3)), [0, 1, 2], fetchmail.output)
        wait_until(lambda: not waiting(provider.folder), "the provider has nothing left")

    def test_odmr_under_tls_in_chunks(self) -> None:
        """The same to this program, which takes BDAT and much at once."""
        provider = self.provider_with_letters()
        office = Server(self, configuration())
        office.start()
        fetchmail = self.fetch(self.recipe(provider, office.ports["smtp"]))
        fetchmail.wait()
        letters = office.wait_for_mail("office.example/bob", 3)
        self.assertEqual(numbers(letters), [0, 1, 2], fetchmail.output)

    def test_a_line_is_a_record(self) -> None:
        """On an odmr listener, whoever reads one record has read one line."""
        provider = Provider(self, listeners={"odmr": "implicit"})
        provider.start()
        context = ssl.create_default_context(cafile=provider.authority.path)
        raw = socket.create_connection(("127.0.0.1", provider.ports["odmr"]), DEADLINE)
        with context.wrap_socket(raw, server_hostname="localhost") as client:
            records = [client.recv(65536)]
            client.sendall(b"EHLO office.example\r\n")
            while not records[-1].startswith(b"250 "):
                records.append(client.recv(65536))
        self.assertGreater(len(records), 3)
        for record in records:
            self.assertEqual((record.count(b"\n"), record[-2:]), (1, b"\r\n"), record)

    def test_etrn(self) -> None:
        """A log-in under TLS, ETRN, and a connection of the provider to the SMTP server."""
        sink = Sink(self)
        listeners = {"smtp": "implicit"}
        provider = Provider(self, {"etrn": f"smtp://127.0.0.1:{sink.port}"}, listeners)
        provider.start()
        enqueue(provider, letter(1), CAROL, BOB)
        wait_until(lambda: "hold:office" in provider.log, "it is held")
        fetchmail = self.fetch(
            f"poll localhost service {provider.ports['smtp']} protocol etrn",
            f'  esmtpname "office" esmtppassword "{PASSWORD}"',
            f'  ssl sslcertck sslcertfile "{provider.authority.path}" fetchdomains office.example',
        )
        fetchmail.wait()
        self.assertEqual(numbers(sink.wait_for_mail()), [1], fetchmail.output)


def mta_turn(case: SynchronousTestCase, server: Server) -> Process:
    """``mta turn provider`` beside the test, which plays the provider."""
    arguments = ["turn", "provider", "--config", str(server.config)]
    command = [*MTA, *arguments]
    process = Process(command, server.folder, source_environment())
    case.addCleanup(process.kill)
    return process
