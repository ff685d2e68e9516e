"""Writes the man page and the shell completions from the command line's own help.

    python etc/manual.py [FOLDER]     into etc/man/ and etc/completion/ by default

argparse-manpage is not used, because it repeats the common options under each command and omits the configuration.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Iterator

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))

from agent import __version__  # noqa: E402  # the checkout's, whatever else is installed
from agent.arguments import DESCRIPTION, EPILOG, build_parser  # noqa: E402
from agent.config import NAME  # noqa: E402
from agent.config_keys import KEYS  # noqa: E402

MAN_PAGE = f"man/{NAME}.8"
BASH = f"completion/{NAME}.bash"
ZSH = f"completion/_{NAME}"


def make_man_page() -> str:
    """The man page in roff, one section after the other."""
    parser = build_parser()
    lines = [
        f'.TH {_plain(NAME.upper())} 8 "" "{NAME} {__version__}" "\\&"',
        ".SH NAME",
        _plain(f"{NAME} - bring finished Slurm jobs to a usage dashboard"),
        ".SH SYNOPSIS",
        f".B {_plain(NAME)}",
        _plain("[COMMAND] [OPTION]..."),
        ".SH DESCRIPTION",
        _prose(DESCRIPTION),
        ".SH OPTIONS",
        "Options may precede or follow the command.",
        *_options(parser),
        ".SH COMMANDS",
        *_commands(parser),
        ".SH CONFIGURATION",
        "TOML, or JSON with the same keys. Only",
        ".BR api_url ",
        "and a key are needed.",
        *_configuration(),
        *_epilog(),
    ]
    return "\n".join(lines) + "\n"


def make_completion(shell: str) -> str:
    """The completion script for ``bash`` or ``zsh``."""
    import shtab  # noqa: PLC0415  # the man page needs none

    parser = build_parser()
    for action in _subparsers(parser)["reconcile"]._actions:
        if action.option_strings[0] not in parser._option_string_actions:
            parser._add_action(action)  # without a command it is a reconcile
    for each in (parser, *_subparsers(parser).values()):
        for action in each._actions:
            if action.type is Path:
                action.complete = shtab.FILE  # type: ignore[attr-defined]  # shtab's interface
    return str(shtab.complete(parser, shell))


def _commands(parser: argparse.ArgumentParser) -> Iterator[str]:
    everywhere = set(parser._option_string_actions)
    for name, command in _subparsers(parser).items():
        yield f".SS {name}"
        yield _prose(command.description or "")
        for action, its in _subparsers(command).items():
            words = " ".join([action, *(_arguments(its))])
            yield from (".TP", f".B {_plain(f'{name} {words}')}", _prose(its.description or ""))
        yield from _options(command, without=everywhere)


def _options(parser: argparse.ArgumentParser, without: set[str] | None = None) -> Iterator[str]:
    for action in parser._actions:
        if action.option_strings and not set(action.option_strings) & (without or set()):
            value = f" \\fI{_plain(str(action.metavar))}\\fR" if action.metavar else ""
            names = ", ".join(f"\\fB{_plain(option)}\\fR" for option in action.option_strings)
            yield from (".TP", f"{names}{value}", _prose(action.help or ""))


def _arguments(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if not action.option_strings:
            yield f"[{action.metavar}]..." if action.nargs == "*" else f"{action.metavar}..."


def _configuration() -> Iterator[str]:
    for key in KEYS:
        default = "" if key.default in {None, ""} else f" Default: {_value(key.default)}."
        yield from (
            ".TP",
            f".B {_plain(key.name)}",
            _prose(f"{key.about[0].upper()}{key.about[1:]}; {key.kind.wanted}.{default}"),
        )


def _value(value: object) -> str:
    return f"[{', '.join(map(str, value))}]" if isinstance(value, tuple) else str(value)


def _epilog() -> Iterator[str]:
    """The sections after the help's list of options, with their line breaks."""
    for section in EPILOG.split("\n\n"):
        title, *lines = section.split("\n")
        yield from (f".SH {title.rstrip(':').upper()}", ".nf", *map(_plain, lines), ".fi")


def _subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    found = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return {name: made for action in found for name, made in action.choices.items()}


def _prose(text: str) -> str:
    return _plain(" ".join(text.split()))


def _plain(text: str) -> str:
    """A line escaped for roff."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("`", "\\(ga")
    return f"\\&{text}" if text.startswith((".", "'")) else text


def main() -> None:
    """Writes all three files."""
    folder = Path(sys.argv[1]) if sys.argv[1:] else CHECKOUT / "etc"
    for name, text in ((MAN_PAGE, make_man_page()), (BASH, make_completion("bash")), (ZSH, make_completion("zsh"))):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
        print(folder / name)


if __name__ == "__main__":
    main()
