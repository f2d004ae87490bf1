"""What plug-ins of every kind may say about themselves, and what they are told."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from batcher.cli.support import wiring
from batcher.errors import ConfigurationError, SettingRefused
from batcher.options import Section
from batcher.plugins import CONTRACT, PluginContext, Registry, registries, registry_of, takes
from batcher.settings import Parser, Settings, UsageError, add_config_flag, load
from batcher.settings.compose import compose
from batcher.settings.model import BatchSection


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Give a module that can be named as `outside:ATTRIBUTE`."""
    module = ModuleType("outside")
    monkeypatch.setitem(sys.modules, "outside", module)
    compose.cache_clear()
    yield module
    compose.cache_clear()


class Thing(Section):
    """A thing outside."""

    size: int = 1
    """How large it is."""
    port: int = 0
    """Where it listens."""


class Everything:
    """Have the methods of every kind of part."""

    options = Thing

    def __init__(self, options: Thing) -> None:
        self.given = options

    def open(self) -> None: ...
    def fetch(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def commit(self) -> None: ...
    def close(self) -> None: ...
    def write(self) -> None: ...
    def send(self) -> None: ...
    def decoder(self) -> None: ...
    def infer(self) -> None: ...
    def input(self) -> None: ...
    def inferred(self) -> None: ...
    def plan(self) -> None: ...


class MakesThings:
    """Be a plug-in that is neither a class nor a function."""

    def __call__(self, options: Thing) -> Everything:
        return Everything(options)


MAKERS = {
    "source": wiring.source_of,
    "sink": wiring.sink_of,
    "decode.format": wiring.format_of,
    "transform.kind": wiring.transform_of,
    "dlq.queue": wiring.dead_letters_of,
}


def loaded(argv: list[str], environ: dict[str, str] | None = None) -> Settings:
    parser = Parser("batcher")
    add_config_flag(parser)
    parser.add_settings()
    return load(parser, argv, environ or {}).settings


@pytest.fixture(params=registries(), ids=lambda registry: registry.kind)
def registry(request: pytest.FixtureRequest) -> Registry[Any]:
    found: Registry[Any] = request.param
    return found


def test_built_in_parts_are_what_the_distribution_announces(registry: Registry[Any]) -> None:
    announced = {point.name: point.value for point in entry_points(group=registry.group)}
    if not announced:
        pytest.skip("kafka-batcher is not installed here, or in an older state")
    assert announced.items() >= dict(registry.built_in).items()


def test_built_in_parts_can_be_described_and_found(registry: Registry[Any]) -> None:
    assert registry.names() == sorted(registry.built_in)
    assert {one.origin for one in registry.describe()} == {"kafka-batcher"}
    assert all(registry.find(name).name == name for name in registry.names())


def test_a_part_gets_an_instance_of_its_options(registry: Registry[Any], outside: Any) -> None:
    outside.Thing = Everything
    made: Any = MAKERS[registry.setting](loaded([registry.flag, "outside:Thing", "--thing.size", "7"]))
    assert made.given == Thing(size=7)


def test_a_part_that_describes_no_options_gets_those_of_the_flag_as_texts(
    registry: Registry[Any], outside: Any
) -> None:
    class Plain(Everything):
        options = None  # type: ignore[assignment]

    outside.Plain = Plain
    made: Any = MAKERS[registry.setting](loaded([registry.flag, "outside:Plain", "--options", "size=7"]))
    assert made.given == {"size": "7"}


def test_an_installed_part_is_found_by_its_name(
    registry: Registry[Any], outside: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside.made = takes(Thing)(MakesThings())
    points = [EntryPoint("mine", "outside:made", registry.group)]
    monkeypatch.setattr("batcher.plugins.entry_points", lambda group: points if group == registry.group else [])
    made: Any = MAKERS[registry.setting](loaded([registry.flag, "mine", "--mine.size", "7"]))
    assert made.given == Thing(size=7)
    assert ("mine", "outside:made", "?") in registry.describe()


def refused(registry: Registry[Any], name: str) -> str:
    with pytest.raises(SettingRefused) as error:
        MAKERS[registry.setting](loaded([registry.flag, name]))
    assert error.value.exit_code == 2
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(f"{registry.flag} ")
    return message


def test_a_part_without_a_method_of_its_contract_is_refused(registry: Registry[Any], outside: Any) -> None:
    for method in registry.methods:
        outside.Lacking = type("Lacking", (Everything,), {method: None, "section": "thing"})
        assert f"has no {method}(), so it is no {registry.kind}" in refused(registry, "outside:Lacking")


def test_a_part_for_another_contract_is_refused(registry: Registry[Any], outside: Any) -> None:
    outside.Old = type("Old", (Everything,), {"contract": CONTRACT - 1})
    message = refused(registry, "outside:Old")
    assert f"is written for contract {CONTRACT - 1}, and batcher" in message
    assert f"has {CONTRACT}: install a version of the {registry.kind} for this one" in message


def test_what_cannot_be_called_is_no_plug_in(registry: Registry[Any], outside: Any) -> None:
    outside.number = 7
    assert "cannot be called; name a class or a function" in refused(registry, "outside:number")


def test_an_unknown_name_is_answered_with_all(registry: Registry[Any]) -> None:
    message = refused(registry, "nosuch")
    assert f"known are {', '.join(registry.names())}; a {registry.kind} of your own is named as" in message


def test_what_breaks_while_it_is_made_is_named(registry: Registry[Any], outside: Any) -> None:
    outside.broken = lambda _options: 1 / 0
    assert "outside:broken: cannot be made: ZeroDivisionError" in refused(registry, "outside:broken")


def test_options_that_are_no_section_are_refused(outside: Any) -> None:
    outside.Wrong = type("Wrong", (Everything,), {"options": int})
    assert "its options are no batcher.options.Section; derive int from it" in refused(
        registry_of("sink"), "outside:Wrong"
    )


@pytest.mark.parametrize("section", ["my_thing", "my-thing", "7up", ""])
def test_a_section_is_one_word(outside: Any, section: str) -> None:
    outside.my_thing = takes(Thing, section=section)(MakesThings())
    assert "is not one word" in refused(registry_of("sink"), "outside:my_thing")


@pytest.mark.parametrize("section", ["kafka", "batch", "sink", "max", "parquet"])
def test_a_section_cannot_take_the_name_of_another(outside: Any, section: str) -> None:
    outside.made = takes(Thing, section=section)(MakesThings())
    with pytest.raises(ConfigurationError, match=f"the name '{section}' of its section is taken; give the plug-in"):
        compose((("sink", "outside:made"),))
    assert "is taken" in refused(registry_of("sink"), "outside:made")


def test_two_plug_ins_may_share_one_section(outside: Any) -> None:
    outside.Thing = Everything
    made = compose((("source", "outside:Thing"), ("sink", "outside:Thing")))
    assert list(made.model_fields).count("thing") == 1


def test_a_plug_in_whose_options_are_not_known_is_named_rather_than_its_flags(outside: Any) -> None:
    outside.Old = type("Old", (Everything,), {"contract": 0})
    with pytest.raises(UsageError, match=r"^--sink 'outside:Old' is written for contract 0, and batcher [^;]*$"):
        loaded(["--sink", "outside:Old", "--old.size", "7"])


def test_a_variable_that_is_an_option_is_not_taken_for_one_of_kubernetes(outside: Any) -> None:
    outside.Thing = Everything
    settings = loaded(["--sink", "outside:Thing"], {"BATCHER_THING_PORT": "80", "BATCHER_OTHER_PORT": "tcp://x"})
    assert settings.section(Thing).port == 80


def test_the_stronger_layer_names_the_plug_in(outside: Any, tmp_path: Path) -> None:
    outside.Thing = Everything
    file = tmp_path / "batcher.toml"
    file.write_text('sink = "nosuch:Sink"\n[thing]\nsize = 3\n')
    assert loaded(["-c", str(file), "--sink=outside:Thing"]).section(Thing).size == 3
    assert loaded(["-c", str(file)], {"BATCHER_SINK": "outside:Thing"}).section(Thing).size == 3


def test_who_asks_is_told_of_the_rest(outside: Any) -> None:
    told: list[PluginContext] = []

    @takes(Thing)
    def asking(options: Thing, context: PluginContext) -> Everything:
        told.append(context)
        return Everything(options)

    outside.asking = asking
    wiring.sink_of(loaded(["--sink", "outside:asking", "-t", "a,b", "-g", "loader", "--until-eof", "--workers", "3"]))
    [context] = told
    assert (context.pipeline, context.topics, context.until_eof, context.workers) == ("loader", ("a", "b"), True, 3)
    assert context.section(BatchSection).max_rows == 100_000
    assert context.schema is None
    assert context.reread("size") is None
    with pytest.raises(LookupError, match="Section"):
        PluginContext().section(Section)


def test_a_sink_that_does_not_ask_cannot_have_the_schema_of_a_file(outside: Any) -> None:
    outside.Thing = Everything
    with pytest.raises(SettingRefused, match=r"--decode\.schema: the sink outside:Thing does not take one"):
        wiring.sink_of(loaded(["--sink", "outside:Thing", "--decode.schema", "x.arrow"]))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--dlq.queue", "kafka"], "--dlq.topic: is needed by --dlq.queue kafka"),
        (["--dlq.queue", "directory"], "--dlq.path: is needed by --dlq.queue directory"),
        (["--dlq.queue", "directory", "--dlq.path", "d", "--dlq.topic", "t"], "--dlq.topic: cannot go with "),
        (["--dlq.queue", "outside:Thing", "--dlq.path", "d"], "--dlq.path: cannot go with --dlq.queue"),
    ],
)
def test_one_place_for_dead_letters_is_chosen(argv: list[str], message: str, outside: Any) -> None:
    outside.Thing = Everything
    with pytest.raises(UsageError) as error:
        loaded(argv)
    assert error.value.lines[0].startswith(message)
