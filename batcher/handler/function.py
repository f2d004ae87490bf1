"""Find a handler by its name, and check that it can be called as one. Faults are told as HandlerFault."""

from __future__ import annotations

import functools
import importlib
import inspect
import runpy
import sys
from collections.abc import Callable
from typing import Any, NamedTuple


class HandlerFault(Exception):
    """Say in one line what is wrong with a handler; who asked for it says where it was named."""


class HandlerPlace(NamedTuple):
    """Say where a handler is, so that another process finds it. `script` is the file of a `__main__`, or empty."""

    module: str
    attribute: str
    script: str = ""


def place_of(reference: str) -> HandlerPlace:
    """Read `module:attribute`."""
    module, _, attribute = reference.partition(":")
    if not module or not attribute:
        raise HandlerFault("is not of the form module:function")
    return HandlerPlace(module, attribute)


def place_of_function(handler: Any) -> HandlerPlace:
    """Return where another process finds a function that was given as such."""
    module, attribute = getattr(handler, "__module__", ""), getattr(handler, "__qualname__", "")
    named = isinstance(attribute, str) and attribute and "<" not in attribute
    if not named or _attribute(sys.modules.get(module), attribute) is not handler:
        raise HandlerFault("is no function or class at the top of a module, so that another process cannot find it")
    main = sys.modules["__main__"]
    if module != "__main__":
        return HandlerPlace(module, attribute)
    if main.__spec__ is not None:
        return HandlerPlace(main.__spec__.name, attribute)
    script = getattr(main, "__file__", None)
    if not script:
        raise HandlerFault("is defined in no file, so that another process cannot find it")
    return HandlerPlace(module, attribute, script)


def found(place: HandlerPlace) -> Any:
    """Import a handler. Raise HandlerFault, caused by what its module raised."""
    module: object
    try:
        if place.script:
            module = _Namespace(runpy.run_path(place.script, run_name="__mp_main__"))
        else:
            module = importlib.import_module(place.module)
    except ModuleNotFoundError as error:
        if (place.module + ".").startswith(f"{error.name}."):
            raise HandlerFault(
                f"there is no module {error.name!r} on the Python path or in the working directory"
            ) from error
        raise HandlerFault(f"{place.module} needs the Python module {error.name!r}, which is not installed") from error
    except Exception as error:  # the module is not ours: whatever it raises is its own bug
        raise HandlerFault(f"cannot be imported from {place.module}: {type(error).__name__}: {_line(error)}") from error
    handler = _attribute(module, place.attribute)
    if handler is None:
        raise HandlerFault(f"{place.module} has no {place.attribute!r}")
    return handler


def checked(handler: Any, *, as_list: bool) -> None:
    """Raise HandlerFault for what cannot be called with one argument. A class is made without any, and called then."""
    what = "the list of messages" if as_list else "the message"
    if not callable(handler):
        raise HandlerFault(f"is no function but a {type(handler).__name__}; name a function that takes {what}")
    function = handler
    if inspect.isclass(handler):
        if not inspect.isfunction(_call_of(handler)):
            raise HandlerFault("is a class whose instances cannot be called; give it a method __call__")
        if not _takes(handler):
            raise HandlerFault("is a class that is made without arguments here; give its parameters defaults")
        function = functools.partial(_call_of(handler), None)
    if inspect.isgeneratorfunction(_plain(handler)) or inspect.isasyncgenfunction(_plain(handler)):
        raise HandlerFault("has a yield, so that calling it does nothing; return instead")
    if not _takes(function, object()):
        needed = _needed(function)
        raise HandlerFault(f"is called with one argument, {what}, and takes {needed or 'none'}")


def is_async(handler: Any) -> bool:
    """Return whether what the handler returns has to be awaited."""
    return inspect.iscoroutinefunction(_plain(handler))


def made(handler: Any) -> Callable[[Any], Any]:
    """Return what is called: an instance where the handler is a class. Raise HandlerFault where that cannot be made."""
    try:
        call: Any = handler() if inspect.isclass(handler) else handler
    except Exception as error:  # as above
        raise HandlerFault(f"cannot be made: {type(error).__name__}: {_line(error)}") from error
    return call  # type: ignore[no-any-return]


def _plain(handler: Any) -> Any:
    while isinstance(handler, functools.partial):
        handler = handler.func
    if inspect.isroutine(handler):
        return handler
    return _call_of(handler)


def _call_of(handler: Any) -> Any:
    # Of a class this is what its instances have; callable() would say yes to each class.
    return getattr(handler, "__call__", handler)  # noqa: B004


def _takes(function: Any, *arguments: object) -> bool:
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        return False
    except ValueError:  # some callables written in C have no signature
        return True
    return True


def _needed(function: Any) -> str:
    needed = [one for one in inspect.signature(function).parameters.values() if one.default is one.empty]
    return ", ".join(one.name for one in needed if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD))


def _attribute(module: object, attribute: str) -> Any:
    for part in attribute.split("."):
        module = getattr(module, part, None)
    return module


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())


class _Namespace:
    """Give the names that a script has defined as attributes."""

    def __init__(self, names: dict[str, Any]) -> None:
        self.__dict__.update(names)
