"""Uploads as LibreChat makes them."""

from e2e.frontend import Answer, FrontEnd

BOUNDARY = "----kubecoderun"


def send(front_end: FrontEnd, name: str, content: bytes, **headers: str) -> Answer:
    """Upload one file; the answer."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    body = head.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()
    kind = f"multipart/form-data; boundary={BOUNDARY}"
    return front_end.call("POST", "/v1/upload", body, front_end.headers(Content_Type=kind, **headers))


def upload(front_end: FrontEnd, name: str, content: bytes, **headers: str) -> dict[str, str]:
    """Upload one file; a reference to it as LibreChat writes it."""
    answer = send(front_end, name, content, **headers)
    assert (answer.status, answer.parsed.get("message")) == (200, "success"), answer.body
    return {"id": answer["files"][0]["fileId"], "session_id": answer["session_id"], "name": name}
