"""Writes multipart/form-data as LibreChat's clients do."""

BOUNDARY = "--------------------------042917583061"
TYPE = f"multipart/form-data; boundary={BOUNDARY}"
END = f"--{BOUNDARY}--\r\n".encode()


def part(disposition: str, content: bytes = b"", *headers: str) -> bytes:
    lines = [f"--{BOUNDARY}", f"Content-Disposition: {disposition}", *headers, "", ""]
    return "\r\n".join(lines).encode() + content + b"\r\n"


def text(name: str, value: str) -> bytes:
    return part(f'form-data; name="{name}"', value.encode())


def file(name: str, content: bytes = b"content", field: str = "file") -> bytes:
    return part(f'form-data; name="{field}"; filename="{name}"', content, "Content-Type: text/csv")


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + END
