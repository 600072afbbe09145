"""The layers of the package: each module imports only from the layers below it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import django_smska

PACKAGE = Path(django_smska.__file__).parent

#: From the bottom up. A folder's name stands for all of its modules that are not named themselves.
LAYERS = (
    {
        "__init__",
        "exceptions",
        "numbers",
        "placeholders",
        "dotted_paths",
        "log_fields",
        "monotonic",
        "receipts",
        "references",
        "replies",
        "segments",
        "senders",
        "shapes",
        "states",
        "tracing",
    },  # pure
    {"limit_rules"},
    {"query_errors", "redact", "unreachable"},
    {"exchange", "conf"},
    {"protocol", "json_answers", "wire", "times", "keyed_hash", "http_templates"},
    {"webhook_urls", "http_answers", "wire_in_tests", "quiet_hours"},
    {"backends.base", "fields"},
    {"backends.over_http"},
    {"backends"},
    {"providers"},
    {"models", "checked_backend", "signals"},
    {"batch_update", "conflicts", "text_templates", "own_connection", "database_slots"},
    {"async_calls"},
    {"clock", "notify"},
    {
        "allowed_senders",
        "kill_switch",
        "rate_limit",
        "limits",
        "opt_out",
        "daily_counts",
        "mailing_counts",
        "pricing",
        "retention",
    },
    {"circuit_breaker"},
    {"held_queue", "handover"},
    {"provider_status", "night"},
    {"sending"},
    {"delivery", "inbound", "mailings", "personal_data"},
    {"pushed_reports"},
    {"dispatcher"},
    {"worker"},
    {"jobs"},
    {"tasks"},
    {"sms", "decorators", "forms"},
    {"admin", "management", "checks", "testing", "webhooks", "adapters"},
    {"health", "health_check", "metrics", "contacts"},
    {"urls"},
    {"apps"},
)
#: An import that points up, inside a function: what is imported here is not there at start-up.
EXCEPTIONS = {
    # The row's own verbs lead to the engine, as Django's ``Model.save()`` leads to the database.
    ("models", "sending"),
    ("models", "delivery"),
    ("models", "mailings"),
    ("models", "mailing_counts"),
    # A task sends, and gives the engine again what is for later.
    ("handover", "tasks"),
    ("models", "async_calls"),
    # For types only: the author of a backend sees what a message has.
    ("backends.base", "models"),
    ("backends.locmem", "models"),
    # A failover is a backend made of the project's other backends.
    ("backends.failover", "providers"),
    ("backends.failover", "checked_backend"),
}


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {
    name_of(path): path
    for path in PACKAGE.rglob("*.py")
    if "migrations" not in path.relative_to(PACKAGE).parts
}


def layer_of(name: str) -> int:
    while name:
        for number, names in enumerate(LAYERS):
            if name in names:
                return number
        name = name.rpartition(".")[0]
    raise LookupError("it stands in no layer")


def imports(name: str) -> Iterator[str]:
    """Every module of ours that this module imports, also inside functions and for types."""
    path = MODULES[name]
    package = ["django_smska", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            full = [*base, *(node.module or "").split(".")]
            start = ".".join(part for part in full if part)
            found = [f"{start}.{alias.name}" for alias in node.names]
        else:
            continue
        for one in found:
            if one.split(".")[0] == "django_smska":
                yield known(one.removeprefix("django_smska").removeprefix("."))


def known(name: str) -> str:
    """The module that has this name, or in which it stands."""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name or "__init__"


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_module_imports_from_the_layers_below_it(name):
    above = {
        other
        for other in imports(name)
        if layer_of(other) > layer_of(name) and (name, other) not in EXCEPTIONS
    }
    assert not above


@pytest.mark.slow
def test_no_two_modules_import_each_other():
    """Those of one layer may import each other, but not in a circle."""
    graph = {
        name: {other for other in imports(name) if (name, other) not in EXCEPTIONS} - {name}
        for name in MODULES
    }
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " ─► ".join((*way, name))
        if name not in done:
            for other in graph[name]:
                visit(other, (*way, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.slow
def test_the_exceptions_are_needed():
    assert {(name, other) for name in MODULES for other in imports(name)} >= EXCEPTIONS


@pytest.mark.slow
def test_no_module_is_imported_by_its_name_as_a_string():
    """Such an import is seen by no reader of the structure, nor by the tests above."""
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func):
                assert "django_smska" not in ast.unparse(node) and "__package__" not in (
                    ast.unparse(node)
                ), f"{name}: {ast.unparse(node)}"


def test_the_layers_name_no_module_that_is_gone():
    assert {name for names in LAYERS for name in names} <= set(MODULES)
