"""What went between us and a remote cache, counted; apart, since most runs need no more of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Traffic:
    """What went between us and a store.

    Args:
        found, missed: things that were asked for, by whether they came.
        received, sent: bytes.
        kept: results that were sent.
        unsent: results that were to be sent, and were not.
        waited: seconds that steps waited for what was asked for.
        foreign: things among those missed that came, and were not signed with our key.
        fault: why the store was left alone, or nothing was sent any more; "" if it was not.
        slip: what went wrong without that; "" if nothing did.
        hint: what may help against either.
    """

    found: int = 0
    missed: int = 0
    received: int = 0
    sent: int = 0
    kept: int = 0
    unsent: int = 0
    waited: float = 0.0
    foreign: int = 0
    fault: str = ""
    slip: str = ""
    hint: str = ""

    def note(self, what: str, hint: str = "", then: str = "") -> None:
        """Take in what went wrong, and what was done about it; the first of either is told."""
        if self.fault:
            return
        if then:
            self.fault, self.hint = f"{what}, so {then}", hint
        elif not self.slip:
            self.slip, self.hint = what, hint

    def since(self, before: Traffic) -> Traffic:
        """Return what has come to it since it was as `before`."""
        added = {name: getattr(self, name) - getattr(before, name) for name in COUNTS}
        return Traffic(**added, fault=self.fault, slip=self.slip, hint=self.hint)

    def include(self, other: Traffic) -> None:
        """Add another's."""
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        if other.fault and not self.fault:
            self.fault, self.hint = other.fault, other.hint
        elif other.slip:
            self.note(other.slip, other.hint)


#: Which of its fields can be added.
COUNTS = ("found", "missed", "received", "sent", "kept", "unsent", "waited", "foreign")
