"""A server that says its words on each connection, and reads nothing.

``python -m bench.programs.deaf WORDS`` listens on a port of its own, which it prints.  ``|`` is the
end of a line.
"""

from __future__ import annotations

import socket
import sys


def main(words: str) -> None:
    """See the module."""
    connections = []
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            connections.append(listener.accept()[0])
            connections[-1].sendall(words.replace("|", "\r\n").encode())


if __name__ == "__main__":
    main(sys.argv[1])
