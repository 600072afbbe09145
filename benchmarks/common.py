"""What the benchmarks share: a database, a gateway in a process of its own, and a table."""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")

GATEWAY = """
import sys
from django_smska.testing.gateway import StandInGateway
with StandInGateway(latency=float(sys.argv[1]), balance=10**9) as gateway:
    print(gateway.url, flush=True)
    sys.stdin.read()
    print(len(gateway.accepted), len({entry.text for entry in gateway.accepted}), flush=True)
"""


def arguments(**defaults: Any) -> argparse.Namespace:
    """Read the command line; each default is an option of its own type."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    return parser.parse_args()


@contextlib.contextmanager
def database() -> Iterator[None]:
    """Django on a fresh test database of ``DATABASE_URL``, destroyed afterwards."""
    import django
    from django.db import connection

    django.setup()
    name = connection.settings_dict["NAME"]
    connection.creation.create_test_db(verbosity=0, autoclobber=True, serialize=False)
    try:
        yield
    finally:
        connection.creation.destroy_test_db(name, verbosity=0)


class Gateway:
    """The stand-in in another process, so that it takes no time of ours."""

    def __init__(self, latency: float) -> None:
        command = [sys.executable, "-c", GATEWAY, str(latency)]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout
        self.url = self.process.stdout.readline().strip()

    def __enter__(self) -> Gateway:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self.process.poll() is None:
            self.close()

    def close(self) -> tuple[int, int]:
        """End it; return how many messages it accepted, and how many different texts."""
        out, _ = self.process.communicate()
        accepted, texts = out.split()
        return int(accepted), int(texts)


def use(
    gateway: Gateway, *, backend: str = "django_smska.backends.smska.SmsBackend", **options: Any
) -> None:
    """Point the default provider at the gateway."""
    from django.conf import settings

    settings.SMS_PROVIDERS = {
        "default": {
            "BACKEND": backend,
            "OPTIONS": {
                "api_key": "test",
                "api_password": "test",
                "sender_id": "Test",
                "url": gateway.url,
                **options,
            },
        }
    }


def seconds(action: Callable[[], Any]) -> float:
    """How long ``action`` takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def table(title: str, head: list[str], lines: list[list[Any]]) -> None:
    """Print the machine, and the lines under their heads."""
    from django import get_version
    from django.db import connection

    cells = [[str(cell) for cell in line] for line in [head, *lines]]
    widths = [max(len(line[i]) for line in cells) for i in range(len(head))]
    python, cores = platform.python_version(), os.cpu_count()
    print(f"{title}\nPython {python}, Django {get_version()}, {connection.vendor}, {cores} cores\n")
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)))
    print()


def verdict(ratio: float, limit: float, *, at_least: bool = True) -> str:
    """``0.93 (limit 0.90)``, marked where it is missed."""
    met = ratio >= limit if at_least else ratio <= limit
    sign = "≥" if at_least else "≤"
    return f"{ratio:.2f} ({sign} {limit:g}{'' if met else ', MISSED'})"


def child(code: str, *words: object, attached: bool = True) -> subprocess.Popen[str]:
    """Start another Python process that runs ``code``, with pipes to talk through. ``attached``:
    with Django on this database."""
    from django.db import connection

    start = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    start += "import common\n" + ("common.attach()\n" if attached else "")
    return subprocess.Popen(
        [sys.executable, "-c", start + code, *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "BENCHMARK_DATABASE": str(connection.settings_dict["NAME"])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def attach() -> None:
    """Django on the test database of the parent process."""
    import django
    from django.conf import settings

    settings.DATABASES["default"]["NAME"] = os.environ["BENCHMARK_DATABASE"]
    django.setup()


def peak() -> float:
    """The most memory that this process ever held, in MB (Linux).

    Not ``ru_maxrss``: a child begins with its parent's.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("this system does not report the peak of a process")


def empty() -> None:
    """No messages any more, and no traces of them in the table's file."""
    from django.core.management.color import no_style
    from django.db import connection

    from django_smska.models import SmsMessage

    with connection.cursor() as cursor:
        for statement in connection.ops.sql_flush(no_style(), [SmsMessage._meta.db_table]):
            cursor.execute(statement)


def copy_rows(number: int, chosen: str = "1 = 1") -> None:
    """Let the message table grow to ``number`` rows by copies of the ``chosen`` ones, with numbers
    and gateway ids of their own. Fast: the database does it."""
    from django.db import connection

    from django_smska.models import SmsMessage

    quote = connection.ops.quote_name
    name = quote(SmsMessage._meta.db_table)
    columns = [field.column for field in SmsMessage._meta.concrete_fields if field.column != "id"]
    source = {column: quote(column) for column in columns}
    have = SmsMessage.objects.count()
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT COUNT(*) FROM {name} WHERE {chosen}")
        models = cursor.fetchone()[0]
        while have < number:
            more = min(models, number - have)
            source["to"] = _text("'+'", f"79000000000 + id + {have}")
            source["reference"] = f"CAST(id * 100000000 + {have} AS CHAR(22))"
            source["gateway_id"] = (
                f"CASE gateway_id WHEN '' THEN '' ELSE {_text(repr('g'), f'id + {have}')} END"
            )
            cursor.execute(
                f"INSERT INTO {name} ({', '.join(map(quote, columns))})"
                f" SELECT {', '.join(source.values())} FROM {name}"
                f" WHERE {chosen} ORDER BY id LIMIT {more}"
            )
            have, models = have + more, models + more


def _text(start: str, number: str) -> str:
    from django.db import connection

    if connection.vendor == "mysql":
        return f"CONCAT({start}, {number})"
    return f"{start} || ({number})"


def analyze() -> None:
    """Give the planner statistics of the tables, as databases in use get them in time."""
    from django.db import connection

    statement = {
        "postgresql": "VACUUM ANALYZE",
        "mysql": "ANALYZE TABLE django_smska_smsmessage",
    }.get(connection.vendor)
    if statement:
        with connection.cursor() as cursor:
            cursor.execute(statement)
            cursor.fetchall() if connection.vendor == "mysql" else None
