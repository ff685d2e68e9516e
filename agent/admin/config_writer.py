"""Writes the configuration as its owner, or, in a folder of root's, through a child process that stays root.

The commands, files and addresses in that file are another user's, so root must not act on them. All of `setup`
therefore runs as that user. The child, forked before, only writes the text that it is given.
"""

from __future__ import annotations

import json
import os
import pwd
import signal
import socket
import tempfile
from contextlib import suppress
from pathlib import Path

from agent.errors import ConfigError
from agent.privilege import become, find_stranger, refuse_strangers

#: Longer than any configuration.
_LONGEST_MESSAGE = 1 << 20


class ConfigWriter:
    """Writes a configuration in this process.

    :param owner: uid and gid that root gives the file to.
    """

    def __init__(self, path: Path, owner: tuple[int, int] | None = None) -> None:
        self.path = path
        self._owner = owner

    def write(self, text: str, *, only_try: bool = False) -> None:
        """Replaces the file atomically.

        :param only_try: only write a temporary file beside it, and delete that again.
        :raises ConfigError: if it cannot be written.
        """
        written = write_beside(self.path, text, self._owner)
        if only_try:
            written.unlink()
            return
        try:
            written.replace(self.path)
        except OSError as error:
            written.unlink()
            raise ConfigError(f"cannot write {self.path}: {error.strerror}") from error


class RemoteWriter(ConfigWriter):
    """Passes the text to the child that has stayed root."""

    def __init__(self, path: Path, connection: socket.socket) -> None:
        super().__init__(path)
        self._connection = connection

    def write(self, text: str, *, only_try: bool = False) -> None:
        self._connection.sendall(json.dumps([text, only_try]).encode() + b"\n")
        answer = self._connection.makefile("rb").readline(_LONGEST_MESSAGE)
        words, hint = json.loads(answer) if answer else ("the process that writes the configuration has ended", "")
        if words:
            raise ConfigError(words, hint=hint)


def make_writer(path: Path, spool: Path) -> ConfigWriter:
    """Prepares to write a configuration. Run by root, this process becomes the file's owner.

    :param path: must not be a symbolic link.
    :param spool: a new file gets the owner of this folder.
    :raises ConfigError: if others could change the file, or root cannot become its owner.
    """
    if os.geteuid() != 0:
        return ConfigWriter(path)
    owner = _owner_of(path, spool)
    refuse_strangers(path, owner[0], ConfigError)
    if owner[0] == 0:
        return ConfigWriter(path, owner)
    if find_stranger(path.parent, {0}):  # root must not write here: the owner could plant links
        become(owner[0], f"the configuration {path}", ConfigError)
        return ConfigWriter(path)
    connection = _split_off(ConfigWriter(path, owner))
    become(owner[0], f"the configuration {path}", ConfigError)
    return RemoteWriter(path, connection)


def _owner_of(path: Path, spool: Path) -> tuple[int, int]:
    for place in (path, spool):
        with suppress(OSError):
            info = place.stat()
            gid = info.st_gid
            if place is spool:
                refuse_strangers(spool.parent, info.st_uid, ConfigError)
                with suppress(KeyError):
                    gid = pwd.getpwuid(info.st_uid).pw_gid
            return info.st_uid, gid
    return 0, 0


def _split_off(writer: ConfigWriter) -> socket.socket:
    """Forks the child, which exits when our end of the connection closes."""
    ours, theirs = socket.socketpair()
    if os.fork():
        theirs.close()
        return ours
    try:
        ours.close()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which asks questions
        for line in iter(lambda: theirs.makefile("rb").readline(_LONGEST_MESSAGE), b""):
            text, only_try = json.loads(line)
            answer = ("", "")
            try:
                writer.write(str(text), only_try=bool(only_try))
            except ConfigError as error:
                answer = (str(error), error.hint)
            theirs.sendall(json.dumps(answer).encode() + b"\n")
    finally:
        os._exit(0)


def write_beside(path: Path, text: str, owner: tuple[int, int] | None = None) -> Path:
    """Writes a text to a new file beside ``path``, readable by its owner only, ready to replace it.

    :param owner: uid and gid that root gives the file to.
    :raises ConfigError: if it cannot be written.
    """
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        number, name = tempfile.mkstemp(prefix=".", suffix=path.suffix, dir=path.parent)  # mode 600 from the start
        try:
            with open(number, "w", encoding="utf-8") as file:  # noqa: PTH123  # it is open already
                file.write(text)
                file.flush()
                if os.geteuid() == 0 and owner:
                    os.fchown(number, *owner)  # by descriptor: the name may lead elsewhere by now
                os.fsync(number)
        except BaseException:
            Path(name).unlink()
            raise
    except OSError as error:
        hint = "run as root, or use --config with a file of your own"
        raise ConfigError(f"cannot write {path}: {error.strerror}", hint=hint) from error
    return Path(name)
