"""The sidecar's settings, from environment variables with the prefix KCR_."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kubecoderun_sidecar.protocol import DEFAULT_PORT, Verifier


class SettingsError(ValueError):
    """The environment is not usable; the text lists everything that is wrong with it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One field per variable; docs/sidecar-protocol.md has the table."""

    pod_uid: str
    public_keys: tuple[str, ...]
    runtime_uid: int
    channel: str
    host: str | None
    """Address to listen on; None: all, of IPv4 and IPv6."""
    port: int
    grace_seconds: float
    store_ca: str | None
    """PEM file that the object store's certificate is checked against; None: the system's."""
    log_level: str

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read all variables; SettingsError names every one that is missing or malformed."""
        reader = _Reader(environment)
        keys = tuple(key.strip() for key in reader.text("KCR_PUBLIC_KEYS").split(",") if key.strip())
        settings = cls(
            pod_uid=reader.text("KCR_POD_UID"),
            public_keys=keys,
            runtime_uid=int(reader.number("KCR_RUNTIME_UID", int, 0, 2**32 - 2)),
            channel=reader.text("KCR_CHANNEL", "/run/kubecoderun/runner.sock"),
            host=environment.get("KCR_HOST") or None,
            port=int(reader.number("KCR_PORT", int, 0, 65535, DEFAULT_PORT)),
            grace_seconds=reader.number("KCR_GRACE_SECONDS", float, 0, 3600, 25),
            store_ca=environment.get("KCR_STORE_CA") or None,
            log_level=reader.choice("KCR_LOG_LEVEL", ("DEBUG", "INFO", "WARNING", "ERROR"), "INFO"),
        )
        reader.check_keys(keys)
        if reader.problems:
            raise SettingsError("; ".join(reader.problems))
        return settings


class _Reader:
    """Collects problems, so that one start tells them all."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.problems: list[str] = []

    def text(self, name: str, default: str = "") -> str:
        value = self._environment.get(name, "").strip() or default
        if not value:
            self.problems.append(f"{name} is missing")
        return value

    def number(
        self,
        name: str,
        convert: Callable[[str], float],
        minimum: float,
        maximum: float,
        default: float | None = None,
    ) -> float:
        text = self._environment.get(name, "").strip()
        if not text and default is not None:
            return default
        try:
            value = convert(text)
        except ValueError:
            value = float("nan")
        if not minimum <= value <= maximum:
            self.problems.append(f"{name} must be a number from {minimum:g} to {maximum:g}")
            return minimum
        return value

    def choice(self, name: str, allowed: tuple[str, ...], default: str) -> str:
        value = self._environment.get(name, "").strip().upper() or default
        if value not in allowed:
            self.problems.append(f"{name} must be one of {', '.join(allowed)}")
        return value

    def check_keys(self, keys: tuple[str, ...]) -> None:
        if keys:
            try:
                Verifier(keys, "")
            except ValueError as error:
                self.problems.append(f"KCR_PUBLIC_KEYS: {error}")
