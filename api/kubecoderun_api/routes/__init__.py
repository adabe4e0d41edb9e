"""One module per family of endpoints; paths are written without /v1, which the middleware takes off."""
