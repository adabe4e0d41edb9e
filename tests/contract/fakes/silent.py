"""An address that is as silent as one whose machine has lost its power."""

import socket


class SilentAddress:
    """An address whose kernel answers no attempt to connect, as far as anybody can tell: it listens, and its
    queue is full, so further ones are dropped. What was connected before stays so."""

    def __init__(self, address: str = "127.0.0.1", port: int = 0) -> None:
        """port: 0 for any that is free."""
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._listener.bind((address, port))
        self._listener.listen(0)
        self._fillers = [socket.socket() for _ in range(4)]
        for filler in self._fillers:
            filler.setblocking(False)
            filler.connect_ex(self._listener.getsockname())

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def close(self) -> None:
        for each in (*self._fillers, self._listener):
            each.close()
