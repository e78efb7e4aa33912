"""DMARC: the policies of authors' domains, and their fulfilment (RFC 9989).

`record` reads policy records, `tree_walk` finds them, `author` has the domains of the author, and
`evaluation` joins all that with the results of SPF and DKIM.
"""

from mta.authentication.dmarc.author import MAX_AUTHOR_DOMAINS, AuthorDomains, author_domains
from mta.authentication.dmarc.evaluation import (
    DMARCResult,
    Identifiers,
    Result,
    evaluate,
    evaluate_all,
)
from mta.authentication.dmarc.record import Policy, Record, parse_record
from mta.authentication.dmarc.tree_walk import MAX_QUERIES, TreeWalk

__all__ = [
    "MAX_AUTHOR_DOMAINS",
    "MAX_QUERIES",
    "AuthorDomains",
    "DMARCResult",
    "Identifiers",
    "Policy",
    "Record",
    "Result",
    "TreeWalk",
    "author_domains",
    "evaluate",
    "evaluate_all",
    "parse_record",
]
