"""The promises of a spool, kept by the one in PostgreSQL: on one node, and on several."""

from __future__ import annotations

from tests.spool.contract import CommitContract, LeaseContract
from tests.spool.peer_mail_contract import LentContract, TakenContract
from tests.spool.postgres import NodesTestCase, PostgresTestCase
from tests.spool.record_contract import HeldContract, PostponeContract, RecordContract
from tests.spool.shared_contract import SharedContract, ToolContract


class PostgresPeerMailTests(TakenContract, LentContract, PostgresTestCase):
    """`IPreviews`, and mail that peers bring again, in PostgreSQL."""

    keeps_file = False


class PostgresCommitTests(CommitContract, PostgresTestCase):
    """`ISpool` in PostgreSQL."""


class PostgresLeaseTests(LeaseContract, PostgresTestCase):
    """`ILeases` in PostgreSQL."""


class PostgresHeldTests(HeldContract, PostgresTestCase):
    """`IHeldLeases` in PostgreSQL."""


class PostgresRecordTests(RecordContract, PostgresTestCase):
    """`IAttemptRecords` in PostgreSQL."""


class PostgresPostponeTests(PostponeContract, PostgresTestCase):
    """`IAttemptRecords.postpone` in PostgreSQL."""


class PostgresSharedTests(SharedContract, PostgresTestCase):
    """Several processes on one node."""


class PostgresNodesTests(SharedContract, NodesTestCase):
    """Processes on nodes of their own."""

    def test_attempts(self) -> None:
        """Left out: what a process tried is known on its node alone."""


class PostgresToolTests(ToolContract, PostgresTestCase):
    """The tools on a database."""
