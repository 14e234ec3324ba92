"""Settings: the file, the environment over it, and errors that say what to write instead."""

from pathlib import Path

import pytest

from pipelines.settings import Settings, SettingsError, load

FILE = """
[warehouse]
root = "data"

[[requests]]
name = "gateway-eu"
format = "canonical"
location = "landing/requests"

[alerts.email]
recipients = ["ops@example.com"]
"""


def written(folder: Path, text: str = FILE) -> Path:
    path = folder / "meterhouse.toml"
    path.write_text(text)
    return path


def test_everything_has_a_default_but_the_sources(tmp_path: Path) -> None:
    settings = load(written(tmp_path, ""), {})

    assert settings.requests == []
    assert settings.warehouse.credits_per_usd == 100
    assert settings.reconciliation.settle_days == 3
    assert settings.alerts.exceed_percent == 50


def test_relative_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    assert load(written(tmp_path), {}).root == tmp_path / "data"


def test_a_source_without_a_gateway_is_its_own(tmp_path: Path) -> None:
    assert load(written(tmp_path), {}).requests[0].gateway == "gateway-eu"


def test_the_environment_overrides_sections_sources_and_sinks(tmp_path: Path) -> None:
    settings = load(
        written(tmp_path),
        {
            "METERHOUSE_WAREHOUSE_CREDITS_PER_USD": "1000",
            "METERHOUSE_REQUESTS_GATEWAY_EU_TIME_ZONE": "Europe/London",
            "METERHOUSE_ALERTS_EMAIL_SMTP_PORT": "2525",
            "METERHOUSE_ALERTS_EMAIL_RECIPIENTS": "a@example.com, b@example.com",
            "METERHOUSE_ALERTS_FLOOR_CREDITS": "5",
            "METERHOUSE_AS_OF": "2026-11-22",
        },
    )

    assert settings.warehouse.credits_per_usd == 1000
    assert settings.requests[0].time_zone == "Europe/London"
    assert settings.alerts.floor_credits == 5
    assert settings.alerts.email is not None
    assert settings.alerts.email.smtp_port == 2525
    assert settings.alerts.email.recipients == ["a@example.com", "b@example.com"]


def test_secrets_come_from_the_environment_and_are_not_shown(tmp_path: Path) -> None:
    settings = load(written(tmp_path), {"METERHOUSE_STRIPE_API_KEY": "rk_test_canary"})

    assert settings.stripe.livemode is False
    assert "canary" not in repr(settings)


def test_a_secret_in_the_file_is_refused_and_the_variable_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="METERHOUSE_STRIPE_API_KEY") as error:
        load(written(tmp_path, '[stripe]\napi_key = "sk_live_canary"'), {})

    assert "canary" not in str(error.value)


@pytest.mark.parametrize("key", ["sk_live_x", "rk_live_x"])
def test_the_mode_is_that_of_the_key_and_live_without_one(tmp_path: Path, key: str) -> None:
    assert load(written(tmp_path), {"METERHOUSE_STRIPE_API_KEY": key}).stripe.livemode
    assert Settings().stripe.livemode


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[warehouse]\nrot = 'data'", "Did you mean 'warehouse.root'"),
        ("[reconciliation]\nsettle_day = 3", "Did you mean 'reconciliation.settle_days'"),
        ("[warehous]\nroot = 'data'", "Did you mean 'warehouse'"),
        ("[[requests]]\nname = 'a'\nlocation = 'b'", "'requests.format' is missing"),
        ("[alerts]\nexceed_percnt = 3", "Did you mean 'alerts.exceed_percent'"),
        ("[warehouse\n", "not readable TOML"),
        ("[alerts]\nsensitivity = 'loud'", "sensitivity"),
    ],
)
def test_a_mistake_is_one_sentence_that_names_the_nearest_setting(
    tmp_path: Path, text: str, said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        load(written(tmp_path, text), {})


def test_a_variable_that_sets_nothing_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="METERHOUSE_WAREHOUS_ROOT"):
        load(written(tmp_path), {"METERHOUSE_WAREHOUS_ROOT": "x"})


def test_without_a_file_it_is_said_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="meterhouse init"):
        load(tmp_path / "meterhouse.toml", {})


def test_the_file_that_init_writes_is_readable_and_states_the_defaults(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "pipelines" / "meterhouse.toml").read_text()

    settings = load(written(tmp_path, text), {})

    defaults = Settings()
    for section in ("warehouse", "directory", "invoices", "stripe", "reconciliation", "exports"):
        assert getattr(settings, section) == getattr(defaults, section)


def test_a_root_in_which_duckdb_can_not_work_is_a_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "why?"
    folder.mkdir()
    (folder / "meterhouse.toml").write_text('[warehouse]\nroot = "data"\n')

    with pytest.raises(SettingsError, match="at '\\?'"):
        _ = load(folder / "meterhouse.toml", {}).root
