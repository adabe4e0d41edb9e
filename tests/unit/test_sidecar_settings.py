"""The environment becomes settings, or one message about all that is wrong."""

import pytest

from kubecoderun_sidecar.protocol import Signer
from kubecoderun_sidecar.settings import Settings, SettingsError

KEY = Signer(b"1" * 32).public_key
LEAST = {"KCR_POD_UID": "p", "KCR_PUBLIC_KEYS": KEY, "KCR_RUNTIME_UID": "100001"}


def test_defaults() -> None:
    assert Settings.from_environment(LEAST) == Settings(
        pod_uid="p",
        public_keys=(KEY,),
        runtime_uid=100001,
        channel="/run/kubecoderun/runner.sock",
        host=None,
        port=8790,
        grace_seconds=25.0,
        store_ca=None,
        log_level="INFO",
    )


def test_everything_can_be_set() -> None:
    other = Signer(b"2" * 32).public_key
    settings = Settings.from_environment(
        {
            **LEAST,
            "KCR_PUBLIC_KEYS": f"{KEY}, {other}",
            "KCR_CHANNEL": "/x/s",
            "KCR_HOST": "::1",
            "KCR_PORT": "1",
            "KCR_GRACE_SECONDS": "2.5",
            "KCR_STORE_CA": "/ca.pem",
            "KCR_LOG_LEVEL": "debug",
        }
    )
    assert settings.public_keys == (KEY, other)
    assert (settings.channel, settings.host, settings.port) == ("/x/s", "::1", 1)
    assert (settings.grace_seconds, settings.store_ca, settings.log_level) == (2.5, "/ca.pem", "DEBUG")


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment({"KCR_PORT": "x", "KCR_GRACE_SECONDS": "nan", "KCR_LOG_LEVEL": "LOUD"})
    for name in (
        "KCR_POD_UID is missing",
        "KCR_PUBLIC_KEYS is missing",
        "KCR_RUNTIME_UID must",
        "KCR_PORT must",
        "KCR_GRACE_SECONDS must",
        "KCR_LOG_LEVEL must",
    ):
        assert name in str(caught.value)


@pytest.mark.parametrize("keys", ["nonsense", f"{KEY},{KEY},{KEY}", "AAAA"])
def test_bad_keys(keys: str) -> None:
    with pytest.raises(SettingsError, match="KCR_PUBLIC_KEYS"):
        Settings.from_environment({**LEAST, "KCR_PUBLIC_KEYS": keys})
