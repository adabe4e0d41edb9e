"""Calls one tool for a shell: `bash_call.py SOCKET TOOL`, its input on standard input, its result on standard
output as one line of JSON. Exit code 1 with the reason on standard error when the tool fails."""

import json
import socket
import sys
from typing import NoReturn

_MAX_INPUT_BYTES = 500_000
_LENGTH_BYTES = 4


def _fail(tool: str, text: str) -> NoReturn:
    sys.stderr.write(f"{tool}: {text}\n")
    sys.exit(1)


def _input_of(tool: str) -> str:
    given = sys.stdin.buffer.read(_MAX_INPUT_BYTES + 1)
    if len(given) > _MAX_INPUT_BYTES:
        _fail(tool, f"the input is over {_MAX_INPUT_BYTES} bytes")
    try:
        text = given.decode("utf-8")
        value = json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError):
        _fail(tool, "the input is not JSON: give one JSON object as the only argument")
    if not isinstance(value, dict):
        _fail(tool, "the input is not a JSON object")
    made = json.dumps(value, separators=(",", ":"))
    if len(made) > _MAX_INPUT_BYTES:
        _fail(tool, f"the input is over {_MAX_INPUT_BYTES} bytes")
    return made


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        piece = connection.recv(min(count - len(data), 1 << 20))
        if not piece:
            raise ConnectionError("it was closed")
        data += piece
    return bytes(data)


def main() -> None:
    path, tool = sys.argv[1:]
    call = {"tool": tool, "input": _input_of(tool)}
    data = json.dumps({"calls": [call], "settled": False}).encode()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(path)
            connection.sendall(len(data).to_bytes(_LENGTH_BYTES, "big") + data)
            head = _exactly(connection, int.from_bytes(_exactly(connection, _LENGTH_BYTES), "big"))
            answer = json.loads(head)
            value = _exactly(connection, answer["bytes"]) if "bytes" in answer else b""
    except OSError as error:
        _fail(tool, f"the connection for tool calls broke: {error}")
    if "error" in answer:
        _fail(tool, answer["error"])
    sys.stdout.write(json.dumps(json.loads(value), ensure_ascii=False, separators=(",", ":")) + "\n")


main()
