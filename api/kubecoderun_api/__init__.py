"""The front end: LibreChat's wire protocol on one side, ExecutionSessions on the other."""
