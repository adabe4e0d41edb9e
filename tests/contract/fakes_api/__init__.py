"""A small API server, object store, operator and HTTP client for the contract tests of the front end."""
