"""Golden dialogues: the tables, and the tests that play them."""
