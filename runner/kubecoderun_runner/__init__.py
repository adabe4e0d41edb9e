"""The runner: PID 1 of the runtime container. It starts untrusted programs and ends them. Standard library
only."""

__version__ = "0.1.0"
