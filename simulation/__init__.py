"""Coordinator and compiled firmware in one process, in virtual time: what tests and benchmarks share."""
