"""The nouns of the project. Pure values: no I/O, no clock, no randomness, no framework."""
