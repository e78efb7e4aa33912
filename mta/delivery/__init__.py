"""The delivery agents: the mechanisms by which messages leave us."""
