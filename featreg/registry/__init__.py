"""What is known about definitions and runs: one append-only log, and the state folded from it."""
