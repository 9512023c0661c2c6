"""The tests: against real protocol peers, real SQLite files, real HTTP and a real browser."""
