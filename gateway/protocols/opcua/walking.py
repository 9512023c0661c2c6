"""Walks an address space breadth first, in batches, never in a circle."""

from collections.abc import AsyncIterator, Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from asyncua import ua

from gateway.protocols.opcua.browsing import children, local
from gateway.protocols.opcua.session import Session

_PARENTS_A_CALL = 50
_MOST_NODES = 200_000


@dataclass(slots=True, eq=False)
class Place:
    """A node as it was met on a walk."""

    node: ua.NodeId
    name: str = ""
    namespace: int = 0
    """Of the name: two children may differ in nothing else."""
    variable: bool = False
    parent: "Place | None" = None
    depth: int = 0
    """How many steps it lies below the beginning."""
    state: Any = None
    """What the walk's `step` returned for it."""

    def line(self) -> list["Place"]:
        """Return the places from below the beginning of the walk down to this one."""
        found: list[Place] = []
        place = self
        while place.parent is not None:
            found.append(place)
            place = place.parent
        return found[::-1]


Step = Callable[[Place, Place], Hashable | None]
"""Given a place and one below it, returns the state of that one; None: the walk does not go there."""


@dataclass(slots=True)
class Walk:
    """A walk from one node down; a node is met once in each state."""

    session: Session
    begin: Place
    step: Step
    complete: bool = True
    """False once it met more nodes than it may."""
    _seen: set[tuple[ua.NodeId, Hashable]] = field(default_factory=set)

    async def parts(self) -> AsyncIterator[list[Place]]:
        """Yield what is met, in parts of some parents' children."""
        level = [self.begin]
        self._seen.add((self.begin.node, self.begin.state))
        while level:
            below: list[Place] = []
            for start in range(0, len(level), _PARENTS_A_CALL):
                parents = level[start : start + _PARENTS_A_CALL]
                references = await children(self.session, [parent.node for parent in parents])
                met = list(self._met(parents, references))
                yield met
                below += met
            level = below

    def _met(
        self, parents: Sequence[Place], references: Sequence[Sequence[ua.ReferenceDescription]]
    ) -> Iterator[Place]:
        for parent, below in zip(parents, references, strict=True):
            for reference in below:
                if (node := local(reference.NodeId)) is None:
                    continue
                name = reference.BrowseName
                place = Place(
                    node,
                    name.Name or "",
                    name.NamespaceIndex,
                    reference.NodeClass == ua.NodeClass.Variable,
                    parent,
                    parent.depth + 1,
                )
                place.state = self.step(parent, place)
                if place.state is None or (node, place.state) in self._seen:
                    continue
                if len(self._seen) >= _MOST_NODES:
                    self.complete = False
                    return
                self._seen.add((node, place.state))
                yield place
