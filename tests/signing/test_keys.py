"""The reading of private keys."""

import os
from dataclasses import replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_der_public_key,
)
from twisted.trial.unittest import SynchronousTestCase

from mta.mail import Agent, Hop
from mta.service.findings.signing import keys as findings
from mta.service.findings.signing import reports
from mta.settings import Authentication, DKIMKey, Domain, KeyState, Settings
from mta.signing.keys import KeyFault, read

RSA = rsa.generate_private_key(65537, 2048)
SHORT = rsa.generate_private_key(65537, 1024)
ED25519 = ed25519.Ed25519PrivateKey.generate()


class KeyCase(SynchronousTestCase):
    """Tests with key files."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).resolve()
        self.folder.mkdir()

    def write(self, octets: bytes, name: str = "key.pem", mode: int = 0o600) -> Path:
        """Write a file with these octets."""
        path = self.folder / name
        path.write_bytes(octets)
        path.chmod(mode)
        return path


def pem(
    key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey,
    form: PrivateFormat = PrivateFormat.PKCS8,
    encryption: KeySerializationEncryption | None = None,
) -> bytes:
    """A key as the text of a file."""
    return key.private_bytes(Encoding.PEM, form, encryption or NoEncryption())


class ReadTests(KeyCase):
    """What `read` makes of files."""

    def test_both_forms_of_rsa(self) -> None:
        """PKCS#1 (``openssl genrsa -traditional``) and PKCS#8 are the same key."""
        for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
            key = read(self.write(pem(RSA, form)))
            self.assertEqual(("rsa-sha256", "rsa", False), (key.algorithm, key.kind, key.is_short))
            self.assertEqual(RSA.public_key(), load_der_public_key(key.public))

    def test_ed25519(self) -> None:
        key = read(self.write(pem(ED25519)))
        self.assertEqual(("ed25519-sha256", "ed25519"), (key.algorithm, key.kind))
        self.assertEqual(ED25519.public_key().public_bytes_raw(), key.public)
        self.assertFalse(key.is_short)

    def test_faults(self) -> None:
        """Each has one line, which names the file."""
        too_short = (  # a key of 512 bits, which the library no longer makes
            b"-----BEGIN PRIVATE KEY-----\n"
            b"MIIBVQIBADANBgkqhkiG9w0BAQEFAASCAT8wggE7AgEAAkEA\n-----END PRIVATE KEY-----\n"
        )
        numbers = RSA.private_numbers()
        other = rsa.RSAPrivateNumbers(
            numbers.p,
            numbers.q,
            numbers.d + 2,
            numbers.dmp1 + 2,
            numbers.dmq1 + 2,
            numbers.iqmp,
            numbers.public_numbers,
        ).private_key(unsafe_skip_rsa_key_validation=True)
        for octets, problem in (
            (pem(other), "is damaged: its signatures are wrong"),
            (b"", "holds no PEM private key"),
            (b"\xff" * 10, "holds no PEM private key"),
            (too_short, "holds no PEM private key"),
            (pem(RSA)[:900], "holds no PEM private key"),
            (
                pem(RSA, encryption=BestAvailableEncryption(b"x")),
                "is encrypted; remove its passphrase",
            ),
            (
                pem(ec.generate_private_key(ec.SECP256R1())),
                "holds a key that DKIM has no use for; expected RSA or Ed25519",
            ),
        ):
            path = self.write(octets)
            fault = self.assertRaises(KeyFault, read, path)
            self.assertEqual(f"{path}: {problem}", str(fault))

    def test_files_that_cannot_be_read(self) -> None:
        """A pipe is none that the server would wait for."""
        missing = self.folder / "missing.pem"
        self.assertEqual(
            f"{missing}: No such file or directory", str(self.assertRaises(KeyFault, read, missing))
        )
        pipe = self.folder / "pipe"
        os.mkfifo(pipe)
        self.assertEqual(
            f"{pipe}: Not a regular file", str(self.assertRaises(KeyFault, read, pipe))
        )


class FindingTests(KeyCase):
    """What ``mta check`` says of keys."""

    def findings(self, *files: Path) -> list[tuple[object, str, bool]]:
        """The findings for a domain with these keys."""
        keys = tuple(DKIMKey(f"s{n}", file, KeyState.RETIRING) for n, file in enumerate(files))
        domain = Domain("example.com", Hop(Agent.DISCARD), dkim=keys)
        settings = Settings("mail.example.com", domains={"example.com": domain})
        return [(each.keys[3:], each.text, each.is_fatal) for each in findings(settings)]

    def test_good_keys(self) -> None:
        files = [self.write(pem(RSA), "a"), self.write(pem(ED25519), "b")]
        self.assertEqual([], self.findings(*files))

    def test_what_is_wrong(self) -> None:
        """No fault of a key keeps the server from its start."""
        short = self.write(pem(SHORT), "short")
        open_to_all = self.write(pem(RSA), "open", 0o644)
        missing = self.folder / "missing"
        self.assertEqual(
            [
                (
                    (0, "key"),
                    f"{short}: has fewer than 2048 bits: mta dkim rotate example.com",
                    False,
                ),
                (
                    (1, "key"),
                    f"{open_to_all}: has a private key, and is open to all users of this host:"
                    f" chmod o= {open_to_all}",
                    False,
                ),
                (
                    (2, "key"),
                    f"{missing}: No such file or directory: mail from example.com waits, as it"
                    " can't be signed",
                    False,
                ),
            ],
            self.findings(short, open_to_all, missing),
        )

    def test_reports_that_nobody_believes(self) -> None:
        """A host that reports needs keys for its name."""
        key = DKIMKey("s", self.write(pem(ED25519)))
        domain = Domain("example.com", Hop(Agent.DISCARD), dkim=(key,))
        settings = Settings(
            "mail.example.com",
            domains={"example.com": domain},
            authentication=Authentication(reports="daily"),
        )
        self.assertEqual([], list(reports(settings)))
        self.assertEqual([], list(reports(Settings("mail.example.com"))))
        [finding] = reports(replace(settings, domains={}))
        self.assertIn("mta dkim add mail.example.com", finding.text)
        self.assertFalse(finding.is_fatal)
