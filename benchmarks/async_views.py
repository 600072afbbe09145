"""What many visitors at once wait for ``asend_sms``, against the gateway's own time.

A site under uvicorn, one process, gets all requests at once. Beside it stand as many threads that
call ``requests.post`` and store nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlencode

import common

NUMBERS = 79040000000
LIMIT_SECONDS = 3


def start_site(url: str, calls: str) -> tuple[subprocess.Popen[str], int]:
    from django.db import connection

    env = {
        **os.environ,
        "SMSKA_DB": str(connection.settings_dict["NAME"]),
        "SMSKA_URL": url,
        "SMSKA_CALLS": calls,
    }
    command = [sys.executable, "-m", "tests.async_process"]
    site = subprocess.Popen(command, cwd=common.ROOT, env=env, stdout=subprocess.PIPE, text=True)
    assert site.stdout
    return site, int(site.stdout.readline())


async def get(port: int, target: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {target} HTTP/1.0\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    return answer.partition(b"\r\n\r\n")[2]


async def visit(port: int, number: int) -> bool:
    query = urlencode({"to": f"+{NUMBERS + number}", "text": f"text {number}"})
    return await get(port, f"/send?{query}") == b'{"status": "sent"}'


def state(port: int) -> dict[str, float]:
    seen: dict[str, float] = json.loads(asyncio.run(get(port, "/state")))
    return seen


async def visit_all(port: int, first: int, number: int) -> int:
    visits = (visit(port, first + n) for n in range(number))
    return sum(await asyncio.gather(*visits))


def bare(url: str, number: int) -> None:
    import requests

    def post(n: int) -> None:
        form = {"APIKey": "test", "APIPassword": "test", "SenderID": "Test"}
        form |= {"MSISDN": str(NUMBERS + n), "Message": f"bare {n}"}
        requests.post(url, data=form, timeout=60)

    with ThreadPoolExecutor(number) as threads:
        list(threads.map(post, range(number)))


def main(number: int, latency: float, rounds: int) -> None:
    lines = []
    for calls in ("asend_sms", "sync_to_async(send_sms)"):
        with common.Gateway(latency) as gateway:
            alone = common.seconds(lambda: bare(gateway.url, number))
            site, port = start_site(gateway.url, calls)
            asyncio.run(visit_all(port, 0, 1))  # warm
            for again in range(rounds):
                cpu, start = state(port)["cpu"], time.perf_counter()
                sent = asyncio.run(visit_all(port, (again + 1) * number, number))
                lasted = time.perf_counter() - start
                ratio = common.verdict(lasted / latency, LIMIT_SECONDS / latency, at_least=False)
                seen = state(port)
                used = [f"{(seen['cpu'] - cpu) / sent * 1000:.1f} ms", seen["peak"]]
                lines.append(
                    [calls, sent, f"{lasted:.2f} s", ratio, f"{lasted / alone:.2f}", *used]
                )
            site.terminate()
            site.communicate()
    head = ["call", "sent", "all in", "of the latency", "of bare requests", "CPU each"]
    head.append("connections")
    common.table(f"{number} requests at once, a gateway of {latency} s", head, lines)


if __name__ == "__main__":
    options = common.arguments(number=200, latency=1.0, rounds=3)
    with common.database():
        main(options.number, options.latency, options.rounds)
