"""How much a verb says: `-q`, `-v`, and the log that comes of them."""

from __future__ import annotations

import argparse

from batcher.settings import Loaded, Parser, Settings, secrets


def add_loudness(made: Parser) -> None:
    """Add `-q` and `-v`."""
    group = made.add_mutually_exclusive_group()
    group.add_argument("-q", "--quiet", action="store_true", help="only warnings and errors, no live line")
    group.add_argument("-v", "--verbose", action="store_true", help="everything (--log.level debug)")


def log_level(settings: Settings, arguments: argparse.Namespace) -> str:
    """Return the level that `-q` and `-v` make of the one in the settings."""
    if arguments.quiet:
        return "error" if settings.log.level == "error" else "warning"
    return "debug" if arguments.verbose else settings.log.level


def level_for_people(arguments: argparse.Namespace) -> str:
    """Return the level for a verb that prints its findings: only what is wrong."""
    return "debug" if arguments.verbose else "error" if arguments.quiet else "warning"


def set_up_log(loaded: Loaded, level: str) -> None:
    """Send the log to stderr from a level up, without secrets, and begin it with what is to be warned about."""
    from batcher.telemetry import logs

    logs.hide(tuple(secrets(loaded.settings)))
    logs.setup(loaded.settings.log.format, level)
    for warning in loaded.warnings:
        logs.get(__name__).warning("setting_ignored", reason=warning)
