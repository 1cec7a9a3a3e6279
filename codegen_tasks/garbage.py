"""When Python looks for circular garbage: seldom, since a command keeps nearly all that it makes.

Loaded by doit in every project of the environment, so it imports next to nothing.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
from collections.abc import Iterator

#: So many objects more than before are made between two looks.
_SELDOM = 50_000


@contextlib.contextmanager
def seldom() -> Iterator[None]:
    """Look seldom, and not among what there is already.

    Nor when the process ends, for the system takes back the memory then; what has to be closed
    is closed by those who opened it.
    """
    atexit.unregister(gc.freeze)
    atexit.register(gc.freeze)
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    gc.freeze()
    gc.set_threshold(_SELDOM, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        if not frozen:
            gc.unfreeze()


@contextlib.contextmanager
def none_among_new() -> Iterator[None]:
    """Look for none among what is made now, all of which is to be kept."""
    collecting, frozen = gc.isenabled(), gc.get_freeze_count()
    gc.disable()
    try:
        yield
    finally:
        # To Python, all that there is counts as old by that, and is not looked at again soon.
        gc.freeze()
        if not frozen:
            gc.unfreeze()
        if collecting:
            gc.enable()
