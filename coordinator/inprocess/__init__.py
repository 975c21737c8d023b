"""The engine and the node in this process: the generated C as a shared library."""
