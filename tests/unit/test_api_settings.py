"""The table of settings in the documentation says what the class says."""

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from kubecoderun_api.settings import Settings

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "api-settings.md"
ROW = re.compile(r"^\| `(KCR_[A-Z_]+)` \| (.*?) \| (.*?) \|$", re.MULTILINE)


def shown(value: Any) -> str:
    """A default as the table shows it."""
    if value is None:
        return "none"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def test_the_document_lists_every_setting_with_its_default_and_meaning() -> None:
    rows = {name: (default, meaning) for name, default, meaning in ROW.findall(DOCUMENT.read_text())}
    expected = {}
    for name, field in Settings.model_fields.items():
        default = "random" if field.default_factory else shown(field.default)
        expected[f"KCR_{name.upper()}"] = (default, field.description)
    assert rows == expected


def test_values_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KCR_AUTH", "none")
    monkeypatch.setenv("KCR_HEARTBEAT", "false")
    monkeypatch.setenv("KCR_UNKNOWN", "ignored")
    settings = Settings()
    assert (settings.auth, settings.heartbeat) == ("none", False)


def test_each_start_has_another_replica_uid() -> None:
    assert Settings(auth="none").replica_uid != Settings(auth="none").replica_uid


def test_secrets_are_not_shown() -> None:
    settings = Settings(
        auth="none", store_endpoint="http://s", store_access_key="hush-a", store_secret_key="hush-b"
    )
    assert "hush" not in repr(settings)
    with pytest.raises(ValidationError) as caught:
        Settings(auth="none", store_endpoint="http://s", store_secret_key="hush-b", port="hush-c")
    assert "hush" not in str(caught.value)
