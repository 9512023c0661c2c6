"""What runs for the box: one read of the image per cycle, and an eye on PiCtory's configuration."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

from gateway.model import Batch, Device, DeviceProblem, Link, Run
from gateway.protocols.revpi import Settings
from gateway.protocols.revpi.bridge import Errors, Verdict, judge
from gateway.protocols.revpi.browse import Browser
from gateway.protocols.revpi.image import NotRunning, ProcessImage
from gateway.protocols.revpi.layout import Layout, configuration_file, read_layout, signature
from gateway.protocols.revpi.tags import found
from gateway.protocols.revpi.watch import Stamp, Watch

_AGAIN_NS = 1_000_000_000
"""So often the driver is asked for its modules, and a configuration that would not do is tried again."""
_WAIT_S = 0.5
_PATIENCE_S = 5.0

_log = logging.getLogger(__name__)
T = TypeVar("T")
Signature = tuple[int, int, int]


class _InUse(NamedTuple):
    """A configuration, and what is made of it."""

    layout: Layout
    watch: Watch
    problems: list[str]


class _Seen(NamedTuple):
    """What one look brought; `moved`: the driver has another configuration by now, the image is void."""

    image: bytes
    signature: Signature
    moved: bool


async def collect(device: Device, settings: Settings, link: Link) -> None:
    """Collect until cancelled, or raise a DeviceProblem."""
    # A thread of its own: a driver that hangs must not take those that others need.
    thread = ThreadPoolExecutor(1, f"revpi-{device.id}")
    session = _Session(device, settings, link, thread)
    try:
        await session.run()
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
    finally:
        thread.submit(session.close)
        thread.shutdown(wait=False)


class _Session:
    """The open image, the configuration in use, and the tags."""

    def __init__(self, device: Device, settings: Settings, link: Link, thread: ThreadPoolExecutor) -> None:
        self._device = device
        self._settings = settings
        self._link = link
        self._thread = thread
        self._open: ProcessImage | None = None
        self._use: _InUse
        self._image = b""
        self._missing: frozenset[int] | None = None
        self._asked_ns = -_AGAIN_NS
        self._verdict = Verdict()
        self._errors = Errors()
        self._outdated = ""
        """Why the newest configuration is not in use."""
        self._tried: Signature = (0, 0, 0)
        self._tried_ns = 0

    def close(self) -> None:
        """Close the image; in the thread."""
        if self._open is not None:
            self._open.close()

    async def run(self) -> None:
        image = await self._ask(self._opened)
        await self._begin(image)
        with self._link.offer(Browser(lambda: (self._use.layout, self._image))):
            async with asyncio.TaskGroup() as group:
                group.create_task(self._cycles(image))
                group.create_task(self._on_request(image))

    # -- the configuration ---------------------------------------------------------------------

    async def _begin(self, image: ProcessImage) -> None:
        while True:
            try:
                layout, self._tried = await self._ask(self._loaded, image)
            except NotRunning as error:
                # The image stays open: opening it makes some drivers reset all modules.
                self._link.report("failed", str(error))
                await self._link.clock.sleep(_WAIT_S)
                continue
            self._adopt(layout)
            return

    async def _reload(self, image: ProcessImage, changed: Signature) -> None:
        self._tried, self._tried_ns = changed, self._link.clock.mono_ns()
        try:
            layout, self._tried = await self._ask(self._loaded, image)
        except NotRunning:
            raise
        except DeviceProblem as problem:
            self._outdated = f"{problem}"
            return
        self._outdated = ""
        if layout != self._use.layout:
            _log.info("%s: %s has changed and is taken", self._device.id, layout.path)
            self._adopt(layout)

    def _adopt(self, layout: Layout) -> None:
        tags, problems = found(self._device, self._settings, layout, self._link)
        if not tags and not problems:
            problems.append(f"{layout.path} names no input or output to take")
        self._use = _InUse(layout, Watch(tags), [*problems, *layout.notes])
        self._image = bytes(layout.length)

    # -- looking ---------------------------------------------------------------------------------

    async def _cycles(self, image: ProcessImage) -> None:
        while True:
            try:
                async with self._link.run("subscription") as run:
                    await self._watch(image, run)
            except NotRunning as error:
                self._link.report("failed", str(error))
                await self._until_running(image)

    async def _watch(self, image: ProcessImage, run: Run) -> None:
        """Look every interval, for ever; a late look leaves out missed slots."""
        interval_ns = self._settings.poll_interval_ms * 1_000_000
        due = self._link.clock.mono_ns()
        while True:
            await self._look(image, run, Watch.look)
            now = self._link.clock.mono_ns()
            due = max(due + interval_ns, now - (now - due) % interval_ns)
            await self._link.clock.sleep(max(0, due - now) / 1e9)

    async def _until_running(self, image: ProcessImage) -> None:
        """Wait until the driver exchanges data again: after a reset it may have another configuration."""
        while True:
            await self._link.clock.sleep(_WAIT_S)
            try:
                await self._reload(image, self._tried)
                points = self._use.layout.points.values()
                elsewhere = self._outdated and await self._ask(image.disagreement, points)
            except NotRunning:
                continue
            if not elsewhere:
                return
            self._link.report("failed", self._outdated)

    async def _on_request(self, image: ProcessImage) -> None:
        while True:
            run_id = await self._link.polls.next()
            try:
                async with self._link.run("poll", run_id) as run:
                    await self._look(image, run, Watch.all)
            except NotRunning:
                continue  # the run tells; the cycle reports

    async def _look(
        self, image: ProcessImage, run: Run, take: Callable[[Watch, bytes, Verdict, Stamp], Batch]
    ) -> None:
        while True:
            use = self._use
            # Before the read: afterwards, the loop may have been busy.
            stamp = Stamp(*self._link.stamp(), self._link.clock.mono_ns())
            seen = await self._ask(self._seen, image, use.layout, stamp.mono_ns)
            if use is self._use and not self._to_be_loaded(seen, stamp.mono_ns):
                break
            await self._reload(image, seen.signature)
            if seen.moved and self._outdated:
                raise NotRunning(f"device {self._device.id}: {self._outdated}")
        self._image = seen.image
        verdict = judge(use.layout, seen.image, self._missing)
        batch = take(use.watch, seen.image, verdict, stamp)
        run.add(len(batch))
        if len(batch):
            await self._link.emit(batch)
        self._report(use, verdict, self._errors.sentence(use.layout, seen.image, stamp.mono_ns))

    def _to_be_loaded(self, seen: _Seen, now_ns: int) -> bool:
        again = bool(self._outdated) and now_ns - self._tried_ns >= _AGAIN_NS
        return seen.signature != self._tried or seen.moved or again

    def _report(self, use: _InUse, verdict: Verdict, errors: str) -> None:
        kept = self._outdated and f"{self._outdated}; until then the one before is used"
        said = [*use.problems, kept, *verdict.sentences, errors]
        detail = "; ".join(sentence for sentence in said if sentence)
        self._link.report("degraded" if detail else "running", detail)

    # -- in the thread -----------------------------------------------------------------------------

    async def _ask(self, work: Callable[..., T], *arguments: object) -> T:
        future = asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)
        asked_us = self._link.clock.wall_us()
        done, _ = await asyncio.wait([future], timeout=_PATIENCE_S)
        if not done:
            silent = f"the piControl driver has not answered for {_PATIENCE_S:.0f} s: it hangs, see dmesg"
            self._link.report("failed", f"device {self._device.id}: {silent}")
            await asyncio.wait([future])
            self._link.gap(asked_us, self._link.clock.wall_us(), silent)
        return await future

    def _opened(self) -> ProcessImage:
        self._open = ProcessImage(self._settings.image, self._device.id)
        return self._open

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

    def _seen(self, image: ProcessImage, layout: Layout, now_ns: int) -> _Seen:
        content = image.read(layout.length)
        if now_ns - self._asked_ns >= _AGAIN_NS:
            self._missing, self._asked_ns = image.missing(), now_ns
        # After the read: what the driver then still has, it had during the read.
        moved = bool(self._outdated and image.disagreement(layout.points.values()))
        return _Seen(content, signature(layout.path), moved)
