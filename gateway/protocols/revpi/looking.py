"""The side of the thread: it looks at the image every interval, and comes back when there is news.

A hop from the event loop to a thread and back costs more than reading and decoding the whole image.
"""

import threading
from collections.abc import Callable
from typing import NamedTuple

from gateway.clock import Clock
from gateway.model import Batch
from gateway.protocols.revpi.bridge import Errors, Verdict, judge
from gateway.protocols.revpi.image import ProcessImage
from gateway.protocols.revpi.layout import Layout, Signature, signature
from gateway.protocols.revpi.watch import Stamp, Watch

_MODULES_NS = 1_000_000_000
"""So often the driver is asked for its modules."""
_NEWS_NS = 1_000_000_000
"""After this time it comes back without news too: a sign of life."""


class Look(NamedTuple):
    """What was seen and is to be kept and said."""

    image: bytes
    batch: Batch
    sentences: tuple[str, ...]
    signature: Signature
    """Of PiCtory's file."""
    moved: bool
    """The driver has another configuration by now: the image was not looked at."""


class Looker:
    """Looks at one layout. Its methods are for the thread, `wake` is for all."""

    def __init__(
        self,
        image: ProcessImage,
        layout: Layout,
        read_as: Signature,
        watch: Watch,
        *,
        interval_ns: int,
        clock: Clock,
    ) -> None:
        self.wake = threading.Event()
        """Set: come back at once."""
        self.read_as = read_as
        """Of the file that has this layout."""
        self._image = image
        self._layout = layout
        self._watch = watch
        self._interval_ns = interval_ns
        self._clock = clock
        self._due_ns = clock.mono_ns()
        self._missing: frozenset[int] | None = None
        self._asked_ns = self._due_ns - _MODULES_NS
        self._errors = Errors()
        self._last = b""
        self._said: tuple[str, ...] | None = None
        self._signature: Signature | None = None

    def until_news(self, stamp: Stamp) -> Look:
        """Look every interval until there is something to keep or to say. `stamp` is that of the call."""
        while True:
            self._wait()
            now = stamp.later(self._clock.mono_ns())
            enough = now.mono_ns - stamp.mono_ns >= _NEWS_NS or self.wake.is_set()
            image = self._image.read(self._layout.length)
            if image == self._last and not self._watch.waiting and not enough:
                continue
            look = self._look(image, now, Watch.look)
            news = len(look.batch) or look.moved or look.sentences != self._said
            if enough or news or look.signature != self._signature:
                self._said, self._signature = look.sentences, look.signature
                return look

    def every_tag(self, stamp: Stamp) -> Look:
        """Look once; every tag is kept, changed or not."""
        self.wake.clear()
        image = self._image.read(self._layout.length)
        return self._look(image, stamp.later(self._clock.mono_ns()), Watch.all)

    def _wait(self) -> None:
        """Wait for the next look; a late one leaves out missed slots."""
        now, interval = self._clock.mono_ns(), self._interval_ns
        if self._due_ns > now:
            self.wake.wait((self._due_ns - now) / 1e9)
        self._due_ns = max(self._due_ns + interval, now - (now - self._due_ns) % interval)

    def _look(
        self, image: bytes, stamp: Stamp, take: Callable[[Watch, bytes, Verdict, Stamp], Batch]
    ) -> Look:
        self._last = image
        if stamp.mono_ns - self._asked_ns >= _MODULES_NS:
            self._missing, self._asked_ns = self._image.missing(), stamp.mono_ns
        file = signature(self._layout.path)
        # PiCtory saved: was the driver reset too? Asked after the read: what it has then, it had before.
        if file != self.read_as and self._image.disagreement(self._layout.points.values()):
            return Look(image, Batch(), (), file, moved=True)
        verdict = judge(self._layout, image, self._missing)
        errors = self._errors.sentence(self._layout, image, stamp.mono_ns)
        sentences = (*verdict.sentences, errors) if errors else verdict.sentences
        return Look(image, take(self._watch, image, verdict, stamp), sentences, file, moved=False)
