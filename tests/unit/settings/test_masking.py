import pytest
from pydantic import SecretStr

from batcher.settings import Settings, masked, masked_url, secrets
from batcher.sources.kafka.settings import Kafka
from sinks.clickhouse.settings import ClickHouse
from sinks.parquet.settings import Parquet

SECRETS = ("hunter22", "s3cr3t-key", "tok%2Fen")


def settings() -> Settings:
    return Settings(
        kafka=Kafka(
            options={
                "sasl.password": "hunter22",
                "sasl.username": "svc-hunter22",
                "ssl.key.pem": "hunter22",
                "ssl.keystore.password": "hunter22",
                "sasl.oauthbearer.client.secret": "hunter22",
                "fetch.min.bytes": "1",
            }
        ),
        clickhouse=ClickHouse(
            dsn=SecretStr("https://loader:s3cr3t-key@db:8443/shop?password=hunter22&compression=zstd"),
            password=SecretStr("hunter22"),
            settings={"some_token": "hunter22"},
        ),
        parquet=Parquet(path="s3://id:tok%2Fen@bucket/prefix?region=eu"),
    )


@pytest.mark.parametrize("show", [masked, repr, str])
def test_no_way_of_showing_settings_shows_a_secret(show: object) -> None:
    shown = str(show(settings()))  # type: ignore[operator]

    assert not any(secret in shown for secret in SECRETS)
    assert "fetch.min.bytes" in shown


def test_a_section_by_itself_shows_no_secret_either() -> None:
    assert "hunter22" not in repr(settings().section(Kafka))
    assert "hunter22" not in repr(settings().section(ClickHouse))


def test_what_is_left_of_a_url_still_says_where_it_leads() -> None:
    assert masked_url("https://u:pw@h:1/d?a=1&secret_key=x") == "https://u:***@h:1/d?a=1&secret_key=***"
    assert masked_url("http://h/d") == "http://h/d"
    assert masked_url("http://u:p@ss@h/d") == "http://u:***@h/d"


def test_secrets_are_listed_as_written_and_as_a_driver_might_say_them() -> None:
    found = set(secrets(settings()))

    assert {"hunter22", "s3cr3t-key", "tok%2Fen", "tok/en"} <= found
    assert "1" not in found


def test_validation_errors_hold_no_input() -> None:
    with pytest.raises(ValueError, match="validation error") as error:
        Kafka(options={"sasl.password": ["hunter22"]})  # type: ignore[dict-item]

    assert "hunter22" not in str(error.value)


def test_a_setting_that_is_named_like_a_secret_and_is_none_is_shown_and_hides_nothing() -> None:
    given = Settings(pause={"redis": "redis://:s3cret@r", "key": "pipelines"})

    assert "'key': 'pipelines'" in str(masked(given))
    assert "s3cret" not in str(masked(given))
    assert "s3cret" in set(secrets(given))
    assert not {"pipelines", "batcher"} & (set(secrets(given)) | set(secrets(Settings())))
