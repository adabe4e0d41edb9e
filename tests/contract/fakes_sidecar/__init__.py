"""What surrounds a sidecar: the runner on its socket, the operator on its port, the object store."""
