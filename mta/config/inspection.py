"""The keys of what looks at mail on its way in."""

from __future__ import annotations

from mta.config import values
from mta.config.document import Fields, list_of
from mta.settings import Judgement, JunkUse, OnDNSError

_SPF = {"off": Judgement.OFF, "on": Judgement.RECORD, "reject": Judgement.REJECT}
# Programs that write YAML make truth values of these words.
_FALSE = {"false": Judgement.OFF}

AUTHENTICATION: Fields = {
    "authserv_id": values.domain,
    "spf": values.one_of(_SPF, {"true": Judgement.RECORD, **_FALSE}),
    "dkim": values.on_off,
    "dmarc": values.one_of({each.value: each for each in Judgement}, _FALSE),
    "on_dns_error": values.member_of(OnDNSError),
    "trusted_forwarders": list_of(values.name_or_network, "a list of host names and IP networks"),
    "reports": values.one_of({"off": "off", "daily": "daily"}, {"false": "off"}),
    "junk": values.member_of(JunkUse),
}
