from pathlib import Path

import pytest

from batcher.settings import Loaded, Parser, UsageError, add_config_flag, load
from batcher.sources.kafka.settings import Kafka
from sinks.clickhouse.settings import ClickHouse

ENOUGH = ["--sink", "parquet", "-b", "k:9092", "-t", "orders", "-g", "loader", "--parquet.path", "out"]


def loaded(argv: list[str], environ: dict[str, str] | None = None, *, runnable: bool = False) -> Loaded:
    parser = Parser("batcher")
    add_config_flag(parser)
    parser.add_settings()
    return load(parser, argv, environ or {}, runnable=runnable)


def refused(argv: list[str], environ: dict[str, str] | None = None, *, runnable: bool = False) -> UsageError:
    with pytest.raises(UsageError) as error:
        loaded(argv, environ, runnable=runnable)
    return error.value


def config(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "batcher.toml"
    path.write_text(text)
    return ["-c", str(path)]


def test_flags_win_over_variables_over_secret_files_over_the_file_over_defaults(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("from-secret\n")
    file = config(tmp_path, '[kafka]\ngroup = "file"\n[clickhouse]\npassword = "from-file"\n[batch]\nmax_rows = 1\n')
    environ = {
        "BATCHER_KAFKA_GROUP": "variable",
        "BATCHER_BATCH_MAX_ROWS": "2",
        "BATCHER_CLICKHOUSE_PASSWORD_FILE": str(secret),
    }

    settings = loaded([*file, "--batch.max-rows", "3"], environ).settings

    assert settings.batch.max_rows == 3
    assert settings.section(Kafka).group == "variable"
    password = settings.section(ClickHouse).password
    assert password is not None
    assert password.get_secret_value() == "from-secret"
    assert settings.section(Kafka).start == "earliest"


def test_properties_merge_key_by_key_over_all_layers(tmp_path: Path) -> None:
    file = config(tmp_path, '[kafka.options]\n"security.protocol" = "ssl"\n"fetch.min.bytes" = 1\n"a" = "file"\n')
    environ = {"BATCHER_KAFKA_OPTIONS": "a=variable,b=variable"}

    settings = loaded([*file, "-X", "b=flag", "-X", "c=flag"], environ).settings

    assert settings.section(Kafka).options == {
        "security.protocol": "ssl",
        "fetch.min.bytes": "1",
        "a": "variable",
        "b": "flag",
        "c": "flag",
    }


def test_a_password_with_commas_and_equal_signs_comes_through_unharmed() -> None:
    assert loaded(["-X", "sasl.password=a,b=c,"]).settings.section(Kafka).options == {"sasl.password": "a,b=c,"}


def test_properties_are_read_from_a_mounted_file(tmp_path: Path) -> None:
    path = tmp_path / "kafka.properties"
    path.write_text("# mounted\nsasl.username=svc\nsasl.password=a,b=c\n")

    settings = loaded([], {"BATCHER_KAFKA_OPTIONS_FILE": str(path)}).settings

    assert settings.section(Kafka).options == {"sasl.username": "svc", "sasl.password": "a,b=c"}


def test_every_value_says_where_it_came_from(tmp_path: Path) -> None:
    file = config(tmp_path, "[batch]\nmax_rows = 5\n")

    origins = loaded([*file, "-g", "x"], {"BATCHER_SINK": "null"}).origins

    assert origins["batch", "max_rows"] == file[1]
    assert origins["kafka", "group"] == "--kafka.group"
    assert origins["sink",] == "BATCHER_SINK"
    assert ("kafka", "topics") not in origins


def test_clickhouse_on_its_defaults_needs_brokers_topic_group_and_table() -> None:
    argv = ["--sink", "clickhouse", "-b", "k", "-t", "t", "-g", "g", "--clickhouse.table", "t"]

    settings = loaded(argv, runnable=True).settings

    assert settings.section(ClickHouse).dsn.get_secret_value() == "http://localhost:8123/default"


def test_the_clickhouse_clients_variables_count_where_nothing_else_names_a_user() -> None:
    environ = {"CLICKHOUSE_USER": "u", "CLICKHOUSE_PASSWORD": "pw"}

    plain = loaded([], environ).settings.section(ClickHouse)
    with_user = loaded(["--clickhouse.user", "me"], environ).settings.section(ClickHouse)
    with_dsn = loaded(["--clickhouse.dsn", "http://me:x@h/d"], environ).settings.section(ClickHouse)

    assert plain.user == "u"
    assert plain.password is not None
    assert plain.password.get_secret_value() == "pw"
    assert (with_user.user, with_user.password) == ("me", None)
    assert (with_dsn.user, with_dsn.password) == (None, None)


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["--batch.max-rows", "0"], "--batch.max-rows: input should be greater than 0"),
        (["--batch.max-bytes", "lots"], "--batch.max-bytes: needs a size"),
        (["--batch.max-bytes", "2GiB", "--batch.memory", "4GiB"], "--batch.max-bytes: at most 1GiB"),
        (["--batch.memory", "1MiB"], "--batch.memory: 1MiB is less than one batch of 24MiB"),
        (["--batch.max-wait", "3"], "--batch.max-wait: needs a number and a unit"),
        (["--batch.max-wait", "0s"], "--batch.max-wait: "),
        (["--retry.max-wait", "10ms"], "--retry.max-wait: is less than the first wait"),
        (["--retry.max-elapsed", "0s"], "--retry.max-elapsed: "),
        (["--dlq.topic", "a", "--dlq.path", "b"], "--dlq.topic: cannot go with --dlq.path"),
        (["--dlq.max-ratio", "1.5"], "--dlq.max-ratio: "),
        (["--delivery", "exactly"], "--delivery: is one of auto, exactly-once, at-least-once"),
        (["--kafka.start", "yesterday"], "--kafka.start: is earliest, latest, a time"),
        (["--http.addr", "9100"], "--http.addr: needs the form HOST:PORT"),
        (["-X", "hunter22"], "-X: needs the form name=value"),
        (["--max-records", "0"], "--max-records: "),
        (["--stop-timeout", "0s"], "--stop-timeout: "),
        (["--stop-timeout", "10001d"], "--stop-timeout: is at most 10000d"),
        (["--batch.max-wait", f"{'9' * 400}d"], "--batch.max-wait: is at most 10000d"),
        (["--workers", "99999999"], "--workers: "),
        (["--kafka.start", "0001-01-01T00:00:00+14:00"], "--kafka.start: is "),
        (["--kafka.start", "1969-12-31T23:59:59Z"], "--kafka.start: is a time before 1970"),
        (["--kafka.start", "9" * 20], "--kafka.start: is earliest, latest, a time"),
        (["--clickhouse.dsn", "http://u:hunter22@/@h/d"], "--clickhouse.dsn: holds @, /, # or ? in the password"),
        (["--parquet.path", "s3://u:hunter22#@h/d"], "--parquet.path: holds @, /, # or ? in the password"),
    ],
)
def test_an_impossible_flag_is_refused_in_one_line_that_names_it(argv: list[str], line: str) -> None:
    error = refused(argv)

    assert len(error.lines) == 1
    assert error.lines[0].startswith(line)
    assert "hunter22" not in error.lines[0]
    assert error.exit_code == 2


def test_everything_that_run_needs_is_asked_for_at_once() -> None:
    error = refused(["--sink", "clickhouse"], runnable=True)

    assert [line.partition(":")[0] for line in error.lines] == [
        "--kafka.brokers",
        "--kafka.topics",
        "--kafka.group",
        "--clickhouse.table",
    ]


@pytest.mark.parametrize("runnable", [True, False], ids=["run", "another verb"])
def test_options_that_no_chosen_plugin_reads_are_refused_with_the_flags_of_the_sink(runnable: bool) -> None:
    assert refused([*ENOUGH, "--options", "path=elsewhere"], runnable=runnable).lines == (
        "--options: the sink parquet does not read it: its settings are --parquet.*",
    )
    assert loaded([*ENOUGH, "--sink", "null", "--options", "a=b"], runnable=runnable).settings.options == {"a": "b"}
    # A variable may serve several pipelines.
    assert loaded(ENOUGH, {"BATCHER_OPTIONS": "a=b"}, runnable=runnable).settings.options == {"a": "b"}


@pytest.mark.parametrize("missing", ["--sink", "-b", "-t", "-g", "--parquet.path"])
def test_a_run_without_one_necessary_flag_is_refused(missing: str) -> None:
    where = ENOUGH.index(missing)

    loaded(ENOUGH, runnable=True)
    assert refused(ENOUGH[:where] + ENOUGH[where + 2 :], runnable=True).exit_code == 2


def test_a_bad_value_names_the_variable_or_file_it_came_from_and_has_the_code_of_a_bad_flag(tmp_path: Path) -> None:
    file = config(tmp_path, "[batch]\nmax_rows = -1\n")

    from_file = refused(file)
    from_variable = refused([], {"BATCHER_BATCH_MAX_ROWS": "many"})

    assert from_file.lines[0].startswith(f"{file[1]}: batch.max_rows: ")
    assert from_variable.lines[0].startswith("BATCHER_BATCH_MAX_ROWS: ")
    assert from_file.exit_code == from_variable.exit_code == 2


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('snik = "parquet"\n', "snik: no such setting, did you mean sink?"),
        ("[batch]\nmax_rowz = 1\n", "batch.max_rowz: no such setting, did you mean max_rows?"),
        ("batch = 3\n", "batch: is a section"),
        ("[bogus]\nx = 1\n", "bogus: no such setting"),
        ("[kafka]\nhunter = ", "is not TOML"),
    ],
)
def test_a_file_with_what_is_not_known_is_refused(tmp_path: Path, text: str, line: str) -> None:
    error = refused(config(tmp_path, text))

    assert line in error.lines[0]
    assert error.exit_code == 2


def test_a_file_that_is_not_there_is_refused() -> None:
    assert "no such file" in refused(["-c", "/nowhere/batcher.toml"]).lines[0]
    assert "no such file" in refused([], {"BATCHER_CONFIG": "/nowhere/batcher.toml"}).lines[0]


def test_a_directory_in_the_place_of_the_file_is_called_one(tmp_path: Path) -> None:
    assert "is a directory; name the file in it" in refused(["-c", str(tmp_path)]).lines[0]


def test_an_unknown_variable_of_a_section_is_refused() -> None:
    error = refused([], {"BATCHER_CLICKHOUSE_TABEL": "x"})

    assert error.lines == ("BATCHER_CLICKHOUSE_TABEL: no such setting, did you mean table?",)
    assert error.exit_code == 2


def test_an_unknown_variable_without_a_section_is_a_warning() -> None:
    assert loaded([], {"BATCHER_SNIK": "x"}).warnings == ("BATCHER_SNIK: no such setting, did you mean BATCHER_SINK?",)


@pytest.mark.parametrize(
    "name",
    [
        "BATCHER_SERVICE_HOST",
        "BATCHER_SERVICE_PORT",
        "BATCHER_SERVICE_PORT_HTTP",
        "BATCHER_PORT",
        "BATCHER_PORT_9100_TCP_ADDR",
        "BATCHER_KAFKA_SERVICE_HOST",
        "BATCHER_KAFKA_PORT_9092_TCP",
        "BATCHER_CLICKHOUSE_PORT",
    ],
)
def test_variables_that_kubernetes_makes_for_services_are_no_settings(name: str) -> None:
    assert loaded([], {name: "tcp://10.0.0.1:9092"}).warnings == ()


def test_a_secret_given_twice_or_in_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    file = "BATCHER_CLICKHOUSE_PASSWORD_FILE"

    twice = refused([], {file: str(tmp_path), "BATCHER_CLICKHOUSE_PASSWORD": "hunter22"})
    absent = refused([], {file: "/nowhere/secret"})

    assert "which one" in twice.lines[0]
    assert "hunter22" not in twice.lines[0]
    assert absent.lines[0].startswith(f"{file}: /nowhere/secret: No such file")


@pytest.mark.parametrize(
    ("flag", "meant"),
    [("--batch.max-row", "--batch.max-rows"), ("--max-rows", "--batch.max-rows"), ("--sinc=null", "--sink")],
)
def test_a_mistyped_flag_gets_a_suggestion(flag: str, meant: str) -> None:
    error = refused([flag])

    assert error.lines[0].startswith(f"{flag.partition('=')[0]}: no such flag, did you mean {meant}?")
    assert error.exit_code == 2


def test_a_flag_is_never_guessed_from_its_beginning() -> None:
    assert "no such flag" in refused(["--batch.max-b", "1MiB"]).lines[0]


def test_a_start_time_without_a_zone_is_utc() -> None:
    assert loaded(["--kafka.start", "2026-01-31T12:00:00"]).settings.section(Kafka).start == "2026-01-31T12:00:00+00:00"


def test_an_address_to_listen_at_has_no_user() -> None:
    error = refused(["--http.addr", "u:hunter22@h:1"])
    assert "HOST:PORT" in str(error)
    assert "hunter22" not in str(error)


def test_a_flag_of_a_verb_is_not_taken_for_a_setting_of_the_same_name() -> None:
    parser = Parser("batcher")
    parser.add_argument("--from", dest="source")
    parser.add_settings(only=["kafka"])
    found = load(parser, ["--from", "events.ndjson"], {})
    assert (found.arguments.source, found.settings.source) == ("events.ndjson", "kafka")


HANDLER = ["--sink", "handler", "--handler.function", "app:handle", "-b", "k:9092", "-t", "orders", "-g", "loader"]


def test_a_part_that_is_named_implies_other_settings_which_say_so() -> None:
    found = loaded(HANDLER, runnable=True)

    assert (found.settings.decode.format, found.settings.batch.max_rows) == ("raw", 1000)
    assert found.origins["decode", "format"] == "--sink handler"
    assert loaded(ENOUGH).settings.decode.format == "json"


def test_what_a_part_implies_gives_way_to_whatever_is_given(tmp_path: Path) -> None:
    file = config(tmp_path, '[batch]\nmax_rows = 7\n[decode]\nformat = "csv"\n')
    settings = loaded([*file, *HANDLER, "--batch.max-wait", "2s"], {"BATCHER_DECODE_FORMAT": "avro"}).settings

    assert (settings.batch.max_rows, settings.batch.max_wait.total_seconds()) == (7, 2.0)
    assert settings.decode.format == "avro"


def test_a_part_that_a_variable_or_a_file_names_implies_the_same(tmp_path: Path) -> None:
    assert loaded([], {"BATCHER_SINK": "handler"}).settings.decode.format == "raw"
    assert loaded(config(tmp_path, 'sink = "handler"\n')).settings.decode.format == "raw"
