"""The address space below a node as a tree, with types, values and access; read in batches."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from gateway.controls.devices import TagAbout
from gateway.model import DeviceProblem, Value
from gateway.protocols.opcua.datatypes import DataTypes
from gateway.protocols.opcua.discovery import SERVER, path_of
from gateway.protocols.opcua.metadata import looked_at
from gateway.protocols.opcua.nodes import BadNode, find, spelled
from gateway.protocols.opcua.patterns import Pattern, Places
from gateway.protocols.opcua.session import Session
from gateway.protocols.opcua.walking import Place, Walk


@dataclass(slots=True, eq=False)
class Branch:
    """A node of the tree and what lies below it."""

    path: str
    """From where the tree begins, as the YAML takes it."""
    name: str
    id: str
    depth: int
    variable: bool
    about: TagAbout = field(default_factory=TagAbout)
    access: str = ""
    """Of "r", "w", "rw", "" where it is no variable or nobody may use it."""
    value: Value = None
    status: int = 0
    matched: bool = True
    below: "list[Branch]" = field(default_factory=list)


@dataclass(slots=True)
class Tree:
    """What a walk brought."""

    top: list[Branch]
    complete: bool
    """False where the server has more nodes than are walked."""


async def tree(session: Session, root: str, *, depth: int | None = None, globs: Sequence[str] = ()) -> Tree:
    """Walk the tree below `root`, at most `depth` levels of it; with `globs` only what leads to a match.

    A glob is a path below the root; one without a slash matches a name at any depth. DeviceProblem: there is
    no such node; ValueError: no such glob.
    """
    patterns = [Pattern(glob.strip("/"), anywhere=True) for glob in globs]
    try:
        begin = await find(session, root)
    except BadNode as error:
        raise DeviceProblem(f"device {session.device}: root {root!r}: {error}") from None

    def step(parent: Place, place: Place) -> tuple[Places, ...] | None:
        if place.node == SERVER or (depth is not None and place.depth > depth):
            return None
        found = tuple(
            pattern.step(state, place.name, place.namespace)
            for pattern, state in zip(patterns, parent.state, strict=True)
        )
        return None if patterns and not any(found) else found

    walk = Walk(session, Place(begin, state=tuple(pattern.start for pattern in patterns)), step)
    branches: dict[Place, Branch] = {}
    top: list[Branch] = []
    async for part in walk.parts():
        for place in part:
            branch = _branch(session, place, patterns)
            branches[place] = branch
            parent = place.parent
            (branches[parent].below if parent in branches else top).append(branch)
    if patterns:
        top = _pruned(top)
    shown = set(all_of(top))
    await _read(
        session, [(place, each) for place, each in branches.items() if each.variable and each in shown]
    )
    return Tree(top, walk.complete)


def _branch(session: Session, place: Place, patterns: Sequence[Pattern]) -> Branch:
    states = zip(patterns, place.state, strict=True)
    return Branch(
        path=path_of(place),
        name=place.name,
        id=spelled(place.node, session.namespaces),
        depth=place.depth,
        variable=place.variable,
        matched=not patterns or any(pattern.complete(state) for pattern, state in states),
    )


def _pruned(branches: list[Branch]) -> list[Branch]:
    """Leave out what neither matches nor leads to a match."""
    kept = []
    for branch in branches:
        branch.below = _pruned(branch.below)
        if branch.matched or branch.below:
            kept.append(branch)
    return kept


def all_of(branches: Sequence[Branch]) -> list[Branch]:
    found = list(branches)
    for branch in found:
        found += branch.below  # the list grows while it is walked
    return found


async def _read(session: Session, variables: Sequence[tuple[Place, Branch]]) -> None:
    looks = await looked_at(session, [place.node for place, _ in variables], DataTypes())
    for (_, branch), look in zip(variables, looks, strict=True):
        branch.about, branch.access, branch.value, branch.status = look
