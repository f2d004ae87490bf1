"""A section of the settings: what one part of a pipeline can be told, as fields with types, defaults and help."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self, TypeVar

from pydantic import BaseModel, ConfigDict

from batcher.options.masking import masked_value, unencoded_password


@dataclass(frozen=True, slots=True)
class Flag:
    """Say how a setting looks on the command line, where that does not follow from its name and type.

    `plugin` is the kind of plug-in that the setting names, such as "sink"; then it needs no `metavar`. What is `public`
    is shown, although it is named like a secret.
    """

    short: str | None = None
    metavar: str | None = None
    plugin: str | None = None
    public: bool = False


class Fault(NamedTuple):
    """Say what is wrong with a field of a section; the message follows the flag, variable or file it came from."""

    field: str
    message: str


def password_faults(field: str, url: str, otherwise: str) -> Iterator[Fault]:
    """Yield what is wrong with the password in a URL, which no parser would read as it was meant.

    `otherwise` says what to do instead of writing it another way.
    """
    if unencoded_password(url):
        yield Fault(
            field,
            "holds @, /, # or ? in the password or an @ behind the host: write %40, %2F, %23 or %3F for it, or "
            f"{otherwise}",
        )


@dataclass(frozen=True, slots=True)
class Advice:
    """Say what to change and why; `flags` are the words for the command line, none where it concerns no setting."""

    text: str
    flags: tuple[str, ...] = ()


class Section(BaseModel):
    """Refuse what is not known, and never show an input in an error: it may be a secret.

    The docstring of a field is its help. Subclasses override the methods for which they have an answer.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, hide_input_in_errors=True)

    for_large_batches: ClassVar[bool] = False
    """Whether the part needs time for each batch, so that large batches are the first thing to try."""

    routed: ClassVar[str] = ""
    """For a sink: the field that names its target, such as a table, which `--route` gives for each topic."""

    implied: ClassVar[Mapping[str, str]] = {}
    """Values of other settings where nothing else gives them one and this part is chosen by its name. The keys are
    those of the settings, such as `batch.max_rows`; the values are written as in a file."""

    def lacking(self) -> Iterator[Fault]:
        """Yield what has to be given before the part can run."""
        yield from ()

    def impossible(self) -> Iterator[Fault]:
        """Yield what cannot work with any verb, also where the part is not chosen."""
        yield from ()

    def unshared(self) -> Iterator[Fault]:
        """Yield what several workers cannot have."""
        yield from ()

    def written_to(self) -> Iterator[tuple[str, str]]:
        """Yield the fields that name a file or directory which the part writes to, each with its path or `file:` URI.

        Places that are not on a disk of this machine may be among them; they are passed over.
        """
        yield from ()

    def of_worker(self, number: int) -> Self:
        """Return the section of one of several workers: what only one process can have becomes its own."""
        del number
        return self

    def as_run(self) -> Self:
        """Return the section as `run` uses it, where that is not as it was given."""
        return self

    def faster(self) -> Iterator[Advice]:
        """Yield what to change where everything else waits for writing, the most useful change first."""
        yield from ()

    @classmethod
    def borrowed(cls, given: Mapping[str, Any]) -> Mapping[str, str]:
        """Return variables of other programs that are read for fields where nothing else gives them a value.

        `given` is what flags, variables and files say about the section.
        """
        del given
        return {}

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, masked_value(name or "", value)


AnySection = TypeVar("AnySection", bound=Section)


def section_among(sections: Iterable[Section], model: type[AnySection]) -> AnySection:
    """Return the section of this model. Raise LookupError where there is none."""
    for one in sections:
        if isinstance(one, model):
            return one
    raise LookupError(f"no section of the settings is a {model.__name__}")
