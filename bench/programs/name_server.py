"""A name server on UDP that knows some texts, and no other names.

``python -m bench.programs.name_server JSON`` maps names to TXT records, and prints its port.
"""

from __future__ import annotations

import json
import socket
import sys

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

LIFETIME = 3600  # seconds: longer than a measurement


def answer(octets: bytes, texts: dict[str, str]) -> bytes:
    """The response to a query."""
    query = dns.message.from_wire(octets)
    response = dns.message.make_response(query, recursion_available=True)
    [question] = query.question
    name = question.name.to_text(omit_final_dot=True).lower()
    if name not in texts:
        response.set_rcode(dns.rcode.NXDOMAIN)
    elif question.rdtype == dns.rdatatype.TXT:
        text = texts[name]
        strings = " ".join(f'"{text[at : at + 255]}"' for at in range(0, len(text), 255))
        response.answer = [dns.rrset.from_text(question.name, LIFETIME, "IN", "TXT", strings)]
    return response.to_wire()


if __name__ == "__main__":
    known = json.loads(sys.argv[1])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        print(server.getsockname()[1], flush=True)
        while True:
            query, client = server.recvfrom(4096)
            server.sendto(answer(query, known), client)
