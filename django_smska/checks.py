"""System checks. Each has an id, a hint, a test and a line in the documentation."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from difflib import get_close_matches
from typing import Any
from urllib.parse import urlsplit

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connections, router
from django.utils.timezone import get_default_timezone

from . import conf, fields, webhook_urls
from .checked_backend import CheckedBackend
from .dotted_paths import function_at
from .exceptions import InvalidProvider
from .exchange import LOOPBACK
from .models import SmsMessage
from .providers import DEFAULT_ALIAS, providers

APP = "django_smska"
TAG = "sms"
#: What a backend's check() says, and only ``check --deploy`` shows: the gateway's public address is
#: http://, and a warning at each start is one that is overlooked.
FOR_DEPLOYMENT = {"smska.W002"}
#: MySQL's errors. The first one hides whether there is such a database.
NO_ACCESS, UNKNOWN_DATABASE = 1044, 1049
LEASE_MARGIN_SECONDS = 30  # for looking up the host's name and for writing the outcome


@register(TAG)
def check_providers(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Check that each entry of ``SMS_PROVIDERS`` makes a backend, and its lease is long enough."""
    backends, messages = _configured()
    for backend in backends:
        messages += [one for one in backend.check() if one.id not in FOR_DEPLOYMENT]
        messages += _check_lease(backend)
    return messages


@register(TAG)
def check_settings(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Check that each setting of the app can be used, and that none is misspelt."""
    messages: list[CheckMessage] = []
    for setting in conf.Setting.known.values():
        try:
            setting()
        except ImproperlyConfigured as error:
            hint = f"Correct {setting.name}, or remove it: the default is {setting.default!r}."
            messages.append(Error(str(error), hint=hint, id="smska.E011"))
    return messages + [_unknown(name) for name in conf.unknown_settings()]


def _unknown(name: str) -> Warning:
    known = ["SMS_PROVIDERS", *conf.Setting.known]
    near = get_close_matches(name, known, n=1, cutoff=0.75)
    hint = f"Did you mean {near[0]}?" if near else f"Remove it. Known: {', '.join(known)}."
    return Warning(
        f"{name} is not a django-smska setting and is ignored.", hint=hint, id="smska.W011"
    )


@register(TAG)
def check_test_run(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Mark the test run; Django's runner checks before the first test."""
    mark_test_run()
    return []


def mark_test_run(**kwargs: Any) -> None:
    """Let the processes that a test starts know of the test run."""
    conf.in_test_run()


@register(TAG)
def check_user_table(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Check that messages and users are in one database, since ``created_by`` is a foreign key."""
    user = apps.get_model(settings.AUTH_USER_MODEL)
    ours, users = (_where(router.db_for_write(model)) for model in (SmsMessage, user))
    if ours[1] == users[1]:
        return []
    return [
        Error(
            f"The messages are in the database {ours[0]!r}, the users ({user._meta.label}) in "
            f"{users[0]!r}: 'created_by' cannot point from one to the other.",
            hint="Let the database router keep django_smska in the database of the users.",
            id="smska.E012",
        )
    ]


def _where(alias: str) -> tuple[str, list[Any]]:
    """Return the alias, and the settings by which two aliases are compared."""
    wanted = connections[alias].settings_dict
    return alias, [wanted[name] for name in ("ENGINE", "HOST", "PORT", "NAME")]


@register(TAG, Tags.database)
def check_charsets(app_configs: Any, databases: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Check that each database holds every character and compares idempotency keys exactly."""
    messages: list[CheckMessage] = []
    for connection in _of_messages(databases):
        messages += _check_charsets(connection) + _check_collation(connection)
    return messages


def _aliases(databases: Any) -> list[str]:
    return list(databases or ())


def _of_messages(databases: Any) -> Iterator[Any]:
    """Iterate over the connections to databases that hold messages and can be reached."""
    for alias in _aliases(databases):
        if router.allow_migrate_model(alias, SmsMessage) and _why_unreachable(alias) is None:
            yield connections[alias]


def _why_unreachable(alias: str) -> Exception | None:
    try:
        connections[alias].ensure_connection()
    except (DatabaseError, ImproperlyConfigured) as error:
        return error
    return None


@register(TAG, Tags.database)
def check_databases(app_configs: Any, databases: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Check that each database can be reached at all."""
    asked = [one for one in _aliases(databases) if router.allow_migrate_model(one, SmsMessage)]
    failures = {alias: _why_unreachable(alias) for alias in asked}
    return [_unreachable(alias, error) for alias, error in failures.items() if error is not None]


def _unreachable(alias: str, error: Exception) -> Warning:
    if _is_missing(error):
        return Warning(
            f"The database {alias!r} does not exist on its server, or its user may not open it, so "
            "it was not checked.",
            hint=f"Create it, as with createdb, or correct NAME in DATABASES[{alias!r}].",
            id="smska.W019",
        )
    return Warning(
        f"The database {alias!r} cannot be reached ({type(error).__name__}), so it was not "
        "checked.",
        hint=f"Correct DATABASES[{alias!r}], or start the server, and run the check again.",
        id="smska.W019",
    )


def _is_missing(error: Exception) -> bool:
    """Return whether the server answers, and has no such database."""
    if getattr(error.__cause__, "args", ())[:1] in ((NO_ACCESS,), (UNKNOWN_DATABASE,)):
        return True
    return re.search(r'database "[^"]+" does not exist', str(error)) is not None


@register(TAG, Tags.database)
def check_tables(app_configs: Any, databases: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Check that ``migrate`` has made the tables. Its own run does not warn of them."""
    if sys.argv[1:2] == ["migrate"]:
        return []
    missing = {one.alias: missing_tables(one) for one in _of_messages(databases)}
    return [
        Warning(
            f"The database {alias!r} has no table {tables[0]}: no SMS can be stored.",
            hint="Run 'manage.py migrate'.",
            id="smska.W020",
        )
        for alias, tables in missing.items()
        if tables
    ]


def missing_tables(connection: Any) -> list[str]:
    """Return the names of this app's tables that the database lacks."""
    models = apps.get_app_config(APP).get_models()
    present = connection.introspection.table_names()
    return sorted({model._meta.db_table for model in models}.difference(present))


@register(TAG, Tags.database)
def check_durability(app_configs: Any, databases: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Check that what each database has committed outlasts a crash of its machine."""
    messages: list[CheckMessage] = []
    for connection in _of_messages(databases):
        look = {"sqlite": _check_sqlite, "postgresql": _check_postgresql, "mysql": _check_innodb}
        messages += look[connection.vendor](connection) if connection.vendor in look else []
    return messages


@register(TAG, Tags.database, deploy=True)
def check_sqlite_synchronous(
    app_configs: Any, databases: Any = None, **kwargs: Any
) -> list[CheckMessage]:
    """Check that a site's SQLite waits for the disk at each commit."""
    return [
        _not_durable(connection, "synchronous=NORMAL", _pragma_hint(connection))
        for connection in _of_messages(databases)
        if connection.vendor == "sqlite" and _pragma(connection, "synchronous") == 1
    ]


def _check_sqlite(connection: Any) -> list[CheckMessage]:
    if connection.is_in_memory_db():
        return []
    journal = _pragma(connection, "journal_mode")
    found = [f"journal_mode={journal.upper()}"] if journal in ("off", "memory") else []
    if _pragma(connection, "synchronous") == 0:
        found.append("synchronous=OFF")
    hint = _pragma_hint(connection)
    return [_not_durable(connection, setting, hint) for setting in found]


def _pragma(connection: Any, name: str) -> Any:
    with connection.cursor() as cursor:
        return cursor.execute(f"PRAGMA {name}").fetchone()[0]


def _pragma_hint(connection: Any) -> str:
    return (
        "Set 'init_command' to 'PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL' in OPTIONS of "
        f"DATABASES[{connection.alias!r}]."
    )


def _check_postgresql(connection: Any) -> list[CheckMessage]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT name FROM pg_settings WHERE setting = 'off' AND name IN"
            " ('fsync', 'full_page_writes', 'synchronous_commit') ORDER BY name"
        )
        found = [name for (name,) in cursor.fetchall()]
    hint = (
        "Set {} to on: in postgresql.conf, of the role, of the database, or in OPTIONS of "
        f"DATABASES[{connection.alias!r}], wherever it was set to off."
    )
    return [_not_durable(connection, f"{name}=off", hint.format(name)) for name in found]


def _check_innodb(connection: Any) -> list[CheckMessage]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT @@innodb_flush_log_at_trx_commit")
        value = cursor.fetchone()[0]
    messages = _check_engines(connection)
    if value not in (1, 3):  # MariaDB's 3 is 1 with one more wait for the disk
        hint = "Set innodb_flush_log_at_trx_commit to 1 in the configuration of the server."
        setting = f"innodb_flush_log_at_trx_commit={value}"
        messages.append(_not_durable(connection, setting, hint))
    return messages


def _not_durable(connection: Any, setting: str, hint: str) -> Warning:
    return Warning(
        f"The database {connection.alias!r} runs with {setting}: when its machine fails, it may "
        "lose what it has committed. A message that was sent may then be sent again, and one that "
        "was stored may be lost.",
        hint=hint,
        id="smska.W017",
    )


def _check_engines(connection: Any) -> list[CheckMessage]:
    """Check that transactions hold for each table, and for those that will be made."""
    tables = [model._meta.db_table for model in apps.get_app_config(APP).get_models()]
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT table_name, engine FROM information_schema.tables WHERE table_schema ="
            " DATABASE() AND table_name IN %s ORDER BY table_name",
            [tables],
        )
        engines = dict(cursor.fetchall())
        cursor.execute("SELECT @@default_storage_engine")
        default = cursor.fetchone()[0]
    messages: list[CheckMessage] = [
        _no_transactions(
            connection, f"keeps {table} in {engine}", f"Run: ALTER TABLE {table} ENGINE=InnoDB;"
        )
        for table, engine in engines.items()
        if engine != "InnoDB"
    ]
    if not engines and default != "InnoDB":
        hint = "Before the first migrate, set 'init_command' to 'SET default_storage_engine=InnoDB'"
        hint += f" in OPTIONS of DATABASES[{connection.alias!r}]."
        messages.append(_no_transactions(connection, f"makes tables in {default}", hint))
    return messages


def _no_transactions(connection: Any, words: str, hint: str) -> Warning:
    return Warning(
        f"The database {connection.alias!r} {words}, which has no transactions: messages may be "
        "sent twice or lost.",
        hint=hint,
        id="smska.W018",
    )


def _check_charsets(connection: Any) -> list[CheckMessage]:
    found = fields.Charsets(connection)
    common = found.common - fields.WHOLE
    narrow = {table for (table, _), name in found.columns.items() if name not in fields.WHOLE}
    messages: list[CheckMessage] = []
    if common and connection.vendor == "postgresql":
        hint = "Create a new database with ENCODING 'UTF8' and load a dump of this one into it."
        messages.append(_narrow(connection, f"is {', '.join(common)}", hint))
    elif common:
        hint = f"Set 'charset' to 'utf8mb4' in OPTIONS of DATABASES[{connection.alias!r}]."
        messages.append(
            _narrow(connection, f"uses the connection charset {', '.join(common)}", hint)
        )
    if connection.vendor == "mysql" and not found.columns:
        messages += _check_default_charset(connection)
    for table in sorted(narrow):
        sets = {name for (of, _), name in found.columns.items() if of == table} - fields.WHOLE
        words = f"holds text of {table} as {', '.join(sorted(sets))}"
        messages.append(_narrow(connection, words, f"Run: {_conversion(connection, table)}"))
    return messages


def _check_default_charset(connection: Any) -> list[CheckMessage]:
    """Check the character set that the tables will be made with."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT @@character_set_database")
        charset = cursor.fetchone()[0]
    if charset in fields.WHOLE:
        return []
    name = connection.settings_dict["NAME"]
    hint = f"Before the first migrate, run: ALTER DATABASE {name} CHARACTER SET utf8mb4;"
    return [_narrow(connection, f"makes tables in {charset}", hint)]


def _narrow(connection: Any, words: str, hint: str) -> Warning:
    return Warning(
        f"The database {connection.alias!r} {words}: SMS with other characters (emoji, or letters "
        "of other alphabets) are refused.",
        hint=hint,
        id="smska.W013",
    )


def _conversion(connection: Any, table: str) -> str:
    """Return the SQL after which a table holds every character. It gives each column the same
    collation, so the key gets its own again."""
    convert = f"ALTER TABLE {table} CONVERT TO CHARACTER SET utf8mb4;"
    return f"{convert} {_exact_key(connection)}" if table == SmsMessage._meta.db_table else convert


def _exact_key(connection: Any) -> str:
    field: Any = SmsMessage._meta.get_field("idempotency_key")
    collation = fields.exact_collation(connection)
    return (
        f"ALTER TABLE {SmsMessage._meta.db_table} MODIFY {field.column} "
        f"{field.db_type(connection)} COLLATE {collation} NULL;"
    )


def _check_collation(connection: Any) -> list[CheckMessage]:
    if connection.vendor != "mysql":
        return []
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT collation_name FROM information_schema.columns WHERE table_schema = DATABASE()"
            " AND table_name = %s AND column_name = 'idempotency_key'",
            [SmsMessage._meta.db_table],
        )
        found = cursor.fetchone()
    if found is None or found[0] == fields.exact_collation(connection):
        return []
    return [
        Warning(
            f"The database {connection.alias!r} treats idempotency keys that differ only in case, "
            f"accents or blanks as equal ({found[0]}): the second message is refused.",
            hint=f"Run: {_exact_key(connection)}",
            id="smska.W014",
        )
    ]


@register(TAG)
def check_default_alias(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Check that there is a provider for messages that name none."""
    try:
        if DEFAULT_ALIAS in providers:
            return []
    except InvalidProvider:
        return []  # E001 says it
    return [
        Warning(
            "SMS_PROVIDERS has no 'default' entry: sending without 'using' will fail.",
            hint="Add a 'default' entry to SMS_PROVIDERS.",
            id="smska.W001",
        )
    ]


@register(TAG)
def check_tasks(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Check that ``SMSKA_TASKS`` names an engine that has workers."""
    problem = _problem_of_tasks()
    if problem is None:
        return []
    return [
        Error(
            f"SMSKA_TASKS cannot be used: {problem}",
            hint="Name an entry of TASKS whose backend has workers (Django 5.2 needs the "
            "django-tasks package), or remove SMSKA_TASKS: sms_worker sends without it.",
            id="smska.E008",
        )
    ]


def _problem_of_tasks() -> str | None:
    try:
        alias = conf.tasks()
    except ImproperlyConfigured:
        return None  # E011 says it
    try:
        if alias is not None:
            from .tasks import way_to

            way_to(alias)
    except (ImportError, ImproperlyConfigured) as error:
        return str(error)
    except Exception as error:  # another party's backend may raise anything, with anything in it
        return f"its backend raised {type(error).__name__}."
    return None


@register(TAG)
def check_enqueue(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Check that ``SMSKA_ENQUEUE`` names a function that takes two arguments, and one engine is
    set."""
    try:
        path, alias = conf.enqueue(), conf.tasks()
    except ImproperlyConfigured:
        return []  # E011 says it
    if path is None:
        return []
    if alias is not None:
        return [
            Error(
                "SMSKA_TASKS and SMSKA_ENQUEUE are both set.",
                hint="Remove one of them: SMSKA_TASKS is for Django's Tasks, SMSKA_ENQUEUE for "
                "any other engine.",
                id="smska.E013",
            )
        ]
    try:
        function_at(path, 2)
    except ImproperlyConfigured as error:
        return [
            Error(
                f"SMSKA_ENQUEUE cannot be used: {error}",
                hint="Name a function of the project's that takes a list of primary keys and a "
                "time or None, and gives both to the task engine; or remove SMSKA_ENQUEUE: "
                "sms_worker sends without it.",
                id="smska.E013",
            )
        ]
    return []


@register(TAG)
def check_quiet_hours(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Check that the function that ``SMSKA_QUIET_HOURS`` names is there."""
    try:
        hours = conf.quiet_hours()
    except ImproperlyConfigured:
        return []  # E011 says it
    if hours is None or not hours.zone_of:
        return []
    try:
        function_at(hours.zone_of, 1)
    except ImproperlyConfigured as error:
        return [
            Error(
                f"SMSKA_QUIET_HOURS cannot be used: 'time_zone': {error}",
                hint="Name a function of the project's that takes a number and returns the name of "
                "its time zone, or None; or a time zone, such as Europe/Moscow.",
                id="smska.E014",
            )
        ]
    return []


@register(TAG)
def check_recipients(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Check that ``SMSKA_RECIPIENTS`` names functions that take one argument."""
    try:
        paths = list(dict.fromkeys(path for _label, path in conf.recipients()))
    except ImproperlyConfigured:
        return []  # E011 says it
    return [found for path in paths if (found := _check_clients(path)) is not None]


def _check_clients(path: str) -> CheckMessage | None:

    try:
        function_at(path, 1)
    except ImproperlyConfigured as error:
        return Error(
            f"SMSKA_RECIPIENTS: {path!r} cannot be used: {error}",
            hint="Name a function of the project's that takes the user who asks, and returns a "
            "QuerySet of dicts with the key 'number'.",
            id="smska.E015",
        )
    return None


@register(TAG)
def check_time_zone(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Check that stored times mean one moment each, in the order of their moments."""
    if conf.uses_time_zones() or not _clock_changes():
        return []
    return [
        Warning(
            f"USE_TZ is off, and the clock of {settings.TIME_ZONE} is changed: in that night, "
            "requests in flight can become unknown, and queued messages can wait an hour.",
            hint="Set USE_TZ to True, or TIME_ZONE to a zone whose clock is never changed (UTC).",
            id="smska.W022",
        )
    ]


def _clock_changes() -> bool:
    """Return whether the site's clock is set forward or back in the next two years."""
    now, zone = datetime.now(timezone.utc), get_default_timezone()
    moments = (now + timedelta(weeks=week) for week in range(105))
    return len({moment.astimezone(zone).utcoffset() for moment in moments}) > 1


@register(TAG, deploy=True)
def check_no_test_run(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Warn a site that has inherited the variable of a test run, and would send nothing."""
    if not conf.sends_nothing():
        return []
    return [
        Warning(
            f"This counts as a test run ({conf.TEST_RUN}={os.environ.get(conf.TEST_RUN)}): every "
            "SMS is kept in memory, none is sent.",
            hint=f"Remove {conf.TEST_RUN} from the environment of the site and its workers.",
            id="smska.W016",
        )
    ]


@register(TAG, deploy=True)
def check_no_development_backend(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Check that a site's default provider really sends."""
    backends, _ = _configured()
    return [
        Error(
            f"SMS_PROVIDERS['default'] uses a development backend "
            f"({backend.module}): no SMS would be sent.",
            hint="Use django_smska.backends.smska.SmsBackend, or another provider's.",
            id="smska.E007",
        )
        for backend in backends
        if backend.alias == DEFAULT_ALIAS and not backend.uses_network
    ]


@register(TAG)
def check_webhooks(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Check that providers can push their reports, where they are not to be had otherwise, and
    where ``SMSKA_PUBLIC_URL`` says that they are wanted."""
    try:
        hint, wanted = webhook_urls.missing(), bool(conf.public_url())
    except ImproperlyConfigured:
        return []  # E011 says it
    if not hint:
        return []
    if wanted:
        words = "SMSKA_PUBLIC_URL is set, but the site has no addresses for what providers push."
        return [Warning(words, hint=hint, id="smska.W024")]
    backends, _ = _configured()
    return [
        Warning(
            f"SMS_PROVIDERS[{backend.alias!r}] reports deliveries by calling the site, which has "
            "given it no address: its messages end as unconfirmed.",
            hint=f"{hint} docs/howto/webhooks.rst says more.",
            id="smska.W023",
        )
        for backend in backends
        if backend.takes_reports and not backend.gives_reports
    ]


@register(TAG, deploy=True)
def check_public_url(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Check that what providers push, and the secret of its address, cannot be read on the way."""
    try:
        public = conf.public_url()
    except ImproperlyConfigured:
        return []  # E011 says it
    if not public.startswith("http://") or urlsplit(public).hostname in LOOPBACK:
        return []
    return [
        Warning(
            "SMSKA_PUBLIC_URL is http://: every host on the way can read the numbers, and the "
            "secret in the addresses that providers call.",
            hint="Give the site a certificate, and set SMSKA_PUBLIC_URL to its https:// address.",
            id="smska.W025",
        )
    ]


@register(TAG, deploy=True)
def check_addresses(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Check that each provider is reached over TLS, or on this machine."""
    backends, _ = _configured()
    return [one for backend in backends for one in backend.check() if one.id in FOR_DEPLOYMENT]


def _configured() -> tuple[list[CheckedBackend], list[CheckMessage]]:
    backends: list[CheckedBackend] = []
    errors: list[CheckMessage] = []
    try:
        aliases = list(providers)
    except InvalidProvider as error:
        return [], [_as_check(error)]
    for alias in aliases:
        try:
            backends.append(CheckedBackend(alias, providers.configured(alias)))
        except InvalidProvider as error:
            errors.append(_as_check(error))
    return backends, errors


def _as_check(error: InvalidProvider) -> Error:
    return Error(str(error), hint=error.hint, id=f"smska.{error.check}")


def _check_lease(backend: CheckedBackend) -> list[CheckMessage]:
    if not backend.uses_network:
        return []
    try:
        lease = conf.lease().total_seconds()
    except ImproperlyConfigured:
        return []  # E011 says it
    needed = backend.deadline + LEASE_MARGIN_SECONDS
    if lease >= needed:
        return []
    return [
        Error(
            f"SMSKA_LEASE ({lease:g} s) is shorter than one send through "
            f"SMS_PROVIDERS[{backend.alias!r}] may take: a slow worker would be "
            "counted as crashed.",
            hint=f"Set SMSKA_LEASE to at least {needed:g} (deadline + {LEASE_MARGIN_SECONDS}).",
            id="smska.E006",
        )
    ]
