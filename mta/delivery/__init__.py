"""The delivery agents: how messages leave us, each mechanism in a module of its own."""
