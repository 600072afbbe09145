"""UPDATEs of several rows at once, each with values of its own. Written out, because the ORM takes
longer to compose them than any database to run them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import chain
from typing import Any, NamedTuple

from django.db import connections
from django.db.models import Case, F, Func, Value, When
from django.db.models.expressions import RawSQL

from .fields import TextField
from .models import EVERY_ALIAS, ProviderState, SmsMessage, SmsOptOut, dots, write_db
from .states import Status


class Claim(NamedTuple):
    """A row's key and the token of one claim of it. Permission to send belongs to this pair."""

    pk: Any
    token: str


class Bar(NamedTuple):
    """The entries of the do-not-send list that keep a message back: those of its number, for one of
    these senders.

    :param hashes: under which the number may be stored
    """

    hashes: tuple[str, ...]
    senders: tuple[str, ...]


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


def wiped() -> dict[str, Any]:
    """Return the changes that an UPDATE makes to a sensitive text that is not needed any more.

    They come before all others, because MariaDB assigns from left to right.
    """
    text = TextField()
    rest: Any = Func("body", "code", Value(dots()), function="REPLACE", output_field=text)
    no_code = When(sensitive=True, code="", then=Value("", text))
    code = When(sensitive=True, then=rest)
    return {"body": Case(no_code, code, default=F("body"), output_field=text), "code": ""}


def sent_and_sending(
    sent: Mapping[Claim, dict[str, Any]],
    going: Mapping[Claim, Bar | None],
    begun: dict[str, Any],
    *,
    wipes: bool,
) -> int:
    """Move ``sent`` from *sending* to *sent*, each with the fields given, and ``going`` from
    *claimed* to *sending* with the fields ``begun``, where the claims still hold, neither their
    leases have ended nor the messages expired, their provider is not stopped, and no entry of the
    do-not-send list keeps them back; return how many rows moved.

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

    :param wipes: one of ``sent`` is sensitive
    """
    update = _Update()
    if wipes:
        update.wipe()
    for name in dict.fromkeys(chain.from_iterable(sent.values())):
        values = {pk: fields[name] for (pk, _), fields in sent.items() if name in fields}
        update.set_each(name, values, of_all=len(values) == len(sent))
    for name, value in begun.items() if going else ():
        update.set_where(Status.CLAIMED, name, value)
    update.set_status()
    update.add_rows(sent, Status.SENDING)
    update.add_going(going, begun["sending_at"])
    return update.run()


class _Update:
    """One UPDATE of the messages' table: first all that it sets, then the rows."""

    def __init__(self) -> None:
        self.connection = connections[write_db()]
        self.table = self.connection.ops.quote_name(SmsMessage._meta.db_table)
        self.pk = f"{self.table}.{self._quoted('pk')}"
        self.status = self._quoted("status")
        self.sets: list[str] = []
        self.rows: list[str] = []
        self.params: list[Any] = []

    def wipe(self) -> None:
        """Do what :func:`wiped` does to the rows that are sent now; before all else."""
        body, code = self._quoted("body"), self._quoted("code")
        rest = f"CASE {code} WHEN '' THEN '' ELSE REPLACE({body}, {code}, %s) END"
        sensitive = f"{self.status} = %s AND {self._quoted('sensitive')}"
        self._set("body", f"WHEN {sensitive} THEN {rest}", (Status.SENDING.value, dots()))
        self._set_where(Status.SENDING, "code", "")

    def set_each(self, name: str, values: dict[Any, Any], *, of_all: bool) -> None:
        """Set a field of the rows that are sent now, to the value of each by its key.

        :param of_all: each of these rows has a value; otherwise the others keep theirs
        """
        ready = {pk: self._ready(name, value) for pk, value in values.items()}
        if of_all and len(set(ready.values())) == 1:
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

    def add_rows(self, claims: Iterable[Claim], old: Status) -> None:
        """Let the rows move that are still under these claims and have this status."""
        for token, keys in by_token(claims).items():
            self.rows.append(f"({self._row(token, keys, old)})")

    def add_going(self, claims: Mapping[Claim, Bar | None], at: datetime) -> None:
        """Let those begin that are still claimed and alive, and that no entry keeps back."""
        groups: dict[Any, list[Claim]] = defaultdict(list)
        for claim, bar in claims.items():
            groups[claim.token, bar and bar.senders].append(claim)
        for (token, senders), group in groups.items():
            row = self._row(token, [claim.pk for claim in group], Status.CLAIMED)
            for name in ("lease_until", "expires_at"):
                row += f" AND {self._quoted(name)} > %s"
                self.params.append(self._ready(name, at))
            row += f" AND {self._is_not_stopped()}"
            self.params.append(EVERY_ALIAS)
            if senders:
                row += self._unlisted({claim.pk: claims[claim] for claim in group}, senders)
            self.rows.append(f"({row})")

    def _is_not_stopped(self) -> str:
        """Return the condition that neither the row's provider is stopped, nor every one."""
        quoted, state = self.connection.ops.quote_name, ProviderState._meta
        columns = (state.get_field(name) for name in ("alias", "stopped_at"))
        alias, stopped_at = (quoted(str(column.column)) for column in columns)  # type: ignore[union-attr]
        using = f"{quoted(SmsMessage._meta.db_table)}.{self._quoted('using')}"
        return (
            f"NOT EXISTS (SELECT 1 FROM {quoted(state.db_table)} "
            f"WHERE {alias} IN ({using}, %s) AND {stopped_at} IS NOT NULL)"
        )

    def _row(self, token: str, keys: list[Any], old: Status) -> str:
        self.params += [*keys, token, old.value]
        keys_in = f"{self.pk} IN ({', '.join(['%s'] * len(keys))})"
        return f"{keys_in} AND {self._quoted('token')} = %s AND {self.status} = %s"

    def _unlisted(self, bars: Mapping[Any, Any], senders: tuple[str, ...]) -> str:
        """Return the condition that the do-not-send list has neither the number of the row nor one
        of its hashes. Two subqueries, since an OR in one would use no index."""
        words = self._no_entry("number", f"{self.table}.{self._quoted('to')}", senders)
        for hashes in zip(*(bar.hashes for bar in bars.values()), strict=True):
            own = f"CASE {self.pk} {'WHEN %s THEN %s ' * len(bars)}END"
            self.params += chain.from_iterable(zip(bars, hashes, strict=True))
            words += self._no_entry("number_hash", own, senders)
        return words

    def _no_entry(self, name: str, value: str, senders: tuple[str, ...]) -> str:
        quote = self.connection.ops.quote_name
        entries = quote(SmsOptOut._meta.db_table)
        column, sender = (
            f"{entries}.{quote(str(SmsOptOut._meta.get_field(one).column))}"  # type: ignore[union-attr]
            for one in (name, "sender")
        )
        self.params += senders
        return (
            f" AND NOT EXISTS (SELECT 1 FROM {entries} WHERE {column} = {value}"
            f" AND {sender} IN ({', '.join(['%s'] * len(senders))}))"
        )

    def run(self) -> int:
        with self.connection.cursor() as cursor:
            cursor.execute(
                f"UPDATE {self.table} SET {', '.join(self.sets)} WHERE {' OR '.join(self.rows)}",
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
