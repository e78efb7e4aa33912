"""A filter that does what a script says, by the real libmilter.

``python3 scripted_milter.py SOCKET SCRIPT LOG``, with the system's Python and its python3-milter.
The script is JSON, read at each connection: ``negotiate`` has ``actions``, ``protocol`` and lists
of ``macros``; each other key is a callback, with what it returns: a word, a list of code, enhanced
code and lines, ``stall`` or ``die``.  ``calls`` are made before ``eom`` returns.  The log has a
line of JSON for each callback, with its arguments.
"""

import json
import os
import sys
import time
from pathlib import Path

import Milter

SOCKET, SCRIPT, LOG = sys.argv[1:]
WORDS = {
    "continue": Milter.CONTINUE,
    "accept": Milter.ACCEPT,
    "reject": Milter.REJECT,
    "tempfail": Milter.TEMPFAIL,
    "discard": Milter.DISCARD,
    "skip": Milter.SKIP,
}


class Scripted(Milter.Base):
    """One connection."""

    def negotiate(self, opts):
        self.script = json.loads(Path(SCRIPT).read_text("utf-8"))
        self._note("negotiate", list(opts))
        wanted = self.script.get("negotiate", {})
        opts[0] = wanted.get("actions", opts[0])
        opts[1] = wanted.get("protocol", 0)
        opts[2] = opts[3] = 0
        for stage, names in wanted.get("macros", {}).items():
            self._ctx.setsymlist(int(stage), names)
        self.mute = opts[1]
        return Milter.CONTINUE

    def connect(self, hostname, family, hostaddr):
        return self._answer("connect", hostname, str(hostaddr), mute=Milter.P_NR_CONN)

    def hello(self, hostname):
        return self._answer("hello", hostname, mute=Milter.P_NR_HELO)

    def envfrom(self, path, *parameters):
        return self._answer("envfrom", path, *parameters, mute=Milter.P_NR_MAIL)

    def envrcpt(self, path, *parameters):
        return self._answer("envrcpt", path, *parameters, mute=Milter.P_NR_RCPT)

    def data(self):
        return self._answer("data", mute=Milter.P_NR_DATA)

    def header(self, field, value):
        return self._answer("header", field, value, mute=Milter.P_NR_HDR)

    def eoh(self):
        return self._answer("eoh", mute=Milter.P_NR_EOH)

    def body(self, chunk):
        return self._answer("body", chunk.decode("latin-1"), mute=Milter.P_NR_BODY)

    def unknown(self, line):
        return self._answer("unknown", line, mute=Milter.P_NR_UNKN)

    def eom(self):
        for name, *arguments in self.script.get("calls", []):
            if name == "replacebody":
                arguments = [arguments[0].encode("latin-1") * ([*arguments, 1])[1]]
            getattr(self, name)(*arguments)
        return self._answer("eom")

    def abort(self):
        self._note("abort", [])
        return Milter.CONTINUE

    def close(self):
        self._note("close", [])
        return Milter.CONTINUE

    def _answer(self, callback, *arguments, mute=0):
        names = self.script.get("symbols", [])
        self._note(callback, [*arguments, *(self.getsymval(name) for name in names)])
        answer = self.script.get(callback, "continue")
        if isinstance(answer, dict):  # by the first argument
            answer = answer.get(arguments[0], "continue")
        if answer == "stall":
            time.sleep(60)
        if answer == "die":
            os._exit(1)
        if self.mute & mute:
            return Milter.NOREPLY
        if isinstance(answer, list):
            self.setreply(*answer)
            answer = "reject" if answer[0].startswith("5") else "tempfail"
        return WORDS[answer]

    def _note(self, callback, arguments):
        with Path(LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps([callback, *arguments]) + "\n")


Milter.factory = Scripted
Milter.set_flags(Milter.CURR_ACTS)
print("ready", flush=True)
Milter.runmilter("scripted", SOCKET, 240)
