"""Tests of the protocol: no reactor, no sockets, no clock."""
