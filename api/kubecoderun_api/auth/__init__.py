"""Who is calling: credentials of a request, and the principal that they stand for."""
