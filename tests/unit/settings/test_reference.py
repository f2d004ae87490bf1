import pytest

from batcher.settings import Parser, Row, load, reference
from batcher.settings.compose import compose
from batcher.settings.model import Settings

# What `docs` and users rely on: taken from the design, not from the code.
PROMISED = [
    "--sink",
    "--delivery",
    "--until-eof",
    "--max-records",
    "--stop-timeout",
    "--workers",
    "--options",
    "--kafka.brokers",
    "--kafka.topics",
    "--kafka.group",
    "--kafka.start",
    "--kafka.options",
    "--batch.max-rows",
    "--batch.max-bytes",
    "--batch.max-wait",
    "--batch.memory",
    "--clickhouse.dsn",
    "--clickhouse.table",
    "--clickhouse.user",
    "--clickhouse.password",
    "--clickhouse.settings",
    "--parquet.path",
    "--parquet.compression",
    "--parquet.partition-by",
    "--parquet.coordinates",
    "--decode.format",
    "--decode.schema",
    "--decode.on-unknown",
    "--dlq.topic",
    "--dlq.path",
    "--dlq.max-ratio",
    "--dlq.max-consecutive",
    "--retry.strategy",
    "--retry.wait",
    "--retry.max-wait",
    "--retry.max-elapsed",
    "--http.addr",
    "--log.format",
    "--log.level",
]

EXAMPLES = {
    "int": "7",
    "N": "7",
    "N/s": "500/s",
    "N|MIN..MAX": "2..7",
    "SIZE": "300MiB",
    "TIME": "3s",
    "none|TIME": "3s",
    "RATIO": "0.25",
    "HOST:PORT": "127.0.0.1:1",
    "URL": "http://127.0.0.1:1",
    "redis://HOST": "redis://127.0.0.1:1",
    "earliest|latest|TIME": "latest",
    "earliest|latest|TIME|PARTITION=OFFSET[,…]": "latest",
    "latest|TIME|PARTITION=OFFSET[,…]": "latest",
    "REGEX=TARGET": "(a|b),?=shop.$1",
    "NAMESPACE.TABLE": "shop.orders",
    "default|key,headers,message_id,attempt,value": "default,key",
}


COMPANIONS = {
    "batch.memory": {},
    "nsq.ca": {"BATCHER_NSQ_TLS": "true"},
    "route": {"BATCHER_SINK": "clickhouse"},
    "registry.password": {"BATCHER_REGISTRY_USER": "x"},
    "registry.key": {"BATCHER_REGISTRY_CERTIFICATE": "x"},
    "registry.key_password": {"BATCHER_REGISTRY_CERTIFICATE": "x"},
}
"""Variables without which a setting cannot be given."""


def example(row: Row) -> str:
    if row.kind == "switch":
        return "true"
    if row.kind == "pairs":
        return "a=1"
    # Not below a batch, nor above the greatest one.
    return row.choices[-1] if row.choices else EXAMPLES.get(row.type, "x")


def test_every_promised_flag_is_there() -> None:
    assert set(PROMISED) <= {row.flag for row in reference()}


def test_short_flags_are_those_of_the_design() -> None:
    short = {row.short: row.flag for row in reference() if row.short}

    assert short == {"-b": "--kafka.brokers", "-t": "--kafka.topics", "-g": "--kafka.group", "-X": "--kafka.options"}


def test_names_are_unique_and_sections_are_one_word() -> None:
    rows = reference()

    assert len({row.flag for row in rows}) == len({row.env for row in rows}) == len(rows)
    assert not any("_" in row.section for row in rows)


def test_the_settings_with_the_built_in_plugins_are_made_once_and_listed_once() -> None:
    kind = type(Settings())

    assert compose(()) is kind
    assert reference() is reference(None) is reference(kind)


@pytest.mark.parametrize("row", reference(), ids=lambda row: row.key)
def test_every_setting_is_described(row: Row) -> None:
    assert row.help.endswith((".", ")"))
    assert row.type


ATTRIBUTES = {"schema": "schema_source", "validate": "validation"}
"""Settings whose names are methods of every model."""


@pytest.mark.parametrize("row", reference(), ids=lambda row: row.key)
def test_every_setting_can_be_given_as_flag_variable_and_key(row: Row, tmp_path: object) -> None:
    text = example(row)
    file = tmp_path / "batcher.toml"  # type: ignore[operator]
    file.write_text(f"{row.key} = {'true' if row.kind == 'switch' else repr(text)}\n")
    environ = COMPANIONS.get(row.key, {"BATCHER_BATCH_MEMORY": "1GiB"})

    def value(argv: list[str], environ: dict[str, str]) -> object:
        parser = Parser("batcher")
        parser.add_argument("-c", "--config")
        parser.add_settings()
        found: object = load(parser, argv, environ).settings
        for name in row.path:
            found = getattr(found, ATTRIBUTES.get(name, name))
        return found

    flag = [row.flag] if row.kind == "switch" else [row.flag, text]
    values = [
        value(flag, environ),
        value([], {**environ, row.env: text}),
        value(["-c", str(file)], environ),
    ]

    default: object = Settings()
    for name in row.path:
        default = getattr(default, ATTRIBUTES.get(name, name))
    assert values[0] == values[1] == values[2] != default
