"""The section [registry]. Light: the command line is made from it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import Field

from batcher.options import Duration, Fault, Flag, SecretStr, Section, password_faults

_OTHERWISE: Final = "give the password with BATCHER_REGISTRY_PASSWORD or BATCHER_REGISTRY_PASSWORD_FILE"


class SchemaRegistryOptions(Section):
    """The schema registry, for records that name the schema they were written with."""

    url: Annotated[SecretStr | None, Flag(metavar="URL")] = None
    """http://[user[:password]@]host:port[/path] or https://…; several, comma separated, are tried in turn."""
    user: Annotated[str | None, Flag(metavar="NAME")] = None
    """User, where the URL has none."""
    password: Annotated[SecretStr | None, Flag(metavar="SECRET")] = None
    """Password; better from a variable or file than from here."""
    token: Annotated[SecretStr | None, Flag(metavar="SECRET")] = None
    """Bearer token, in place of user and password."""
    ca: Annotated[str | None, Flag(metavar="PATH")] = None
    """File or directory with the authorities to trust, in place of the usual ones."""
    certificate: Annotated[str | None, Flag(metavar="FILE")] = None
    """Certificate to show to the registry (PEM)."""
    key: Annotated[str | None, Flag(metavar="FILE")] = None
    """Private key of the certificate (PEM), where it is not in the same file."""
    key_password: Annotated[SecretStr | None, Flag(metavar="SECRET")] = None
    """Password of the private key."""
    timeout: Annotated[Duration, Field(gt=timedelta(0)), Flag(metavar="TIME")] = timedelta(seconds=10)
    """How long to wait for an answer; then the pipeline pauses and asks again."""
    grace: Annotated[Duration, Flag(metavar="TIME")] = timedelta(seconds=10)
    """How long to ask again for a schema that the registry does not know, before its records are dead letters."""

    def impossible(self) -> Iterator[Fault]:
        named = self.url is not None and "@" in self.url.get_secret_value()
        yield from self._strange_urls()
        if named and (self.user is not None or self.password is not None):
            yield Fault("user", "the URL names a user too: give it in one place")
        elif self.user is None and self.password is not None:
            yield Fault("password", "whose? give the user too")
        if self.user is not None and ":" in self.user:
            yield Fault("user", "cannot hold a colon: HTTP ends the name there")
        if self.token is not None:
            if named or self.user is not None:
                yield Fault("token", "takes the place of user and password: give one of them")
            if re.fullmatch(r"[!-~]+", self.token.get_secret_value()) is None:
                yield Fault("token", "holds what a header cannot: a space, a line break or a letter beyond ASCII")
        if self.certificate is None and (self.key is not None or self.key_password is not None):
            yield Fault("certificate", "belongs to a key: give it too")

    def _strange_urls(self) -> Iterator[Fault]:
        for url in self.urls():
            faults = list(password_faults("url", url, _OTHERWISE))
            yield from faults
            if not faults and not _usable(url):
                yield Fault("url", "has to be http://host:port or https://host:port, perhaps with a path")

    def urls(self) -> tuple[str, ...]:
        """Return the URLs, with the secrets they hold."""
        given = "" if self.url is None else self.url.get_secret_value()
        return tuple(url.strip() for url in given.split(",") if url.strip())


def _usable(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # as for a port that is no number
        return False
