"""Whether it pays to ask a remote cache about steps of one kind; pure, no I/O.

A miss costs the time of the question, a hit spares the step.  Both are learnt as a run goes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

#: What steps have in common that read alike: rule, phase, link, whether each has an item.
Kind: TypeAlias = tuple[str, str, int, bool]
#: So many steps of a kind are asked about, whatever comes of it.
TRIED = 64
#: Seconds that a step is thought to take until one has told.
_GUESS = 0.05


@dataclass(slots=True)
class Worth:
    """What is known of steps of one kind.

    Args:
        asked, found: steps that were asked about, and those of them that were there.
        waited: seconds that asking took.
        ran, took: steps whose time is known, and how many seconds they took.
    """

    asked: int = 0
    found: int = 0
    waited: float = 0.0
    ran: int = 0
    took: float = 0.0

    @property
    def pays(self) -> bool:
        """Whether the next question is likely to spare more than it costs."""
        if self.asked < TRIED:
            return True
        chance = (self.found + 1) / (self.asked + 2)
        step = self.took / self.ran if self.ran else _GUESS
        return chance * step >= self.waited / self.asked

    def learn(self, asked: int, found: int, waited: float) -> None:
        """Take in what came of asking."""
        self.asked += asked
        self.found += found
        self.waited += waited

    def step(self, seconds: float) -> None:
        """Take in how long a step took, here or elsewhere."""
        self.ran += 1
        self.took += seconds
