"""Which of n things hang together, given pairs of them that do?

Connected components on arrays: each thing has the label of the least thing that it hangs together
with. Pairs come in batches of any size, in any order, and may be given twice. Labels of components
that touch are led to the least of them and followed to their end, until nothing moves (the label
propagation of Shiloach and Vishkin, 1982).

Rejected: a loop over the pairs with union and find. A million pairs would take a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Ints = npt.NDArray[np.intp]


class Components:
    """The components of n things, each by itself at first."""

    def __init__(self, n: int) -> None:
        self.labels: Ints = np.arange(n)

    def apart(self, i: Ints, j: Ints) -> npt.NDArray[np.bool_]:
        """Which pairs are not yet known to hang together."""
        return np.asarray(self.labels[i] != self.labels[j])

    def join(self, i: Ints, j: Ints) -> None:
        """Take in pairs."""
        labels = self.labels
        while True:
            one, other = labels[i], labels[j]
            apart = one != other
            if not apart.any():
                return
            i, j, one, other = i[apart], j[apart], one[apart], other[apart]
            np.minimum.at(labels, np.maximum(one, other), np.minimum(one, other))
            while True:
                further = labels[labels]
                if np.array_equal(further, labels):
                    break
                labels[:] = further

    def groups(self) -> list[Ints]:
        """The components of two and more, each ascending, in the order of their first."""
        members = np.flatnonzero(np.bincount(self.labels, minlength=1)[self.labels] > 1)
        if not len(members):
            return []
        members = members[np.argsort(self.labels[members], kind="stable")]
        return np.split(members, np.flatnonzero(np.diff(self.labels[members])) + 1)
