"""What went between us and a remote cache, counted; apart, since most runs need no more of it."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(slots=True)
class Traffic:
    """What went between us and a store.

    Args:
        found, missed: things that were asked for, by whether they came.
        received, sent: bytes.
        kept: results that were sent.
        unsent: results that were to be sent, and were not.
        waited: seconds that steps waited for what was asked for.
        fault: why the store was left alone, or nothing was sent any more; "" if it was not.
    """

    found: int = 0
    missed: int = 0
    received: int = 0
    sent: int = 0
    kept: int = 0
    unsent: int = 0
    waited: float = 0.0
    fault: str = ""

    def since(self, before: Traffic) -> Traffic:
        """Return what has come to it since it was as `before`."""
        names = [each.name for each in fields(self) if each.name != "fault"]
        added = {name: getattr(self, name) - getattr(before, name) for name in names}
        return Traffic(**added, fault=self.fault)

    def include(self, other: Traffic) -> None:
        """Add another's."""
        for each in fields(self):
            if each.name != "fault":
                total = getattr(self, each.name) + getattr(other, each.name)
                setattr(self, each.name, total)
        self.fault = self.fault or other.fault
