"""UPDATEs of several rows at once, each with values of its own. Written out, because the ORM takes
longer to compose them than any database to run them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from itertools import chain
from typing import Any, NamedTuple

from django.db import connections
from django.db.models.expressions import RawSQL

from .models import SmsMessage, write_db
from .states import Status


class Claim(NamedTuple):
    """A row's key and the token of one claim of it. Permission to send belongs to this pair."""

    pk: Any
    token: str


def by_token(claims: Iterable[Claim]) -> dict[str, list[Any]]:
    """Return the keys of the rows by the token of their claim."""
    keys: dict[str, list[Any]] = defaultdict(list)
    for pk, token in claims:
        keys[token].append(pk)
    return keys


def per_row(name: str, values: dict[Any, Any]) -> Any:
    """Return the new value of the field ``name`` for an UPDATE of several rows.

    :param values: by key
    """
    if len(set(values.values())) == 1:
        return next(iter(values.values()))
    connection = connections[write_db()]
    field: Any = SmsMessage._meta.get_field(name)
    key = connection.ops.quote_name(str(SmsMessage._meta.pk.column))
    parts: list[Any] = []
    for pk, value in values.items():
        parts += [pk, field.get_db_prep_save(value, connection)]
    return RawSQL(f"CASE {key} {'WHEN %s THEN %s ' * len(values)}END", parts, field)


def sent_and_sending(
    sent: Mapping[Claim, dict[str, Any]], going: Collection[Claim], begun: dict[str, Any]
) -> int:
    """Move ``sent`` from *sending* to *sent*, each with the fields given, and ``going`` from
    *claimed* to *sending* with the fields ``begun``, where the claims still hold, and neither their
    leases have ended nor the messages expired; return how many rows moved.

    It is one statement, because free slots wait for it: two calls of ``move`` in one ``atomic()``
    are four. Median of ``sending.record_and_mark`` in ms, on a busy machine of two cores:

    ===================  ==========  =========
    recorded, marked     one UPDATE  two moves
    ===================  ==========  =========
    SQLite, 4 + 4               0.6        1.7
    SQLite, 16 + 16             1.1        2.2
    PostgreSQL, 4 + 4           4.0        5.5
    PostgreSQL, 16 + 16         5.7        8.1
    MariaDB, 4 + 4              3.2        5.1
    MariaDB, 16 + 16            4.1        8.1
    ===================  ==========  =========
    """
    update = _Update()
    for name in next(iter(sent.values()), {}):
        update.set_each(name, {pk: fields[name] for (pk, _), fields in sent.items()})
    for name, value in begun.items() if going else ():
        update.set_where(Status.CLAIMED, name, value)
    update.set_status()
    update.add_rows(sent, Status.SENDING)
    update.add_rows(going, Status.CLAIMED, alive_at=begun["sending_at"])
    return update.run()


class _Update:
    """One UPDATE of the messages' table: first all that it sets, then the rows."""

    def __init__(self) -> None:
        self.connection = connections[write_db()]
        self.pk = self._quoted("pk")
        self.status = self._quoted("status")
        self.sets: list[str] = []
        self.rows: list[str] = []
        self.params: list[Any] = []

    def set_each(self, name: str, values: dict[Any, Any]) -> None:
        """Set a field of the rows that are sent now, to the value of each by its key."""
        ready = {pk: self._ready(name, value) for pk, value in values.items()}
        if len(set(ready.values())) == 1:
            self._set_where(Status.SENDING, name, next(iter(ready.values())))
        else:
            cases = f"{self.pk} {'WHEN %s THEN %s ' * len(ready)}"
            self._set(name, cases, chain.from_iterable(ready.items()))

    def set_where(self, old: Status, name: str, value: Any) -> None:
        """Set a field of the rows that have this status."""
        self._set_where(old, name, self._ready(name, value))

    def set_status(self) -> None:
        """Set the status; after all else, because MariaDB assigns from left to right."""
        self.sets.append(f"{self.status} = CASE {self.status} WHEN %s THEN %s ELSE %s END")
        self.params += [Status.CLAIMED.value, Status.SENDING.value, Status.SENT.value]

    def add_rows(
        self, claims: Iterable[Claim], old: Status, alive_at: datetime | None = None
    ) -> None:
        """Let the rows move that are still under these claims and have this status."""
        for token, keys in by_token(claims).items():
            keys_in = f"{self.pk} IN ({', '.join(['%s'] * len(keys))})"
            row = f"{keys_in} AND {self._quoted('token')} = %s AND {self.status} = %s"
            self.params += [*keys, token, old.value]
            for name in ("lease_until", "expires_at") if alive_at is not None else ():
                row += f" AND {self._quoted(name)} > %s"
                self.params.append(self._ready(name, alive_at))
            self.rows.append(f"({row})")

    def run(self) -> int:
        table = self.connection.ops.quote_name(SmsMessage._meta.db_table)
        with self.connection.cursor() as cursor:
            cursor.execute(
                f"UPDATE {table} SET {', '.join(self.sets)} WHERE {' OR '.join(self.rows)}",
                self.params,
            )
            return int(cursor.rowcount)

    def _set_where(self, old: Status, name: str, ready: Any) -> None:
        self._set(name, f"WHEN {self.status} = %s THEN %s", (old.value, ready))

    def _set(self, name: str, cases: str, values: Iterable[Any]) -> None:
        column = self._quoted(name)
        self.sets.append(f"{column} = CASE {cases} ELSE {column} END")
        self.params.extend(values)

    def _quoted(self, name: str) -> str:
        return self.connection.ops.quote_name(str(_field(name).column))

    def _ready(self, name: str, value: Any) -> Any:
        return _field(name).get_db_prep_save(value, self.connection)


def _field(name: str) -> Any:
    return SmsMessage._meta.pk if name == "pk" else SmsMessage._meta.get_field(name)
