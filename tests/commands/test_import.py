"""``mta import``: tables of other servers become lines of the configuration."""

from __future__ import annotations

import os
from pathlib import Path

from mta.commands import tables
from mta.config import Problem
from tests.commands.test_commands import CommandCase, Output

CONFIGURATION = """\
hostname: mail.example.com
spool: spool
domains:
  example.com:            # our own
    deliver: maildir:mail/{domain}/{local}
    mailboxes: [alice, bob]
    aliases:
      postmaster: alice   # somebody must
  flow.example: {deliver: discard, aliases: {x: alice@example.com}}
# the rest
routes:
  default: mx
"""

ALIASES = """\
# See man 5 aliases
mailer-daemon: postmaster
nobody: root
root: alice
Bob: \\bob, bob@elsewhere.example
sales: alice,
   bob, "Carol C." <carol@partner.example>
list: :include:list.txt
"""
IMPORTED_ALIASES = """\
      postmaster: alice   # somebody must
      mailer-daemon: postmaster
      nobody: root
      root: alice
      sales: [alice, bob, carol@partner.example]
      list: [alice, dave@x.example, eve@x.example]
    forward:
      bob: {to: bob@elsewhere.example, keep: true}
  flow.example:"""

VIRTUAL = """\
example.org         anything
info@example.org    alice, bob@example.com
@example.org        alice
@alias.example      @example.com
b@flow.example      bob
john.doe            alice@example.com
"""
IMPORTED_VIRTUAL = """\
      postmaster: alice   # somebody must
      john.doe: alice
  flow.example: {deliver: discard, aliases: {x: alice@example.com, b: bob@example.com}}
  example.org:
    aliases:
      info: [alice@example.com, bob@example.com]
    catch_all: alice@example.com
  alias.example:
    alias_of: example.com
# the rest
"""

UNFIT = """\
postmaster: root
trash: /dev/null
robot: "|/usr/bin/robot -x, y"
alice: alice
carol: carol
ghost: nobodyhere
loop1: loop2
loop2: loop1
bob: alice
bob: carol@x.example
nothing at all
list: :include:none.txt
"""
UNFIT_PROBLEMS = """\
aliases:1:1: the configuration says something else in aliases.postmaster
aliases:2:1: '/dev/null' is a file, and mail ends in Maildirs or is piped
aliases:3:1: '|/usr/bin/robot -x, y' is a command: a domain with `deliver: pipe:` can have one
aliases:5:1: 'carol' stands for itself and is no mailbox: add it to `mailboxes`
aliases:6:1: no mailbox or alias is called nobodyhere@example.com, expected one of example.com
aliases:7:1: alias loop: loop1@example.com -> loop2@example.com -> loop1@example.com, \
expected a mailbox or another host at the end
aliases:8:1: no mailbox or alias is called loop1@example.com, did you mean 'loop2'?
aliases:10:1: line 9 has the same name
aliases:11:1: no `name: value` in 'nothing at all'
aliases:12:1: none.txt: No such file or directory
"""


class ImportCase(CommandCase):
    """A configuration with comments, in the current folder."""

    def setUp(self) -> None:
        super().setUp()
        before = Path.cwd()
        os.chdir(self.folder)
        self.addCleanup(os.chdir, before)
        self.config = Path("mta.yaml")
        self.config.write_text(CONFIGURATION)
        os.environ["MTA_CONFIG"] = "mta.yaml"

    def table(self, text: str, name: str = "aliases") -> str:
        """Write a table; returns its name."""
        Path(name).write_text(text)
        return name


class ImportTests(ImportCase):
    """What is taken in, and what the file looks like then."""

    def test_aliases(self) -> None:
        """Aliases and lists, included files, and who keeps a copy."""
        self.table("# members\nalice\ndave@x.example, eve@x.example\n", "list.txt")
        said = self.succeed("import", "aliases", self.table(ALIASES))
        self.assertEqual(said, f"6 lines taken into {self.config.resolve()}\n")
        before, _, after = CONFIGURATION.partition("      postmaster: alice   # somebody must\n")
        text = self.config.read_text()
        self.assertTrue(text.startswith(before + IMPORTED_ALIASES), text)
        self.assertTrue(text.endswith(after), text)
        self.assertEqual(Path("mta.yaml~").read_text(), CONFIGURATION)
        self.assertIn("partner.example", self.succeed("explain", "sales@example.com"))

    def test_virtual(self) -> None:
        """Domains, catch-alls and domains that are another name."""
        self.succeed("import", "virtual", self.table(VIRTUAL))
        self.assertIn(IMPORTED_VIRTUAL, self.config.read_text())
        self.assertIn("alice@example.com", self.succeed("explain", "anybody@example.org"))

    def test_again(self) -> None:
        """What is known is not written twice; nothing to write leaves the file alone."""
        for table in ("aliases", "virtual"):
            name = self.table("alice: bob\n" if table == "aliases" else VIRTUAL)
            self.succeed("import", table, name)
            text = self.config.read_text()
            Path("mta.yaml~").unlink()
            said = self.succeed("import", table, name)
            self.assertRegex(said, "^0 lines taken into .*mta.yaml, [16] known already\n$")
            self.assertEqual(self.config.read_text(), text)
            self.assertFalse(Path("mta.yaml~").exists())

    def test_what_does_not_fit(self) -> None:
        """Each line is named with its reason, and nothing is changed."""
        status, output, errors = self.run_command("import", "aliases", self.table(UNFIT))
        self.assertEqual((status, output), (1, ""))
        last = "mta: nothing is changed; --skip leaves out what can't be taken in\n"
        self.assertEqual(errors, UNFIT_PROBLEMS + last)
        self.assertEqual(self.config.read_text(), CONFIGURATION)

    def test_skip(self) -> None:
        """The rest is taken in, and what was left out is said."""
        status, output, errors = self.run_command("import", "aliases", "--skip", self.table(UNFIT))
        self.assertEqual(status, 0, errors)
        self.assertEqual(errors, UNFIT_PROBLEMS)
        self.assertRegex(output, "^1 line taken into .*mta.yaml, 1 known already, 10 left out\n$")
        self.assertIn("    forward:\n      bob: alice\n", self.config.read_text())

    def test_dry_run(self) -> None:
        """The difference is shown, and not made."""
        table = self.table("help: bob\n")
        output = self.succeed("import", "aliases", "--dry-run", table)
        self.assertIn("\n       postmaster: alice   # somebody must\n+      help: bob\n", output)
        self.assertEqual(self.config.read_text(), CONFIGURATION)

    def test_another_domain(self) -> None:
        """Names without a domain are where one says."""
        table = self.table("help: bob@example.com\n")
        self.succeed("import", "aliases", "--domain", "Flow.Example", table)
        self.assertIn("{x: alice@example.com, help: bob@example.com}", self.config.read_text())

    def test_the_file_stays_what_it_is(self) -> None:
        """Its mode stays, and a link to it leads to the new one."""
        self.config.chmod(0o640)
        self.config.rename("real.yaml")
        self.config.symlink_to("real.yaml")
        self.succeed("import", "aliases", self.table("help: bob\n"))
        self.assertTrue(self.config.is_symlink())
        self.assertEqual(Path("real.yaml").stat().st_mode & 0o777, 0o640)
        self.assertIn("help: bob", Path("real.yaml").read_text())

    def test_no_place(self) -> None:
        """A configuration that has something else in the way is not changed."""
        self.config.write_text(CONFIGURATION.replace("alias.example", "x").replace("  flow", "  f"))
        table = self.table("@example.com @f.example\n", "virtual")
        status, _, errors = self.run_command("import", "virtual", table)
        self.assertEqual(status, 1)
        self.assertRegex(errors, r"mta.yaml:\d+:\d+: 'alias_of' makes a domain another name")

    def test_no_table(self) -> None:
        """What is not there, or no text, is said in one line."""
        Path("aliases.db").write_bytes(b"\0" * 100)
        for name, reason in [("none", "No such file or directory"), ("aliases.db", "not a table")]:
            status, _, errors = self.run_command("import", "aliases", name)
            self.assertEqual(status, 1)
            self.assertEqual(errors.count("\n"), 1, errors)
            self.assertIn(reason, errors)

    def test_progress(self) -> None:
        """A person at a terminal sees how far it has come, and no trace of that is left."""
        self.patch(Output, "isatty", lambda stream: True)
        _, _, errors = self.run_command("import", "aliases", self.table("help: bob\nme: bob\n"))
        self.assertIn(f"\r[{'#' * 15}{'-' * 15}] 1 of 2", errors)
        self.assertTrue(errors.endswith("\r\x1b[K"), errors)


class TableTests(ImportCase):
    """How the tables are read."""

    def read(self, form: str, text: str) -> list[str]:
        """What each line says, in short."""
        found = tables.READERS[form](Path(self.table(text)), "ours.example")
        return [
            f"{finding.line}: {finding.text}"
            if isinstance(finding, Problem)
            else f"{finding.line}: {finding.address} -> {' '.join(map(str, finding.targets))}"
            for finding in found
        ]

    def test_aliases(self) -> None:
        """Names in quotes, addresses with names and comments, blanks, lines that go on."""
        text = (
            "# one\n\n"
            'a : b(a comment, too), "c"\n'
            "# between\n"
            "\t, D <d@x.example>\n"
            '"A B": x\n'
            "Full@Y.Example: Me@Z.Example\n"
            "none:\n"
            "bad: :fail: gone\n"
            "worse: error:550 gone\n"
            "a..b: x\n"
            "a,b: x\n"
        )
        self.assertEqual(
            self.read("aliases", text),
            [
                "3: a@ours.example -> b@ours.example c@ours.example d@x.example",
                '6: "a b"@ours.example -> x@ours.example',
                "7: full@y.example -> Me@z.example",
                "8: 'none' stands alone, expected an address behind it",
                "9: ':fail: gone' is no address",
                "10: 'error:550 gone' is no address",
                '11: "a..b"@ours.example -> x@ours.example',
                "12: not an address: 'a,b'",
            ],
        )

    def test_encodings(self) -> None:
        """A byte order mark means nothing; what is not UTF-8 is named, but for comments."""
        for kind, colon in (("aliases", ":"), ("virtual", "")):
            text = f"# J\xfcrgen\na@x.example{colon} b@x.example\nj\xfcrgen{colon} b@x.example\n"
            path = Path(self.table(""))
            path.write_bytes(text.encode("latin-1"))
            found = [*getattr(tables, kind)(path, "ours.example")]
            self.assertEqual(str(found[0].address), "a@x.example")
            self.assertIn("not UTF-8", found[1].text)
            path.write_bytes(b"\xef\xbb\xbfa@x.example%s b@x.example\n" % colon.encode())
            (entry,) = getattr(tables, kind)(path, "ours.example")
            self.assertEqual(str(entry.address), "a@x.example")

    def test_inclusion_in_a_circle(self) -> None:
        """Files that include one another come to an end."""
        self.table(":include:list.txt\n", "list.txt")
        (found,) = self.read("aliases", "a: :include:list.txt\n")
        self.assertIn("too many files", found)

    def test_virtual(self) -> None:
        """Names with a dot are domains, unless an address is behind them; no colons."""
        colon = (
            "'a' and a colon: a virtual table has only white space between a name and its"
            " addresses, and one with colons is read by `mta import aliases`"
        )
        text = (
            "one.example  anything at all\n"
            "john.doe     j@one.example\n"
            "plain        me, @two.example\n"
            "@one.example j@one.example,\n"
            "   k@one.example\n"
            "@bad..example x\n"
            "a: b\n"
            "a : b\n"
            "a, b c\n"
        )
        self.assertEqual(
            self.read("virtual", text),
            [
                '1: ""@one.example -> ',
                "2: john.doe@ours.example -> j@one.example",
                '3: plain@ours.example -> me@ours.example ""@two.example',
                '4: ""@one.example -> j@one.example k@one.example',
                "6: not a domain: 'bad..example'",
                f"7: {colon}",
                f"8: {colon}",
                "9: not an address: 'b c'",
            ],
        )
