"""Asks for a URL each time a line comes in; prints how long it took until all was there, and its bytes."""

import asyncio
import os
import sys
import time

import aiohttp


async def main(url: str) -> None:
    async with aiohttp.ClientSession(headers={"Authorization": os.environ["TOKEN"]}) as client:
        while await asyncio.to_thread(sys.stdin.readline):
            began = time.perf_counter()
            async with client.get(url) as answer:
                answer.raise_for_status()
                body = await answer.read()
            sys.stdout.write(f"{time.perf_counter() - began} {len(body)}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
