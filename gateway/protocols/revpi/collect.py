"""What runs for the box: a thread that looks at the image, and an eye on PiCtory's configuration."""

import asyncio
import logging
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from gateway.clock import wall_us_of
from gateway.model import Device, DeviceProblem, Link, Run
from gateway.protocols.revpi import Settings
from gateway.protocols.revpi.browse import Browser
from gateway.protocols.revpi.image import NotRunning, ProcessImage
from gateway.protocols.revpi.layout import Layout, Signature, configuration_file, read_layout, signature
from gateway.protocols.revpi.looking import Look, Looker
from gateway.protocols.revpi.tags import found
from gateway.protocols.revpi.thread import DriverThread
from gateway.protocols.revpi.watch import Stamp, Watch
from gateway.sampling import emit_sampled

_AGAIN_NS = 1_000_000_000
"""So often a configuration that would not do is tried again."""
_WAIT_S = 0.5
_PATIENCE_S = 5.0

_log = logging.getLogger(__name__)
T = TypeVar("T")


class _InUse(NamedTuple):
    """A configuration, and what is made of it."""

    layout: Layout
    looker: Looker
    problems: list[str]


async def collect(device: Device, settings: Settings, link: Link) -> None:
    """Collect until cancelled, or raise a DeviceProblem."""
    # A thread of its own: a driver that hangs must not take those that others need.
    thread = DriverThread(f"revpi-{device.id}")
    session = _Session(device, settings, link, thread)
    try:
        await session.run()
    except BaseExceptionGroup as group:
        first = group.exceptions[0]
        raise first from first.__cause__
    finally:
        session.end()


class _Session:
    """The open image, the configuration in use, and the tags."""

    def __init__(self, device: Device, settings: Settings, link: Link, thread: DriverThread) -> None:
        self._device = device
        self._settings = settings
        self._link = link
        self._thread = thread
        self._open: ProcessImage | None = None
        self._use: _InUse | None = None
        self._seen = b""
        self._outdated = ""
        """Why the newest configuration is not in use."""
        self._tried: Signature = (0, 0, 0)
        self._tried_ns = 0

    async def run(self) -> None:
        image = await self._ask(self._opened)
        use = await self._begin(image)
        with self._link.offer(Browser(lambda: ((self._use or use).layout, self._seen))):
            async with asyncio.TaskGroup() as group:
                group.create_task(self._cycles(image, use))
                group.create_task(self._on_request())

    def end(self) -> None:
        """Close the image, behind what the thread still does."""
        if self._use is not None:
            self._use.looker.wake.set()
        self._thread.submit(self._close)
        self._thread.end()

    # -- the configuration ---------------------------------------------------------------------

    async def _begin(self, image: ProcessImage) -> _InUse:
        while True:
            try:
                layout, self._tried = await self._ask(self._loaded, image)
            except NotRunning as error:
                # The image stays open: opening it makes some drivers reset all modules.
                self._link.report("failed", str(error))
                await self._link.clock.sleep(_WAIT_S)
                continue
            return self._adopt(image, layout, self._tried)

    async def _reload(self, image: ProcessImage, use: _InUse, changed: Signature) -> _InUse:
        """Return the newest configuration in use, or the one before where it will not do."""
        self._tried, self._tried_ns = changed, self._link.clock.mono_ns()
        try:
            layout, self._tried = await self._ask(self._loaded, image)
        except NotRunning:
            raise
        except DeviceProblem as problem:
            self._outdated = str(problem)
            return use
        self._outdated = ""
        if layout == use.layout:
            use.looker.read_as = self._tried
            return use
        _log.info("%s: %s has changed and is taken", self._device.id, layout.path)
        return self._adopt(image, layout, self._tried)

    def _adopt(self, image: ProcessImage, layout: Layout, read_as: Signature) -> _InUse:
        tags, problems = found(self._device, self._settings, layout, self._link)
        if not tags and not problems:
            problems.append(f"{layout.path} names no input or output to take")
        interval_ns = self._settings.poll_interval_ms * 1_000_000
        clock = self._link.clock
        looker = Looker(image, layout, read_as, Watch(tags), interval_ns=interval_ns, clock=clock)
        self._seen = bytes(layout.length)
        self._use = _InUse(layout, looker, [*problems, *layout.notes])
        return self._use

    # -- looking ---------------------------------------------------------------------------------

    async def _cycles(self, image: ProcessImage, use: _InUse) -> None:
        while True:
            try:
                async with self._link.run("subscription") as run:
                    while True:
                        look = await self._ask(use.looker.until_news, self._stamp())
                        await self._take(use, look, run, self._settings.poll_interval_ms)
                        use = await self._settled(image, use, look)
            except NotRunning as error:
                self._link.report("failed", str(error))
                use = await self._until_running(image, use)

    async def _settled(self, image: ProcessImage, use: _InUse, look: Look) -> _InUse:
        """Return the configuration to go on with. NotRunning: none that the driver has is known."""
        again = bool(self._outdated) and self._link.clock.mono_ns() - self._tried_ns >= _AGAIN_NS
        if look.signature == self._tried and not look.moved and not again:
            return use
        settled = await self._reload(image, use, look.signature)
        if look.moved and self._outdated:
            raise NotRunning(f"device {self._device.id}: {self._outdated}")
        return settled

    async def _until_running(self, image: ProcessImage, use: _InUse) -> _InUse:
        """Wait until the driver exchanges data again: after a reset it may have another configuration."""
        while True:
            await self._link.clock.sleep(_WAIT_S)
            try:
                use = await self._reload(image, use, self._tried)
                points = use.layout.points.values()
                elsewhere = self._outdated and await self._ask(image.disagreement, points)
            except NotRunning:
                continue
            if not elsewhere:
                return use
            self._link.report("failed", self._outdated)

    async def _on_request(self) -> None:
        while True:
            run_id = await self._link.polls.next()
            use = self._use
            assert use is not None
            use.looker.wake.set()
            try:
                async with self._link.run("poll", run_id) as run:
                    await self._take(use, await self._ask(use.looker.every_tag, self._stamp()), run)
            except NotRunning:
                continue  # the run tells; the cycle reports

    async def _take(self, use: _InUse, look: Look, run: Run, interval_ms: int | None = None) -> None:
        """Emit and report; `interval_ms`: nobody looks meanwhile."""
        if look.moved:
            return
        self._seen = look.image
        run.add(len(look.batch))
        if len(look.batch) and interval_ms is not None:
            await emit_sampled(self._link, look.batch, interval_ms)
        elif len(look.batch):
            await self._link.emit(look.batch)
        kept = self._outdated and f"{self._outdated}; until then the one before is used"
        said = [*use.problems, kept, *look.sentences]
        detail = "; ".join(sentence for sentence in said if sentence)
        self._link.report("degraded" if detail else "running", detail)

    def _stamp(self) -> Stamp:
        return Stamp(*self._link.stamp(), self._link.clock.mono_ns())

    # -- in the thread -----------------------------------------------------------------------------

    async def _ask(self, work: Callable[..., T], *arguments: object) -> T:
        future = asyncio.wrap_future(self._thread.submit(work, *arguments))
        clock = self._link.clock
        asked_ns = clock.mono_ns()
        done, _ = await asyncio.wait([future], timeout=_PATIENCE_S)
        if not done:
            silent = f"the piControl driver has not answered for {_PATIENCE_S:.0f} s: it hangs, see dmesg"
            self._link.report("failed", f"device {self._device.id}: {silent}")
            await asyncio.wait([future])
            self._link.gap(wall_us_of(clock, asked_ns), clock.wall_us(), silent)
        return await future

    def _opened(self) -> ProcessImage:
        self._open = ProcessImage(self._settings.image, self._device.id)
        return self._open

    def _close(self) -> None:
        if self._open is not None:
            self._open.close()

    def _loaded(self, image: ProcessImage) -> tuple[Layout, Signature]:
        path = configuration_file(self._settings.configuration)
        read_as = signature(path)
        layout = read_layout(path)
        elsewhere = image.disagreement(layout.points.values())
        if elsewhere:
            raise DeviceProblem(
                f"{path} is not what the piControl driver works with ({elsewhere}): "
                "restart the driver, in PiCtory or with `piTest -x`"
            )
        return layout, read_as
