"""Files in the age format, with age and pyrage as judges."""

from __future__ import annotations

import os
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import pyrage
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mta.interfaces import NotOpened
from mta.sealing import bech32, stanzas
from mta.sealing.agefile import CHUNK, MAX_HEADER, Opening, Sealing, opened, sealed
from mta.sealing.keys import (
    MAX_FILE,
    MAX_KEYS,
    PrivateKey,
    PublicKey,
    SealKeyFault,
    private_keys,
    public_keys,
)
from mta.sealing.stanzas import UnknownKey
from tests.processes import need_program, source_environment

KEY = PrivateKey.new()
SIZES = (0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 200_000)


class FormatTests(SynchronousTestCase):
    """Others open what we seal, and we what they seal."""

    def test_pyrage(self) -> None:
        """Every size that meets an end of a chunk, both ways, for several keys."""
        theirs = pyrage.x25519.Identity.generate()
        key = PublicKey.read(str(theirs.to_public()))
        for size in SIZES:
            octets = os.urandom(size)
            self.assertEqual(pyrage.decrypt(sealed(octets, [KEY.public, key]), [theirs]), octets)
            recipient = pyrage.x25519.Recipient.from_str(str(KEY.public))
            there = pyrage.encrypt(octets, [theirs.to_public(), recipient])
            self.assertEqual(opened(there, [PrivateKey.new(), KEY]), octets)

    def test_debian(self) -> None:
        """Debian's age, both ways, with a key of age-keygen."""
        age, keygen = need_program(self, "age"), need_program(self, "age-keygen")
        path = Path(self.mktemp())
        subprocess.run([keygen, "-o", str(path)], check=True, capture_output=True)
        (key,) = private_keys(path)
        self.assertIn(f"# public key: {key.public}", path.read_text())

        def run(octets: bytes, *arguments: str) -> bytes:
            command = [age, *arguments]
            return subprocess.run(command, input=octets, capture_output=True, check=True).stdout

        octets = os.urandom(200_000)
        file = sealed(octets, [KEY.public, key.public])
        self.assertEqual(run(file, "-d", "-i", str(path)), octets)
        there = run(octets, "-r", str(KEY.public), "-r", str(key.public))
        self.assertEqual(opened(there, [KEY]), octets)

    def test_other_kinds_of_recipients(self) -> None:
        """A recipient of a kind that we don't know is passed over."""
        ssh = pyrage.ssh.Recipient.from_str(
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW+uObz5dvMgjz1OxfM/XXUB+VHtZ6isGN x"
        )
        recipient = pyrage.x25519.Recipient.from_str(str(KEY.public))
        self.assertEqual(opened(pyrage.encrypt(b"hello", [ssh, recipient]), [KEY]), b"hello")

    def test_long_stanzas(self) -> None:
        """What is for others may have several lines, the last of them empty."""
        file_key = bytes(16)
        ours = stanzas.written(file_key, [KEY.public])
        start = stanzas.VERSION
        own = ours.removeprefix(start).partition(b"--- ")[0]
        for body in (b"A" * 64 + b"\n\n", b"A" * 64 + b"\n" + b"AAAA\n"):
            signed = start + b"-> other x y\n" + body + own + b"---"
            code = stanzas._base64(stanzas._code(file_key, signed))
            self.assertEqual(stanzas.file_key(signed + b" " + code + b"\n", [KEY]), file_key)

    @given(st.lists(st.binary(max_size=300), max_size=20), st.integers(1, 400))
    def test_pieces(self, pieces: list[bytes], cut: int) -> None:
        """The cut of what comes does not matter, on either side."""
        sealing = Sealing([KEY.public])
        file = b"".join(map(sealing.add, pieces)) + sealing.end()
        opening = Opening([KEY])
        found = [opening.add(file[place : place + cut]) for place in range(0, len(file), cut)]
        self.assertEqual(b"".join(found) + opening.end(), b"".join(pieces))

    def test_each_file_is_another(self) -> None:
        """The same octets have nothing in common when they are sealed twice."""
        start = b"age-encryption.org/v1\n-> X25519 "
        first, second = (sealed(b"hello", [KEY.public]).removeprefix(start) for _ in range(2))
        same = sum(one == other for one, other in zip(first, second, strict=True))
        self.assertLess(same, len(first) // 4)


class DamageTests(SynchronousTestCase):
    """What is not as it was sealed."""

    def assert_not_opened(self, file: bytes) -> None:
        """It can't be opened."""
        with self.assertRaises(NotOpened):
            opened(file, [KEY])

    def test_every_octet_counts(self) -> None:
        """A bit that flips, an octet that is missing or one too many: all show."""
        file = sealed(b"hello", [KEY.public])
        self.assertEqual(opened(file, [KEY]), b"hello")
        for place in range(len(file)):
            flipped = bytearray(file)
            flipped[place] ^= 1
            self.assert_not_opened(bytes(flipped))
            self.assert_not_opened(file[:place])
        self.assert_not_opened(file + b"x")

    def test_chunks(self) -> None:
        """Whole chunks that are missing, doubled or out of order show."""
        file = sealed(bytes(3 * CHUNK + 5), [KEY.public])
        start = len(file) - 3 * (CHUNK + 16) - 5 - 16
        head = file[:start]
        chunks = [file[start + n * (CHUNK + 16) :][: CHUNK + 16] for n in range(4)]
        self.assertEqual(opened(head + b"".join(chunks), [KEY]), bytes(3 * CHUNK + 5))
        for order in ((0, 1, 2), (0, 2, 1, 3), (0, 1, 1, 2, 3), (1, 2, 3)):
            self.assert_not_opened(head + b"".join(chunks[n] for n in order))

    def test_an_empty_last_chunk(self) -> None:
        """It is for empty files alone, so that each content has one form."""
        sealing = Sealing([KEY.public])
        file, chunks = sealing.add(b""), sealing._chunks
        file += chunks.seal(bytes(CHUNK), last=False) + chunks.seal(b"", last=True)
        self.assert_not_opened(file)

    def test_another_key(self) -> None:
        """It is known from damage."""
        with self.assertRaises(UnknownKey):
            opened(sealed(b"hello", [KEY.public]), [PrivateKey.new()])

    def test_no_end(self) -> None:
        """A header without an end is not kept in memory."""
        opening = Opening([KEY])
        opening.add(b"age-encryption.org/v1\n")
        with self.assertRaises(NotOpened):
            for _ in range(MAX_HEADER // 50 + 1):
                opening.add(b"-> x\n" * 10)

    def test_forms(self) -> None:
        """Headers whose parts are wrong, by their form or their length."""
        start, end = b"age-encryption.org/v1\n", b"--- " + b"A" * 43 + b"\n" + bytes(40)
        good = b64encode(bytes(32)).rstrip(b"=")
        for stanza in (
            b"x\n",
            b"-> X25519\n\n",
            b"-> X25519 %s\n!\n" % good,
            b"-> X25519 %s\n%s\n" % (good, good[:-1]),
            b"-> X25519 %s\n%s\n" % (good[:-2], good),
            b"-> X25519 %s\n%s\n" % (good, good),  # a share that is no key
            b"-> X25519 %s=\n%s\n" % (good, good),
            b"-> X25519 \xc3\xa4\n%s\n" % good,
        ):
            self.assert_not_opened(start + stanza + end)
        self.assert_not_opened(start + end)
        self.assert_not_opened(b"Received: from somewhere\r\n")


class KeyTests(SynchronousTestCase):
    """Keys as text, and their files."""

    def test_text(self) -> None:
        """Our text is that of age, and so is its reading."""
        theirs = pyrage.x25519.Identity.generate()
        key = PrivateKey.read(str(theirs))
        self.assertEqual((key.text, str(key.public)), (str(theirs), str(theirs.to_public())))
        self.assertEqual(PublicKey.read(str(key.public).upper()), key.public)

    @given(st.binary(max_size=60))
    def test_bech32(self, octets: bytes) -> None:
        """Any octets are read as they were written."""
        self.assertEqual(bech32.decoded("age", bech32.encoded("age", octets)), octets)

    def test_slips(self) -> None:
        """A letter that is wrong, missing or of another case is told, and not shown."""
        text = str(KEY.public)
        mixed = text[:9] + text[9:].upper()
        for wrong in (text[:-1], text + "q", text.replace("age1", "age2"), mixed, "age1x"):
            with self.assertRaises(ValueError) as raised:
                PublicKey.read(wrong)
            self.assertNotIn(text[10:20], str(raised.exception))
        with self.assertRaises(ValueError):
            PublicKey.read(bech32.encoded("age", bytes(31)))

    def test_padding(self) -> None:
        """Bits behind the last octet are zeros, so that each key has one text."""
        data = [*bech32._regrouped(bytes(2), 8, 5), 1]
        checksum = bech32._polymod([*bech32._expanded("age"), *data, *[0] * 6]) ^ 1
        symbols = [*data, *(checksum >> 5 * (5 - place) & 31 for place in range(6))]
        text = "age1" + "".join(bech32._ALPHABET[symbol] for symbol in symbols)
        with self.assertRaisesRegex(ValueError, "padding"):
            bech32.decoded("age", text)

    def test_repr(self) -> None:
        """A private key does not show itself."""
        self.assertNotIn(repr(KEY.octets), repr(KEY))

    def file(self, text: str) -> Path:
        """A file with that text."""
        path = Path(self.mktemp())
        path.write_text(text)
        return path

    def test_files(self) -> None:
        """Comments and empty lines do not count; the order is kept."""
        other = PrivateKey.new()
        path = self.file(f"# of the office\n\n{KEY.text}\n  {other.text}\r\n")
        self.assertEqual(private_keys(path), [KEY, other])
        self.assertEqual(public_keys(self.file(f"{KEY.public}")), [KEY.public])

    def test_faults(self) -> None:
        """One line says which file and line, and never the secret."""
        reads: list[tuple[Callable[[Path], object], str]] = [
            (public_keys, KEY.text),
            (private_keys, str(KEY.public)),
            (private_keys, KEY.text[:-1]),
            (private_keys, "# nothing"),
            (private_keys, f"{KEY.text}\n" * (MAX_KEYS + 1)),
            (private_keys, f"{KEY.text}\n" + "#" * MAX_FILE),
        ]
        for read, text in reads:
            path = self.file(text)
            with self.assertRaises(SealKeyFault) as raised:
                read(path)
            self.assertTrue(str(raised.exception).startswith(f"{path}:"))
            self.assertNotIn(KEY.text[20:40], str(raised.exception))
        with self.assertRaises(SealKeyFault):
            public_keys(Path(self.mktemp()))


_MEBIBYTES = """
import resource, sys
from mta.sealing.agefile import Opening, Sealing
from mta.sealing.keys import PrivateKey

def most():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

key, piece = PrivateKey.new(), bytes(2**16)
sealing, opening = Sealing([key.public]), Opening([key])
count = sum(len(opening.add(sealing.add(piece))) for _ in range(16))
before = most()
for _ in range((int(sys.argv[1]) - 1) * 16):
    count += len(opening.add(sealing.add(piece)))
count += len(opening.add(sealing.end())) + len(opening.end())
print(count, most() - before)
"""


class MemoryTests(SynchronousTestCase):
    """Large content."""

    def test_fifty_mebibytes(self) -> None:
        """They are sealed and opened with no more memory than the first one takes."""
        ended = subprocess.run(
            [sys.executable, "-c", _MEBIBYTES, "50"],
            capture_output=True,
            check=True,
            text=True,
            env=source_environment(),
        )
        count, growth = map(int, ended.stdout.split())
        self.assertEqual(count, 50 * 2**20)
        self.assertLess(growth, 1024)  # KiB
