"""Real peers of the tests, each in a process of its own."""
