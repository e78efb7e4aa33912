"""The text of a new configuration, for each role."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from mta.config.document import Source, parse
from mta.config.schema import read_settings
from mta.installation.answers import Answers, Role
from mta.installation.filling import filled
from mta.installation.places import Places
from mta.settings import DKIMKey, Settings, home_domain
from mta.signing.making import entry

COMMENT_COLUMN = 34  # of comments beside endpoints
LOOPBACK = ":interface=127.0.0.1"
UNPRIVILEGED = 2000  # added to the ports of a server without the rights of root


@dataclass(frozen=True, slots=True)
class Options:
    """The settings of an installation that are no answers.

    `certificate`: whether a pair for TLS lies beside the configuration.  `users`: the users file,
    or Dovecot's socket.  `log_file`: empty where the log goes to standard output.  `dkim`: the keys
    of each domain.
    """

    has_ipv6: bool = False
    separates_families: bool = False
    has_certificate: bool = False
    users: str = "users.yaml"
    log_file: str = ""
    dkim: Mapping[str, Sequence[DKIMKey]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Listening:
    """A listener of the configuration."""

    port: int
    service: str
    tls: str
    comment: str
    is_local: bool = False


LISTENERS = {
    Role.SERVER: (
        Listening(25, "smtp", "opportunistic", "from other servers"),
        Listening(587, "submission", "required", "from our users, who log in first"),
        Listening(465, "submission", "implicit", "the same, with TLS from the first octet"),
    ),
    Role.VPS: (
        Listening(25, "smtp", "opportunistic", "from other servers"),
        Listening(465, "submission", "implicit", "from offices, which turn the connection"),
    ),
    Role.OFFICE: (
        Listening(25, "smtp", "off", "from programs on this machine", is_local=True),
        Listening(587, "submission", "required", "from the people in the office, who log in"),
    ),
}
_EXPECTED_ALIASES = {
    "postmaster": "demanded by RFC 5321 section 4.5.1",
    "abuse": "expected by RFC 2142",
}
_HOME_ALIASES = {"root": "what programs of this machine say"}
DEMO_PORTS = (2525, 2587, 2366)


@dataclass(frozen=True, slots=True)
class Configuration:
    """A configuration of a role, as it is to be written."""

    role: Role
    answers: Answers
    places: Places
    options: Options = field(default_factory=Options)

    @property
    def ports(self) -> Sequence[int]:
        """The ports that the server will listen on."""
        if self.role is Role.DEMO:
            return DEMO_PORTS
        return [self._port(each) for each in LISTENERS[self.role]]

    @property
    def deliver(self) -> str:
        """The next hop of a domain whose mail ends here."""
        return self.answers.deliver or f"maildir:{self.places.mail}/{{domain}}/{{local}}"

    def text(self) -> str:
        """Return the text of the file."""
        if self.role is Role.DEMO:
            return demo(self.places.config, "", ".")
        file = self.options.log_file
        log_file = f"  file: {_scalar(file)}" if file else ""
        return filled(
            f"{self.role.value}.yaml",
            HOSTNAME=_scalar(self.answers.hostname),
            SPOOL=_scalar(str(self.places.spool)),
            RUN_AS=self._run_as(),
            LISTEN="\n".join(line for each in LISTENERS[self.role] for line in self._listen(each)),
            TLS=self._tls(),
            DOMAINS=self._domains(),
            USERS=_scalar(self.options.users),
            USERS_NOTE=self._users_note(),
            LOG=f"\nlog:\n{log_file}" if log_file else "",
            LOG_FILE=log_file,
        )

    def settings(self) -> Settings:
        """Return the settings that the text stands for.  Raises ConfigurationError."""
        source = Source(self.places.config, {}, False)
        return read_settings(parse(self.text(), source))

    def _run_as(self) -> str:
        if not self.places.user:
            return ""
        note = "# The user that the server becomes where root starts it."
        return f"\n{note}\nrun_as: {self.places.user}"

    def _port(self, listening: Listening) -> int:
        return listening.port + (0 if self.places.is_system else UNPRIVILEGED)

    def _listen(self, listening: Listening) -> list[str]:
        port = self._port(listening)
        if listening.is_local:
            endpoints = [f"tcp:{port}{LOOPBACK}"]
        elif not self.options.has_ipv6:
            endpoints = [f"tcp:{port}"]
        elif self.options.separates_families:
            endpoints = [f"tcp:{port}", f"tcp6:{port}"]
        else:
            endpoints = [f"tcp6:{port}"]  # Linux gives it the connections of IPv4, too
        lines = []
        for endpoint in endpoints:
            head = f"  - endpoint: {endpoint}"
            lines += [f"{head:<{COMMENT_COLUMN - 1}} # {listening.comment}"]
            lines += [f"    service: {listening.service}", f"    tls: {listening.tls}"]
        return lines

    def _tls(self) -> str:
        if self.options.has_certificate:
            note = "# The certificate that we show; a renewed pair is taken up without a restart."
            return f"\n{note}\ntls:\n  certificate: cert.pem\n  key: key.pem"
        return (
            "\n# The certificate that we show, leaf first.  A renewed pair is taken up without a"
            " restart.\n# Until these lines are there, a self-signed pair serves: enough for other"
            " servers, not\n# for users.\n"
            "# tls:\n#   certificate: cert.pem\n#   key: key.pem"
        )

    def _domains(self) -> str:
        if not self.answers.domains:
            return ""
        head = "\ndomains:\n" if self.role is Role.VPS else ""
        return head + "\n".join(self._domain(name) for name in self.answers.domains)

    def _domain(self, name: str) -> str:
        boxes = list(self.answers.mailboxes)
        lines = [f"  {_scalar(name)}:", f"    deliver: {_scalar(self.deliver)}"]
        lines += [f"    mailboxes: {_flow(boxes) if boxes else 'any'}"]
        aliases = self.aliases_of(name)
        if aliases:
            lines += ["    aliases:"]
        for alias, note in aliases.items():
            head = f"      {alias}: {_scalar(boxes[0])}"
            lines += [f"{head:<{COMMENT_COLUMN - 1}} # {note}"]
        if keys := self.keys_of(name):
            lines += ["    dkim:"]
            lines += [f"      - {_flow(key)}" for key in keys]
        return "\n".join(lines)

    def keys_of(self, domain: str) -> list[dict[str, str]]:
        """The keys of a domain, as the file has them."""
        return [entry(key, self.places.etc) for key in self.options.dkim.get(domain, ())]

    def aliases_of(self, domain: str, others: Iterable[str] = ()) -> dict[str, str]:
        """The aliases of a domain that lead to its first mailbox.

        Each has its reason.  `others` are domains that come before ours.
        """
        boxes = self.answers.mailboxes
        if not boxes:
            return {}  # all names are taken
        home = home_domain(self.answers.hostname, [*others, *self.answers.domains])
        expected = _EXPECTED_ALIASES | (_HOME_ALIASES if domain == home else {})
        return {alias: note for alias, note in expected.items() if alias not in boxes}

    def _users_note(self) -> str:
        if self.options.users.startswith("dovecot:"):
            return "# Who may log in, there and here."
        return "# Who may log in.  `mta user add NAME --address NAME@DOMAIN` writes this file."


def demo(config: Path, base: str, place: str) -> str:
    """Return the text of the demonstration's configuration.

    `base` leads from the folder of the file to that of the mail, `place` names it for people.
    """
    return filled("demo.yaml", CONFIG=str(config), BASE=base, PLACE=place)


def _scalar(value: str) -> str:
    """A text as YAML that is read as such."""
    return _flow(value).removesuffix("...").strip()


def _flow(value: object) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True).strip()
