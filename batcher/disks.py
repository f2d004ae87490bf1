"""Tell the failures of files that pass by waiting from those that a person has to repair.

All code that writes files asks here, so that a full disk is the same everywhere: worth another try. So is every number
that is not listed (ENOSPC, EDQUOT, EIO, EAGAIN, EMFILE, ESTALE, ETIMEDOUT, …), because stopping for good on a failure
that passes costs more than asking a few times too often.
"""

from __future__ import annotations

import errno
from typing import Final

LASTING: Final = frozenset(
    {
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENOTDIR,
        errno.EEXIST,
        errno.EISDIR,
        errno.ENOENT,
        errno.ELOOP,
        errno.EXDEV,
        errno.ENAMETOOLONG,
        errno.EFBIG,
        errno.ENODEV,
        errno.ENXIO,
    }
)
"""Numbers of an OSError that stay until a path, a right or a mount is changed."""


def passes(error: OSError) -> bool:
    """Return whether the same call may work later without a change of settings."""
    # Libraries raise it without a number, but still choose the class.
    kinds = (PermissionError, FileNotFoundError, NotADirectoryError, IsADirectoryError, FileExistsError)
    return error.errno not in LASTING and not isinstance(error, kinds)
