"""Directives that write the reference from the package itself.

``smska-settings``, ``smska-fields``, ``smska-faults``: tables. ``smska-command:: NAME``: a command
from its parser. ``smska-check:: ID``: the texts and hints of a system check, below the words that
the page has about it.
"""

from __future__ import annotations

import ast
import re
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from django.core.management import load_command_class
from django.core.management.base import DjangoHelpFormatter
from docutils import nodes
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective

import django_smska
from django_smska import conf
from django_smska.models import SmsMessage
from django_smska.testing.faults import FAULTS


class Generated(SphinxDirective, ABC):
    """A directive whose text is made by :meth:`text`."""

    @abstractmethod
    def text(self) -> str:
        """Return reStructuredText."""

    def run(self) -> list[nodes.Node]:
        return list(self.parse_text_to_nodes(self.text()))


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]], widths: str) -> str:
    lines = [".. list-table::", "   :header-rows: 1", f"   :widths: {widths}", ""]
    for row in [head, *rows]:
        lines += [f"   {'*' if not number else ' '} - {cell}" for number, cell in enumerate(row)]
    return "\n".join(lines) + "\n"


# --- settings, fields, faults ---------------------------------------------------------------------


class Settings(Generated):
    def text(self) -> str:
        comments = ModuleAnalyzer.for_module("django_smska.conf").find_attr_docs()
        rows = []
        for name, setting in vars(conf).items():
            if isinstance(setting, conf.Setting):
                comment = " ".join(comments["", name]).strip()
                rows.append((f"``{setting.name}``", f"``{_default(setting)}``", comment))
        return table(("setting", "default", "meaning"), rows, "30 15 55")


def _default(setting: conf.Setting[Any]) -> str:
    if isinstance(setting.default, dict):
        return "a dict"
    if isinstance(setting.default, tuple):
        return ", ".join(setting.default)
    return str(setting.default) or "empty"


class Fields(Generated):
    """The fields of the model; what each means stands in the page, a line for each."""

    has_content = True

    def text(self) -> str:
        meanings = dict(line.split(": ", 1) for line in self.content if line)
        fields = {field.name: field for field in SmsMessage._meta.concrete_fields}
        if wrong := fields.keys() ^ meanings.keys():
            raise self.error(f"Fields without a meaning, or the other way round: {sorted(wrong)}")
        rows = [
            (f"``{name}``", fields[name].get_internal_type(), meaning)
            for name, meaning in meanings.items()
        ]
        return table(("field", "type", "meaning"), rows, "20 25 55")


class Faults(Generated):
    def text(self) -> str:
        groups: dict[str, list[str]] = defaultdict(list)
        for name, kind in FAULTS.items():
            groups[kind.group].append(f"``{name}``")
        rows = [(group, ", ".join(names)) for group, names in groups.items()]
        return table(("group", "faults"), rows, "20 80")


# --- commands -------------------------------------------------------------------------------------


class Command(Generated):
    required_arguments = 1

    def text(self) -> str:
        name = self.arguments[0]
        command = load_command_class("django_smska", name)
        parser = command.create_parser("manage.py", name)
        lines = [command.help.replace("--", "\\--"), ""]
        for action in parser._actions:
            if not DjangoHelpFormatter.show_last & set(action.option_strings):
                lines += option(parser, action)
        return "\n".join(lines)


def option(parser: Any, action: Any) -> list[str]:
    if action.dest == "help":
        return []
    names = ", ".join(action.option_strings)
    value = action.metavar or action.dest.upper()
    shown = value if not names else names if action.nargs == 0 else f"{names} {value}"
    words = action.help % {"default": action.default, "prog": parser.prog}
    return [f"``{shown}``", f"    {words}", ""]


# --- system checks --------------------------------------------------------------------------------

ID = re.compile(r"(?:smska\.)?([EW]\d{3})")
PLACEHOLDER = "…"
#: Who makes a check's message; the last two without an id: E005.
MAKERS = ("Error", "Warning", "InvalidProvider", "_refuse")


class Check(Generated):
    required_arguments = 1
    has_content = True

    def text(self) -> str:
        name = self.arguments[0]
        said = messages().get(name.removeprefix("smska."))
        if said is None:
            raise self.error(f"The package has no check {name}.")
        lines = [f"``{name}``", *(f"    {line}" for line in self.content), ""]
        for words, hint in said:
            parts = [literal(words), f"*Hint:* {literal(hint)}" if hint else ""]
            if any(parts):
                lines += [f"    * {' '.join(filter(None, parts))}"]
        return "\n".join(lines) + "\n"


def literal(words: str) -> str:
    """The words of a program, which may hold what means something in reStructuredText."""
    return re.sub(r"([*`_|\\])", r"\\\1", words)


def messages() -> dict[str, list[tuple[str, str]]]:
    """The texts and hints by id, read from the source: they are made where something is wrong."""
    found: dict[str, dict[tuple[str, str], None]] = defaultdict(dict)
    for path in Path(django_smska.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        constants = {
            target.id: node.value
            for node in tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            if name := id_of(call):
                hints = [one.value for one in call.keywords if one.arg == "hint"] or call.args[1:2]
                words = words_of(call.args[:1], constants)
                found[name][words, words_of(hints, constants)] = None
    return {name: list(said) for name, said in found.items()}


def id_of(call: ast.Call) -> str:
    maker = getattr(call.func, "id", getattr(call.func, "attr", ""))
    if maker not in MAKERS:
        return ""
    for keyword in call.keywords:
        if keyword.arg in ("id", "check") and isinstance(keyword.value, ast.Constant):
            match = ID.fullmatch(str(keyword.value.value))
            return match[1] if match else ""
    return "E005" if maker in MAKERS[2:] and call.args else ""


def words_of(nodes: list[ast.expr], constants: dict[str, ast.expr]) -> str:
    if not nodes:
        return ""
    node = nodes[0]
    if isinstance(node, ast.Name):
        return words_of([constants[node.id]], constants) if node.id in constants else ""
    if isinstance(node, ast.JoinedStr):
        parts = (getattr(part, "value", None) for part in node.values)
        return "".join(part if isinstance(part, str) else PLACEHOLDER for part in parts)
    return str(node.value) if isinstance(node, ast.Constant) else ""


def setup(app: Any) -> dict[str, bool]:
    app.add_directive("smska-settings", Settings)
    app.add_directive("smska-fields", Fields)
    app.add_directive("smska-faults", Faults)
    app.add_directive("smska-command", Command)
    app.add_directive("smska-check", Check)
    return {"parallel_read_safe": True}
