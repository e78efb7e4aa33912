"""Mail exchangers, each with a manner of its own: ``python -m tests.interop.exchangers JSON``.

The argument maps addresses to manners; each listens on port 25 and says what it hears of interest.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time

GREETINGS = {"no service": "554 5.7.1 no service", "never": "521 never", "busy": "421 4.3.2 busy"}
WHAT_MAIL_GETS = {"later": "451 4.3.0 later", "closing": "421 4.3.2 closing"}
SILENCE = 1000.0  # seconds


def listen(address: str, manner: str) -> None:
    """Serve all who come."""
    listener = socket.create_server((address, 25))
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=(connection, address, manner), daemon=True).start()


def serve(connection: socket.socket, address: str, manner: str) -> None:
    """Serve one connection."""
    if manner == "silent":
        time.sleep(SILENCE)
    with connection, connection.makefile("rwb") as stream:
        _say(stream, GREETINGS.get(manner, f"220 {address}"))
        in_content = False
        for octets in stream:
            line = octets.decode("latin-1").rstrip("\r\n")
            if in_content:
                if line.startswith("Subject: "):
                    subject = line.removeprefix("Subject: ")
                elif line == ".":
                    in_content = False
                    print(f"{address} took {subject}", flush=True)
                    _say(stream, "250 2.0.0 taken")
                continue
            verb = line.split(" ")[0]
            if verb == "MAIL" and manner == "lost":
                return
            in_content = verb == "DATA"
            _say(stream, _reply(verb, manner))
            if verb == "QUIT":
                print(f"{address} heard QUIT", flush=True)
                return


def _reply(verb: str, manner: str) -> str:
    if verb == "MAIL":
        return WHAT_MAIL_GETS.get(manner, "250 2.1.0 fine")
    return {"DATA": "354 go ahead", "QUIT": "221 2.0.0 bye"}.get(verb, "250 2.0.0 fine")


def _say(stream: object, reply: str) -> None:
    stream.write(reply.encode() + b"\r\n")  # type: ignore[attr-defined]
    stream.flush()  # type: ignore[attr-defined]


if __name__ == "__main__":
    for one, its_manner in json.loads(sys.argv[1]).items():
        threading.Thread(target=listen, args=(one, its_manner), daemon=True).start()
    time.sleep(0.5)
    print("ready", flush=True)
    time.sleep(SILENCE)
