"""The domain name system, as far as mail needs it.

`resolver` is the door: the `hosts_file` first, then `lookups`, which asks each question once, and
keeps answers in the `cache`.  `chain` follows aliases from one response to the next.
`name_servers` asks those that `resolv_conf` knows, in order; `name_server` knows what one of them
can do, and `transport` carries the messages.  `query`, `response`, `names` and `records` are what
goes over the wire; they use dnspython for names and the data of records.  `reverse` looks up the
names of addresses.
"""

from mta.resolver.resolver import Resolver
from mta.resolver.reverse import ReverseNames

__all__ = ["Resolver", "ReverseNames"]
