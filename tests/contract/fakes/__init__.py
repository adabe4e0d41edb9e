"""An API server, a node and its sidecars, small enough to read and true enough to run the real operator."""
