"""The program killed, without power, and with calls that fail: what was acknowledged is there."""
