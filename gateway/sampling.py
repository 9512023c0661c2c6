"""For protocols that sample: what was not looked at while the memory budget was full is a gap."""

from gateway.model import Batch, Link

_MARGIN_MS = 100


async def emit_sampled(link: Link, batch: Batch, interval_ms: int) -> None:
    """Emit samples of a device that is not looked at meanwhile, though it should be each interval.

    Where that takes longer than the interval, and as long again or 100 ms, changes may have come and gone:
    a gap is recorded. Where a server queues, nothing is missed, and `link.emit` is enough.
    """
    began_ns = link.clock.mono_ns()
    await link.emit(batch)
    waited_us = (link.clock.mono_ns() - began_ns) // 1000
    if waited_us > (interval_ms + min(interval_ms, _MARGIN_MS)) * 1000:
        now_us = link.clock.wall_us()
        reason = f"the memory budget was full: the device was not looked at for {waited_us / 1e6:.1f} s"
        link.gap(now_us - waited_us, now_us, reason)
