"""Messages as programs in use write them, each odd in its own way.

All of them have an author in example.com, and lines that end as they should.
"""

from __future__ import annotations

from collections.abc import Mapping

_GATEWAY = "an old gateway: names of fields in capitals, blanks before colons, a uuencoded file"
READ_BY_US_ALONE = frozenset({_GATEWAY})  # dkimpy, OpenDKIM and rspamd take blanks for no header
_BASE64_LINE = "TG9yZW0gaXBzdW0gZG9sb3Igc2l0IGFtZXQsIGNvbnNlY3RldHVyIGFkaXBpc2NpbmcgZWxpdA==\n"

_TEXTS: Mapping[str, str | bytes] = {
    "a web form: no blank behind colons, no Date, no Message-ID": """\
From:"Shop" <shop@example.com>
To:bob@partner.example
Subject:Your order
MIME-Version:1.0
Content-Type:text/html;charset=utf-8
X-PHP-Originating-Script:0:mail.php

<html><body>Thanks!</body></html>
""",
    "a mailing list: the subject changed, a footer added, signatures that are broken now": """\
Received: from lists.partner.example (lists.partner.example [192.0.2.7])
\tby mx.example.net (Postfix) with ESMTPS id 4X1
\tfor <bob@example.net>; Fri, 27 Nov 2026 12:00:00 +0000 (UTC)
From: Alice via Discuss <alice@example.com>
Reply-To: Alice <alice@example.com>, discuss@lists.partner.example
To: discuss@lists.partner.example
Subject: [Discuss] lunch
Date: Fri, 27 Nov 2026 11:59:00 +0000
Message-ID: <CAF=x+y_z@mail.example.com>
Sender: "Discuss" <discuss-bounces@lists.partner.example>
Precedence: list
List-Id: The discussion <discuss.lists.partner.example>
List-Unsubscribe: <https://lists.partner.example/options/discuss>,
 <mailto:discuss-request@lists.partner.example?subject=unsubscribe>
List-Post: <mailto:discuss@lists.partner.example>
Errors-To: discuss-bounces@lists.partner.example
X-BeenThere: discuss@lists.partner.example
X-Mailman-Version: 3.3.3

Shall we?

--\x20
Alice
_______________________________________________
Discuss mailing list
discuss@lists.partner.example
""",
    "a desktop program: folds with blanks alone in a line, tabs, trailing blanks": """\
Message-ID: <000001d9$f3c1$9b4e@example.com>
From: "Alice \\"the boss\\" Doe"\x20
\t<alice@example.com>
To: "Doe, Bob" <bob@partner.example>,\x20
\t\t"Roe (sales)" <roe@partner.example>
Subject:\x20
\tRe: Fwd: Re:   the   offer\x20\x20
Thread-Index: AQHZ8w==
X-Priority: 3 (Normal)
X-MSMail-Priority: Normal
Importance: Normal
X-Mailer: Desktop 16.0
Content-Type: multipart/alternative;
\tboundary="----=_NextPart_000_0001_01D9F3C1.9B4E0000"
Content-Language: de

This is a multi-part message in MIME format.

------=_NextPart_000_0001_01D9F3C1.9B4E0000
Content-Type: text/plain;
\tcharset="us-ascii"
Content-Transfer-Encoding: quoted-printable

A line =
that goes on =20
=3D

------=_NextPart_000_0001_01D9F3C1.9B4E0000--

""",
    "a telephone: flowed text, quotes, blanks at the ends of lines": """\
Content-Type: text/plain; charset=us-ascii; format=flowed; delsp=yes
Content-Transfer-Encoding: 7bit
From: Alice Doe <alice@example.com>
Mime-Version: 1.0 (1.0)
Date: Fri, 27 Nov 2026 12:00:00 +0100
Subject: Re: where are you
Message-Id: <1A2B3C4D-0000-1111-2222-333344445555@example.com>
References: <1@partner.example> <2@partner.example>
 <3@partner.example>
In-Reply-To: <3@partner.example>
To: Bob <bob@partner.example>
X-Mailer: Telephone (23A344)

On my way.\x20

> On 27 Nov 2026, at 11:55, Bob <bob@partner.example> wrote:
>\x20
> \x20where are you?
>\x20
""",
    "a calendar: long lines, lines that begin with a blank, text behind the end": """\
From: Calendar <calendar@example.com>
To: bob@partner.example
Subject: =?UTF-8?B?RWlubGFkdW5nOiBNaXR0YWdlc3Nlbg==?= =?UTF-8?Q?_=C3=BCber_den_D=C3=A4chern?=
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=x
Auto-Submitted: auto-generated

--x
Content-Type: text/calendar; method=REQUEST; charset=UTF-8

BEGIN:VCALENDAR
DESCRIPTION:"""
    + "long " * 180
    + """
 and folded\\, too
END:VCALENDAR
--x--
what a scanner added
""",
    "a bounce of an old server: no MIME, a null sender, the message as text": """\
Date: 27 Nov 2026 12:00:00 -0000
From: MAILER-DAEMON@example.com
To: bob@partner.example
Subject: failure notice

Hi. This is the qmail-send program at mail.example.com.
I'm afraid I wasn't able to deliver your message to the following addresses.

<nobody@example.com>:
Sorry, no mailbox here by that name. (#5.1.1)

--- Below this line is a copy of the message.

Return-Path: <bob@partner.example>
From: bob@partner.example

.
..
From here on
>From there
""",
    "a newsletter: dozens of fields, old signatures of others, ARC": """\
DKIM-Signature: v=1; a=rsa-sha1; c=relaxed; d=esp.example; s=k1; h=From:To;
 bh=2jmj7l5rSw0yVb/vlWAYkK/YBwk=; b=AAAA
DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=news.example; s=s1;
 h=from:to:subject; bh=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=; b=AAAA
ARC-Seal: i=1; a=rsa-sha256; t=1; cv=none; d=esp.example; s=a; b=AAAA
ARC-Message-Signature: i=1; a=rsa-sha256; c=relaxed/relaxed; d=esp.example;
 s=a; h=from; bh=AAAA; b=AAAA
ARC-Authentication-Results: i=1; mx.esp.example; spf=pass
Authentication-Results: mx.esp.example; dkim=pass header.d=news.example
From: =?utf-8?Q?The_News_=F0=9F=8E=89?= <news@example.com>
To: <bob@partner.example>
Reply-To: "=?utf-8?B?TmV3cw==?=" <reply+abc=def@example.com>
Subject: =?utf-8?Q?50%_off=E2=80=94today?=
List-Unsubscribe-Post: List-Unsubscribe=One-Click
List-Unsubscribe: <https://news.example.com/u?x=1&y=2>
Feedback-ID: 1:2:3:esp
X-Report-Abuse: Please report abuse here: https://esp.example/abuse
Content-Type: text/html; charset="UTF-8"
Content-Transfer-Encoding: base64

"""
    + _BASE64_LINE * 40,
    "a script with mail(1): authors as comments, a field twice, an empty field": """\
From: root@example.com (Cron Daemon)
To: root@example.com
Subject: Cron <root@web1> test -x /usr/sbin/anacron || ( cd / && run-parts /etc/cron.daily )
X-Cron-Env: <SHELL=/bin/sh>
X-Cron-Env: <HOME=/root>
X-Cron-Env: <PATH=/usr/bin:/bin>
X-Empty:
X-Empty:\x20

\t
/etc/cron.daily/x:
\x1b[31mfailed\x1b[0m\t\x07
""",
    "a fax machine: no subject, no text, an attachment": (
        "From: fax@example.com\nTo: bob@partner.example\nMIME-Version: 1.0\n"
        "Content-Type: application/pdf; name=fax.pdf\nContent-Transfer-Encoding: base64\n\n"
        + _BASE64_LINE * 9
        + "\n\n\n\n"
    ),
    "an address in Unicode (SMTPUTF8), fields as they are": (
        "From: 用户 <用户@example.com>\nTo: Jürgen <jürgen@partner.example>\n"
        "Subject: Grüße aus 東京\n\nÄ Ö Ü\n"
    ),
    "a program of long ago: Latin-1 and GB18030 in fields and text": (
        "From: Müller <mueller@example.com>\nTo: bob@partner.example\nSubject: ".encode("latin-1")
        + "您好".encode("gb18030")
        + " für Sie\n\nGrüße, ".encode("latin-1")
        + "再见".encode("gb18030")
        + b"\n"
    ),
    "several authors, a group as recipient, obsolete routes and dates": """\
From: Alice <alice@example.com>, "Bob R." <bob@example.com>
Sender: Alice <alice@example.com>
To: undisclosed-recipients:;
Cc: The office: carol@example.com, <@old.example,@older.example:dave@example.com>;
Date: Fri, 27 Nov 26 12:00 EST
Message-ID: <1.2.3@[192.0.2.1]>
Resent-From: erin@example.com
Resent-Date: Sat, 28 Nov 2026 00:00:00 +0000

x
""",
    "a ticket system: References that grew for years": (
        "From: Support <support@example.com>\nTo: bob@partner.example\nSubject: Re: [#1]\n"
        "References: "
        + "\n\t".join(f"<{number}.{'x' * 40}@tickets.example.com>" for number in range(120))
        + "\nIn-Reply-To: <119@tickets.example.com>\n\n"
        + "> " * 60
        + "hello\n"
    ),
    _GATEWAY: """\
FROM : ALICE@EXAMPLE.COM
TO : BOB@PARTNER.EXAMPLE
SUBJECT : INVOICE
X400-MTS-IDENTIFIER : [/PRMD=X/ADMD=Y/C=DE/;1]

begin 644 x.txt
#0V%T
`
end
""",
    "blank lines first, blanks at all ends": "From: a@example.com\n\n\n\n \n\t\na \t \n\n \n\n\n",
    "nothing but an author": "From: a@example.com\n\n",
}

ODD_MAIL: Mapping[str, bytes] = {
    name: (text.encode() if isinstance(text, str) else text).replace(b"\n", b"\r\n")
    for name, text in _TEXTS.items()
}
