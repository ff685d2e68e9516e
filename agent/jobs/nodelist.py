"""Expands Slurm's folded node lists into plain names. Pure.

The dashboard expands lists itself, but misreads names with a hyphen, several brackets or a mix of both. So it gets
plain names. The rules were verified against ``scontrol show hostnames`` on 20.11 to 26.05.
"""

from __future__ import annotations

import re
from typing import Iterator

#: Slurm expands no range to more names than this. A list that would exceed it in total is not sent.
MOST_NAMES = 65_536

_LIST = re.compile(r"(?:[^\[\],]|\[[^\[\]]+\]|,)+")
_ITEM = re.compile(r"(?:[^\[\],]|\[[^\[\]]+\])+")
_PIECE = re.compile(r"\[([^\[\]]+)\]|([^\[\]]+)")
_RANGE = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,18}))?", re.ASCII)


def unfold(node_list: str) -> str:
    """The names of a node list, separated by commas; empty for anything that is not a list, or too long a list.

    >>> unfold("cn7,gpu-node[08-10],x1000c[0-1]s0b0n[0-1]")
    'cn7,gpu-node08,gpu-node09,gpu-node10,x1000c0s0b0n0,x1000c0s0b0n1,x1000c1s0b0n0,x1000c1s0b0n1'
    """
    if "[" not in node_list:
        return node_list
    if not _LIST.fullmatch(node_list):
        return ""
    names: list[str] = []
    try:
        for item in _ITEM.findall(node_list):
            names += _names(item, MOST_NAMES - len(names))
    except ValueError:
        return ""
    return ",".join(names)


def _names(item: str, most: int) -> list[str]:
    """The names of one item such as ``a[1-3]b[01-02]``: every combination of the brackets' numbers.

    :raises ValueError: if it can't be parsed or has more than ``most`` names.
    """
    names = [""]
    for bracket, text in _PIECE.findall(item):
        if text:
            names = [name + text for name in names]
            continue
        numbers = list(_numbers(bracket, most // len(names)))
        names = [name + number for name in names for number in numbers]
    if len(names) > most:
        raise ValueError(f"more than {MOST_NAMES} names")
    return names


def _numbers(bracket: str, most: int) -> Iterator[str]:
    """The numbers of ``1-3,07``, zero-padded to the width of each range's first number.

    :raises ValueError: if it can't be parsed or has more than ``most`` numbers.
    """
    for text in bracket.split(","):
        found = _RANGE.fullmatch(text)
        if not found:
            raise ValueError(f"{text[:40]!r} is not a range")
        first, last = int(found[1]), int(found[2] or found[1])
        most -= last - first + 1
        if last < first or most < 0:
            raise ValueError(f"{text[:40]!r} is descending or too long")
        width = len(found[1])
        for number in range(first, last + 1):
            yield f"{number:0{width}}"
