"""Mail in from outside, whose sender is authenticated."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator, Mapping
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from bench.figures import KIB, Bench, Figure, stopping
from bench.loads import Load, in_turn
from bench.servers import DOMAIN, Script
from mta.authentication.dkim import SIGNED_BODY, BodyHasher, SigningKey, signature_fields

SENDER = "client.example"  # of the sender that all loads have
SELECTOR = "bench"


class Authentication:
    """SPF, DKIM (RSA 2048) and DMARC, which all pass, against none of them."""

    name = "authentication"

    def measure(self, bench: Bench) -> Iterator[Figure]:
        """See `Row.measure`."""
        key = rsa.generate_private_key(65537, 2048)
        names = Script("name_server", json.dumps(_records(key)))
        content = _content(bench.next_folder(), key)
        outside = {"relay": {"networks": []}, "resolver": [f"127.0.0.1:{names.port}"]}
        judging = bench.ours(keys={**outside, "authentication": {}})
        plain = bench.ours(keys=outside)
        with stopping(judging, plain, names):
            in_turn(Load(KIB, 10, True, 200, content=content), [judging, plain], 1)
            for sessions in (1, 10):
                number = bench.messages(600 if sessions == 1 else 1500)
                load = Load(KIB, sessions, True, number, content=content)
                costs = in_turn(load, [judging, plain], bench.repetitions)
                plural = "s" if sessions > 1 else ""
                yield Figure(
                    f"1 KiB, {sessions} session{plural}, SPF, DKIM and DMARC: CPU",
                    "s/1,000 messages",
                    [1000 * cost.cpu for cost in costs[judging]],
                    [1000 * cost.cpu for cost in costs[plain]],
                    1.6,
                    at_most=True,
                    peer="mta without them",
                )


def _records(key: rsa.RSAPrivateKey) -> Mapping[str, str]:
    """What the DNS has of the sender."""
    public = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return {
        SENDER: f"v=spf1 include:_spf.{SENDER} -all",
        f"_spf.{SENDER}": "v=spf1 ip4:192.0.2.0/24 ip6:2001:db8::/32 ip4:127.0.0.0/8 ~all",
        f"_dmarc.{SENDER}": f"v=DMARC1; p=reject; rua=mailto:dmarc@{SENDER}",
        f"{SELECTOR}._domainkey.{SENDER}": f"v=DKIM1; k=rsa; p={b64encode(public).decode()}",
    }


def _content(folder: Path, key: rsa.RSAPrivateKey) -> Path:
    """Write a message of 1 KiB, and the fields that mail has; returns its file."""
    section = (
        f"Received: from a.{SENDER} (a.{SENDER} [192.0.2.9])\r\n"
        f"\tby b.{SENDER} with ESMTPS id 4D2k5b1;\r\n\tFri, 27 Nov 2026 12:00:00 +0000 (UTC)\r\n"
        f"From: Sender <sender@{SENDER}>\r\nTo: inbox@{DOMAIN}\r\nSubject: bench\r\n"
        f"Date: Fri, 27 Nov 2026 12:00:00 +0000\r\nMessage-ID: <1@{SENDER}>\r\n"
        "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n"
    ).encode()
    body = (b"x " * 35 + b"\r\n") * (KIB // 72)
    hasher = BodyHasher({SIGNED_BODY})
    hasher.feed(body)
    hasher.end()
    keys = [SigningKey(SENDER, SELECTOR, key)]
    signature = signature_fields(section, hasher.digest(SIGNED_BODY), keys, 1_795_000_000)
    folder.mkdir()
    file = folder / "content"
    file.write_bytes(signature + section + body)
    return file
