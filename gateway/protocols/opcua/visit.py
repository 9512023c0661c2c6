"""One look at a server, over a session of its own: for the command line."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asyncua import ua

from gateway.clock import Clock, SystemClock
from gateway.model import Device, DeviceProblem, GatewayError
from gateway.protocols.opcua import Settings
from gateway.protocols.opcua.faults import problem
from gateway.protocols.opcua.redundancy import open_healthiest
from gateway.protocols.opcua.tree import Tree, tree


@dataclass
class Visitor:
    """As much of a Link as opening a session takes."""

    device: str
    gateway_id: str
    state: Path
    clock: Clock = field(default_factory=SystemClock)
    memory: dict[str, Any] = field(default_factory=dict)


async def visit(
    device: Device,
    settings: Settings,
    visitor: Visitor,
    root: str,
    *,
    depth: int | None = None,
    globs: Sequence[str] = (),
) -> tuple[Tree, str]:
    """Return the tree below `root`, and what is insecure about the way there. GatewayError: a sentence."""
    try:
        async with open_healthiest(device, settings, visitor) as session:
            return await tree(session, root, depth=depth, globs=globs), session.insecure
    except ValueError as error:
        raise GatewayError(f"--match: {error}") from error
    except (BaseExceptionGroup, ua.UaError, OSError, TimeoutError) as error:
        told = problem(device.id, settings.url, error)
        if isinstance(error, ua.UaStatusCodeError) and error.code == ua.StatusCodes.BadTooManySessions:
            raise DeviceProblem(
                f"{told}; a running gateway has one of them, over which "
                f"`GET /v1/devices/{device.id}/browse` shows the same"
            ) from error
        raise told from error
