"""Listings of folders, each read once, and what tells later that they need not be read again.

A folder's own signature changes with each entry that is made, renamed or removed in it.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from . import disk
from .model import UNSETTLED, Stat


@dataclass(frozen=True, slots=True)
class Listing:
    """The names in one folder, sorted: regular files and links to such, others, folders.

    Args:
        files: regular files, and links to them.
        others: what is neither a file nor a folder, broken links for instance.
        folders: folders, and links to them, which `links` names.
        links: the folders that are links.
    """

    files: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    links: frozenset[str] = frozenset()


class Folders:
    """The folders of one project.

    Args:
        root: the project; all folders are relative to it.
    """

    def __init__(self, root: str):
        self._root = root
        self._listings: dict[str, Listing] = {}
        #: By folder, what it looked like before it was read, None if it was not there; one
        #: that could change its content unnoticed has a signature that no folder has.
        self.signatures: dict[str, Stat | None] = {}

    def listing(self, folder: str) -> Listing:
        """Return what a folder holds; nothing if there is none or it cannot be read."""
        found = self._listings.get(folder)
        if found is None:
            found = self._listings[folder] = self._read(folder)
        return found

    def walk(self, folder: str) -> list[str]:
        """Return all files below a folder, relative to it, sorted; links are not followed."""
        found: list[str] = []
        left = [""]
        while left:
            below = left.pop()
            listing = self.listing(f"{folder}/{below}".rstrip("/"))
            found += [below + name for name in (*listing.files, *listing.others)]
            left += [f"{below}{name}/" for name in listing.folders if name not in listing.links]
        return sorted(found)

    def settled(self) -> dict[str, Stat | None]:
        """Return the signatures; those are looked at again that could not be told from later ones.

        A folder that still holds what it held has by now a signature of its own.
        """
        again = Folders(self._root)
        for folder, before in self.signatures.items():
            unsettled = before is not None and before[1] == UNSETTLED
            if unsettled and again.listing(folder) == self._listings[folder]:
                self.signatures[folder] = again.signatures[folder]
        return self.signatures

    def _read(self, folder: str) -> Listing:
        path = os.path.join(self._root, folder)
        before = _signature(path)
        files, others, folders, links, vouching = [], [], [], set(), True
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    link = entry.is_symlink()
                    # What a link leads to comes and goes without a trace in the folder.
                    vouching = vouching and not link
                    if entry.is_file():
                        files.append(entry.name)
                    elif entry.is_dir():
                        folders.append(entry.name)
                        if link:
                            links.add(entry.name)
                    else:
                        others.append(entry.name)
        except OSError:
            vouching = False
        if before is not None and not vouching:
            before = disk.unsettled(before)
        self.signatures[folder] = before
        return Listing(
            tuple(sorted(files)), tuple(sorted(others)), tuple(sorted(folders)), frozenset(links)
        )


def _signature(path: str) -> Stat | None:
    """Return a folder's signature; unsettled if it was changed within the clock's last tick."""
    try:
        found = disk.signed(os.stat(path))
    except OSError:
        return None
    return found if time.time_ns() - found[2] > disk.tick(found) else disk.unsettled(found)
