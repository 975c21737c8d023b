"""What the engine, the link and the fleet cost, measured: each benchmark prints a table, and JSON with --json."""
