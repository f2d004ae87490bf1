"""Find the parts that other packages may provide: sources, formats, sinks and dead-letter queues, all in one way.

A *plug-in* is anything callable that returns the part: a function, or a class whose instances are the part.

    class MySink:
        options = MyOptions                        # a `batcher.options.Section`; may be absent
        def __init__(self, options): ...
        def open(self): ...
        def write(self, block): ...
        def close(self): ...

It is named in one of two ways: by the name of an entry point of its kind's group (`my = "my_package:MySink"`), or,
without any packaging, by its place: `my_module:MySink`. Built-in names belong to batcher; no other package can take
them over. A plug-in may say about itself, as attributes:

`options`    the model of its options. Flags, variables and keys of `[section]` are made from it, and the plug-in is
             called with an instance. Without a model it is called with what `--options NAME=VALUE` gave, as texts.
`section`    the name of that section, one word; else it is the name of the plug-in.
`contract`   the number of the contract it was written for; else it is taken for the current one.
`publisher`  of a source: what `produce --to` fills its queue with (`batcher.protocols.publisher`).
`reader`     of a source: what `verify` and `peek` read its log with (`batcher.protocols.readable`).

A plug-in with a parameter `context` also gets, by keyword, what it may have to know of the rest (`PluginContext`).
Nothing heavy is imported here: `--help` asks for the options of plug-ins.

It is long because what is known of the kinds, their extras and their names stands in one place.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, NamedTuple, NoReturn, TypeVar, cast

from batcher import __version__
from batcher.errors import BatcherError, ConfigurationError
from batcher.options import Section
from batcher.options.section import AnySection, section_among

if TYPE_CHECKING:
    import pyarrow as pa

CONTRACT: Final = 2
"""The number of the contracts in `batcher.protocols`; it grows when a plug-in that keeps the old ones would fail."""

DISTRIBUTION: Final = "kafka-batcher"

# The extra of ours that provides a module which the core install does not have.
EXTRAS: Final[Mapping[str, str]] = {
    "batcher_native": "native",
    "boto3": "sqs",
    "botocore": "sqs",
    "chdb": "embedded",
    "deltalake": "delta",
    "duckdb": "sql",
    "google": "protobuf",
    "grpc_tools": "protobuf",
    "numpy": "avro",
    "obstore": "object-store",
    "ptars": "protobuf",
    "pyiceberg": "iceberg",
    "sqlalchemy": "iceberg",
}

REGISTRIES: Final[Mapping[str, str]] = {
    "source": "batcher.sources:registry",
    "format": "batcher.formats:registry",
    "transform": "batcher.transforms:registry",
    "sink": "sinks:registry",
    "dead-letter queue": "batcher.dead_letters:registry",
}
"""Where the registry of each kind is. By name, because the packages are above this module."""

_ONE_WORD: Final = re.compile(r"[a-z][a-z0-9]*")

Part = TypeVar("Part")
AnyPlugin = TypeVar("AnyPlugin", bound=Callable[..., object])


class Description(NamedTuple):
    """Say where a named plug-in comes from: the distribution that provides it, and its version."""

    name: str
    origin: str
    version: str


def _nothing_again(_field: str) -> None:
    return None


@dataclass(frozen=True, slots=True)
class RetryWaits:
    """Say how long to wait before something is tried again: the settings of --retry, without chance.

    `exponential`: twice as long each time; `linear`: longer by `wait_s` each time; at most `max_wait_s`.
    """

    strategy: Literal["exponential", "linear"] = "exponential"
    wait_s: float = 0.5
    max_wait_s: float = 30.0

    def after(self, attempts: int) -> float:
        """Return the seconds to wait after so many attempts, at least one."""
        # 2.0**1024 is an error.
        factor = attempts if self.strategy == "linear" else 2.0 ** min(attempts - 1, 64)
        return min(self.wait_s * factor, self.max_wait_s)


@dataclass(frozen=True, slots=True)
class PluginContext:
    """Tell a plug-in what it may have to know of the pipeline around it."""

    pipeline: str = ""
    """The pipeline's name: for Kafka the consumer group."""
    topics: tuple[str, ...] = ()
    """What the source was told to read, names and `^` expressions."""
    schema: Callable[[], pa.Schema] | None = None
    """Return the schema of the file that --decode.schema names; None where it names none."""
    reread: Callable[[str], Callable[[], Section] | None] = _nothing_again
    """For a field of the plug-in's own section: a function that returns the section with the secret files read anew, or
    None where the field did not come from such a file. The function raises ConfigurationError."""
    sections: tuple[Section, ...] = ()
    """All sections of the settings; see `section`."""
    keys: bool = False
    """The part reads the keys of records, in place of their values."""
    decoded_coordinates: frozenset[str] = field(default_factory=frozenset)
    """Coordinates that the format fills from what they hold; for the target these are columns like any other."""
    until_eof: bool = False
    """The pipeline stops when it has everything that was there at the start."""
    excluded_topics: frozenset[str] = field(default_factory=frozenset)
    """Topics that are never read: dead letters go there."""
    workers: int = 1
    """Processes that share the work."""
    native: Literal["auto", "decode", "off", "require"] = "auto"
    """Whether the native extension may be used, or has to be."""
    drain_timeout_s: float = 20.0
    """How long a partition that is taken away is held for its batch in flight."""
    send_timeout_s: float = 30.0
    """How long a send of dead letters may take: it cannot be interrupted, and a stop waits for it."""
    waits: RetryWaits = RetryWaits()
    """How long to wait before what failed is tried again."""

    def section(self, model: type[AnySection]) -> AnySection:
        """Return the section of this model. Raise LookupError where there is none."""
        return section_among(self.sections, model)


def takes(
    options: type[Section], *, section: str | None = None, **offers: Callable[..., object]
) -> Callable[[AnyPlugin], AnyPlugin]:
    """Give a function the attributes of a plug-in: the model of its options, and the name of its section.

    `offers` are further parts that it can make, such as the `publisher` and the `reader` of a source.
    """

    def mark(plugin: AnyPlugin) -> AnyPlugin:
        for name, value in {"options": options, "section": section, **offers}.items():
            setattr(plugin, name, value)
        return plugin

    return mark


@dataclass(frozen=True, slots=True)
class FoundPlugin(Generic[Part]):
    """Hold a plug-in and what it says about itself. Without `model` it has no section either."""

    name: str
    make: Callable[..., Part]
    model: type[Section] | None
    section: str
    asks: bool
    """It has a parameter `context`."""


class Registry(Generic[Part]):
    """Find the plug-ins of one kind.

    `setting` is the key of the setting that names one. `methods` are what a part of this kind has to have. `built_in`
    repeats the entry points of our own pyproject.toml, so that a checkout works without being installed.
    """

    def __init__(
        self, kind: str, *, setting: str, group: str, built_in: Mapping[str, str], methods: tuple[str, ...]
    ) -> None:
        self.kind = kind
        self.setting = setting
        self.group = group
        self.built_in = built_in
        self.methods = methods

    @property
    def flag(self) -> str:
        """Return the flag that names a plug-in of this kind."""
        return f"--{self.setting}"

    def names(self) -> list[str]:
        """Return the names of the built-in and the installed plug-ins, sorted; imports none of them."""
        return sorted({*self.built_in, *(point.name for point in self._installed())})

    def describe(self) -> list[Description]:
        """Return every named plug-in with its origin, sorted; imports none of them."""
        found = [Description(name, DISTRIBUTION, __version__) for name in self.built_in]
        found += [
            Description(point.name, _owner(point), point.dist.version if point.dist else "?")
            for point in self._installed()
        ]
        return sorted(found)

    def with_options(self) -> list[str]:
        """Return the names of the built-in plug-ins that have options of their own, sorted."""
        return [name for name in sorted(self.built_in) if self.find(name).model is not None]

    def load(self, name: str) -> Callable[..., Part]:
        """Import the plug-in with this name, or at this `module:attribute`, and return it.

        Raise ConfigurationError when nothing has the name, when the import fails (naming the package to install when
        one is missing), and when what was found cannot be called.
        """
        if name in self.built_in:
            return self._imported(name, self.built_in[name], DISTRIBUTION)
        if ":" in name:
            # A console script does not have the working directory on its path, as `python -m` has. It comes last, so
            # that a file lying there cannot replace an installed module.
            here = str(Path.cwd())
            if here not in sys.path and "" not in sys.path:
                sys.path.append(here)
            return self._imported(name, name, None)
        points = [point for point in self._installed() if point.name == name]
        if not points:
            known = self.names()
            close = get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            _refuse(
                f"{self.flag} {name!r} is not known: {hint}known are {', '.join(known)}; "
                f"a {self.kind} of your own is named as module:attribute"
            )
        if len(points) > 1:
            owners = " and ".join(sorted(_owner(point) for point in points))
            _refuse(f"{self.flag} {name!r} is announced by {owners}: uninstall one, or use module:attribute")
        return self._imported(name, points[0].value, _owner(points[0]))

    def find(self, name: str) -> FoundPlugin[Part]:
        """Load a plug-in and read what it says about itself. Raise ConfigurationError for what cannot be right."""
        plugin = self.load(name)
        contract = getattr(plugin, "contract", CONTRACT)
        if contract != CONTRACT:
            _refuse(
                f"{self.flag} {name!r} is written for contract {contract!r}, and batcher {__version__} has {CONTRACT}: "
                f"install a version of the {self.kind} for this one"
            )
        model = getattr(plugin, "options", None)
        if model is None or not isinstance(model, type):  # for example a property of its instances
            return FoundPlugin(name, plugin, None, "", _asks(plugin))
        if not issubclass(model, Section):
            _refuse(
                f"{self.flag} {name!r}: its options are no batcher.options.Section; derive {model.__name__} from it"
            )
        section = getattr(plugin, "section", None) or name.rpartition(":")[2].rpartition(".")[2].lower()
        if not isinstance(section, str) or not _ONE_WORD.fullmatch(section):
            _refuse(
                f"{self.flag} {name!r}: its section {section!r} is not one word of lower-case letters and digits; "
                "give the plug-in an attribute section"
            )
        return FoundPlugin(name, plugin, model, section, _asks(plugin))

    def make(self, found: FoundPlugin[Part], options: Section | Mapping[str, object], context: PluginContext) -> Part:
        """Return the part that a plug-in makes, not open yet. Raise ConfigurationError, or what the plug-in raises."""
        try:
            made = found.make(options, context=context) if found.asks else found.make(options)
        except BatcherError:
            raise
        except ModuleNotFoundError as error:
            origin = DISTRIBUTION if found.name in self.built_in else ""
            _refuse(self._missing(found.name, "", origin, error), error)
        except Exception as error:  # not our code: whatever it raises while it is made is its own bug
            _refuse(f"{self.flag} {found.name}: cannot be made: {type(error).__name__}: {error}", error)
        lacking = [method for method in self.methods if not callable(getattr(made, method, None))]
        if lacking:
            _refuse(f"{self.flag} {found.name}: what it makes has no {lacking[0]}(), so it is no {self.kind}")
        return made

    def _installed(self) -> list[EntryPoint]:
        """Return the entry points of other packages, each once, whose names are not ours."""
        # The same distribution can be found twice on the path: in a checkout and in site-packages.
        found = {(point.name, point.value): point for point in entry_points(group=self.group)}
        return [point for (name, _), point in sorted(found.items()) if name not in self.built_in]

    def _imported(self, name: str, reference: str, origin: str | None) -> Callable[..., Part]:
        """Import `module:attribute` on behalf of the plug-in; `origin` is the distribution it came with, if any."""
        module_name, _, attribute = reference.partition(":")
        if not module_name or not attribute:
            _refuse(f"{self.flag} {name!r} is not of the form module:attribute")
        found: object = None
        try:
            found = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            _refuse(self._missing(name, module_name, origin, error), error)
        except Exception as error:  # the module is not ours: whatever it raises while imported is its own bug
            _refuse(
                f"{self.flag} {name!r} cannot be imported from {module_name}: {type(error).__name__}: {error}", error
            )
        for part in attribute.split("."):
            try:
                found = getattr(found, part)
            except AttributeError as error:
                _refuse(f"{self.flag} {name!r}: {module_name} has no {attribute!r}", error)
        if not callable(found):
            _refuse(f"{self.flag} {name!r}: {reference} cannot be called; name a class or a function")
        return cast("Callable[..., Part]", found)

    def _missing(self, name: str, module_name: str, origin: str | None, error: ModuleNotFoundError) -> str:
        """Say what to install, or where to look, for a module that was not found."""
        absent = error.name or "?"
        if origin is None and (module_name + ".").startswith(absent + "."):
            return f"{self.flag} {name!r}: there is no module {absent!r} on the Python path or in the working directory"
        what = absent
        if origin == DISTRIBUTION and (extra := EXTRAS.get(absent.partition(".")[0])):
            what = f"{DISTRIBUTION}[{extra}]"
        return f"{self.flag} {name!r} needs the Python module {absent!r}, which is not installed: pip install '{what}'"


def registries() -> list[Registry[Any]]:
    """Return the registries of all kinds."""
    return [registry_of(kind) for kind in REGISTRIES]


def registry_of(kind: str) -> Registry[Any]:
    """Return the registry of a kind such as "sink"."""
    module, _, attribute = REGISTRIES[kind].partition(":")
    return cast("Registry[Any]", getattr(importlib.import_module(module), attribute))


def _owner(point: EntryPoint) -> str:
    """Return the name of the distribution that provides an entry point."""
    return point.dist.name if point.dist else point.value


def _asks(plugin: Callable[..., object]) -> bool:
    try:
        return "context" in inspect.signature(plugin).parameters
    except (TypeError, ValueError):  # some callables written in C have no signature
        return False


def _refuse(message: str, cause: Exception | None = None) -> NoReturn:
    raise ConfigurationError(message) from cause
