"""workers.contract.settings: what the environment says, or a clear no."""

import pytest

from workers.contract.errors import BadSetting
from workers.contract.settings import Settings, cores


@pytest.mark.parametrize("text", ["-1", "1.5", "many", "inf", "nan"])
@pytest.mark.parametrize("name", ["RETRAIN_FETCH_THREADS", "RETRAIN_DECODE_THREADS"])
def test_a_count_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    monkeypatch.setenv(name, text)
    with pytest.raises(BadSetting, match=f"{name}='{text}'"):
        Settings.from_environment()


def test_no_thread_at_all_fetches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETRAIN_FETCH_THREADS", "0")
    with pytest.raises(BadSetting, match="from 1 up"):
        Settings.from_environment()


@pytest.mark.parametrize(("text", "threads"), [("", cores()), ("0", cores()), ("7", 7)])
def test_decoders_are_as_many_as_cores_unless_said(
    monkeypatch: pytest.MonkeyPatch, text: str, threads: int
) -> None:
    monkeypatch.setenv("RETRAIN_DECODE_THREADS", text)
    assert Settings.from_environment().decoders() == threads
