"""The maildrop."""
