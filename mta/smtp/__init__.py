"""SMTP itself, pure: no Twisted, no files, no clock, no sockets (RFC 5321)."""
