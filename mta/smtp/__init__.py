"""SMTP itself (RFC 5321), pure: no Twisted, files, clock or sockets."""
