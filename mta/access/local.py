"""Reverse-paths of this host's own programs, made valid elsewhere."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from mta.access import hosts
from mta.mail import Mailbox
from mta.session import LOCAL_ADDRESS, Session
from mta.settings import Network


def qualified(
    session: Session,
    reverse_path: Mailbox,
    *,
    networks: Iterable[Network],
    local_names: Collection[str],
    home_domain: str,
) -> Mailbox:
    """A reverse-path that other hosts can answer to.

    `root@localhost`, and an address at this host's name where that is no domain of ours, is in
    `home_domain` then.  So it is for clients in `networks` only, without a log-in.
    """
    is_near = session.client == LOCAL_ADDRESS or hosts.is_in(session.client, networks)
    if session.turned_peer or session.identity or not is_near:
        return reverse_path
    if reverse_path.domain not in local_names:
        return reverse_path
    return Mailbox(reverse_path.local_part, home_domain)
