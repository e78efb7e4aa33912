"""The grammar of SMTP: octets to commands, and back.  RFC 5321 sections 4.1.2 and 4.1.3, RFC 6531.

Whatever arrives, only `Refusal` is raised for it; whatever is sent, only `LocalFault`.

`commands` has the command lines, `addresses` the paths and domains in them, `parameters` those of
MAIL and RCPT, `xtext` the text in these; `xclient` and `xforward` are what other servers say of
their clients, by `client_attributes`.
"""

from mta.smtp.grammar.addresses import (
    MAX_DOMAIN,
    MAX_LOCAL_PART,
    MAX_OWN_PATH,
    has_route,
    parse_domain,
    parse_mailbox,
    path,
)
from mta.smtp.grammar.commands import (
    Command,
    compile_patterns,
    is_foreign,
    mail_command,
    parse_bdat,
    parse_command,
    parse_domains,
    parse_etrn,
    parse_hello,
    parse_list,
    parse_mail,
    parse_pairing,
    parse_rcpt,
    rcpt_command,
)
from mta.smtp.grammar.xclient import XCLIENT_ATTRIBUTES, ProxiedClient, parse_xclient
from mta.smtp.grammar.xforward import (
    LOCAL,
    REMOTE,
    XFORWARD_ATTRIBUTES,
    ForwardedClient,
    parse_xforward,
    xforward_commands,
)
from mta.smtp.grammar.xtext import decode_xtext, encode_original, encode_xtext

__all__ = [
    "LOCAL",
    "MAX_DOMAIN",
    "MAX_LOCAL_PART",
    "MAX_OWN_PATH",
    "REMOTE",
    "XCLIENT_ATTRIBUTES",
    "XFORWARD_ATTRIBUTES",
    "Command",
    "ForwardedClient",
    "ProxiedClient",
    "compile_patterns",
    "decode_xtext",
    "encode_original",
    "encode_xtext",
    "has_route",
    "is_foreign",
    "mail_command",
    "parse_bdat",
    "parse_command",
    "parse_domain",
    "parse_domains",
    "parse_etrn",
    "parse_hello",
    "parse_list",
    "parse_mail",
    "parse_mailbox",
    "parse_pairing",
    "parse_rcpt",
    "parse_xclient",
    "parse_xforward",
    "path",
    "rcpt_command",
    "xforward_commands",
]
