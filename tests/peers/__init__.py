"""Role reversal."""
