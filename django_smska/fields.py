"""Columns that behave alike on every database, and the limits of its character set."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models.fields.related_descriptors import ForwardManyToOneDescriptor
from django.utils.translation import gettext_lazy as _

if TYPE_CHECKING:
    CharField = models.CharField[Any, Any]
    TextField = models.TextField[Any, Any]
    ForeignKey = models.ForeignKey[Any, Any]
    ForeignKeyDescriptor = ForwardManyToOneDescriptor[Any]
else:
    CharField, TextField, ForeignKey = models.CharField, models.TextField, models.ForeignKey
    ForeignKeyDescriptor = ForwardManyToOneDescriptor

MAX_EXTERNAL_CHARACTERS = (
    4000  # the longest text of another party that is kept, where the field has no length
)

#: NUL, and halves of surrogate pairs: neither can be stored by every database nor sent as UTF-8.
UNSENDABLE = re.compile("[\0\ud800-\udfff]")


class UserDescriptor(ForeignKeyDescriptor):
    """A user who is not logged in counts as no user."""

    def __set__(self, instance: Any, value: Any) -> None:
        user_model = self.field.remote_field.model
        if getattr(value, "is_anonymous", False):
            value = None
        elif value is not None and not isinstance(value, user_model):
            words = _("This must be a user (%(model)s) or None, not %(type)s.")
            params = {"model": user_model._meta.label, "type": type(value).__name__}
            raise ValidationError({self.field.name: ValidationError(words, params=params)})
        super().__set__(instance, value)


class UserField(ForeignKey):
    """A foreign key to a user; a visitor who is not logged in counts as none."""

    forward_related_accessor_class = UserDescriptor


class ExactField(CharField):
    """Text that is compared character by character.

    MariaDB's usual collations treat "Key", "kéy" and "key " as equal.
    """

    def db_parameters(self, connection: Any) -> Any:
        parameters = super().db_parameters(connection)
        if connection.vendor == "mysql":
            return {**parameters, "collation": exact_collation(connection)}
        return parameters


def exact_collation(connection: Any) -> str:
    """Return the collation without case, accents or padding; each server has a name of its own."""
    return "utf8mb4_nopad_bin" if connection.mysql_is_mariadb else "utf8mb4_0900_bin"


class JsonTextField(TextField):
    """JSON in a column of text. A check of Django's own field connects to the database, which
    no command may do that only looks at settings."""

    def from_db_value(self, value: Any, *args: Any) -> Any:
        return json.loads(value)

    def get_prep_value(self, value: Any) -> Any:
        return json.dumps(value, ensure_ascii=False, sort_keys=True)


class ExternalCharField(CharField):
    """A short text of another party, made to fit the column whenever it is written."""

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        return fit(super().get_db_prep_value(value, connection, prepared), self, connection)


class ExternalTextField(TextField):
    """A text of another party, made to fit the column whenever it is written."""

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        return fit(super().get_db_prep_value(value, connection, prepared), self, connection)


def fit(value: Any, field: Any, connection: Any) -> Any:
    """Return a text as this column can hold it: cut, and with ``?`` for what it cannot hold."""
    if not isinstance(value, str):
        return value
    text = UNSENDABLE.sub("?", value[: field.max_length or MAX_EXTERNAL_CHARACTERS])
    if unsupported_character(text, field, connection) is None:
        return text
    narrow = _charsets(connection).of(field)
    return "".join("?" if _unsupported(one, narrow) else one for one in text)


# --- character sets -------------------------------------------------------------------------------

#: Character sets that hold every character, by their names in PostgreSQL and MariaDB.
WHOLE = {"UTF8", "utf8mb4", "utf16", "utf16le", "utf32", "binary", ""}
#: Character sets without emoji and other characters above U+FFFF.
BASIC = {"utf8", "utf8mb3", "ucs2"}
#: Python's names of those whose name differs.
CODECS = {"latin1": "cp1252", "koi8r": "koi8_r", "KOI8R": "koi8_r", "KOI8U": "koi8_u"}


def unsupported_character(text: str, field: Any, connection: Any) -> str | None:
    """Return the first character that the column cannot hold on this database, or ``None``.

    MariaDB is queried once for each connection, and again before a text is refused, because an
    administrator may have converted the table. PostgreSQL's driver knows without a query.
    """
    if text.isascii() or connection.vendor not in ("mysql", "postgresql"):
        return None
    if _charsets(connection).whole or not _unsupported(text, _charsets(connection).of(field)):
        return None
    _known.pop(connection.connection, None)
    return _unsupported(text, _charsets(connection).of(field))


def _unsupported(text: str, charsets: set[str]) -> str | None:
    for charset in charsets:
        if not _holds(charset, text):
            return next(one for one in text if not _holds(charset, one))
    return None


def _holds(charset: str, text: str) -> bool:
    if charset in BASIC:
        return max(text, default="") <= "\uffff"
    try:
        text.encode(CODECS.get(charset) or re.sub("^WIN", "cp", charset))
    except (UnicodeEncodeError, LookupError):
        return text.isascii()
    return True


class Charsets:
    """The character sets that a text has to pass on its way into a column."""

    def __init__(self, connection: Any) -> None:
        #: Of the connection, the server or the whole database.
        self.common: set[str] = set()
        #: By table and column.
        self.columns: dict[tuple[str, str], str] = {}
        if connection.vendor == "postgresql":
            connection.ensure_connection()
            info = connection.connection.info
            self.common.add(info.parameter_status("server_encoding") or "")
        elif connection.vendor == "mysql":
            with connection.cursor() as cursor:
                cursor.execute("SELECT @@character_set_client")
                self.common.update(*cursor.fetchall())
                cursor.execute(
                    "SELECT table_name, column_name, character_set_name "
                    "FROM information_schema.columns WHERE table_schema = DATABASE() "
                    "AND character_set_name IS NOT NULL AND table_name LIKE %s",
                    ["django\\_smska\\_%"],
                )
                self.columns = {(table, column): name for table, column, name in cursor.fetchall()}
        self.whole = {*self.common, *self.columns.values()} <= WHOLE

    def of(self, field: Any) -> set[str]:
        """Return those of the field that do not hold every character.

        SQL_ASCII keeps the bytes as they are, and counts them where a column has a length.
        """
        column = self.columns.get((field.model._meta.db_table, field.column), "")
        harmless = WHOLE | {"SQL_ASCII"} if field.max_length is None else WHOLE
        return {*self.common, column} - harmless


_known: WeakKeyDictionary[Any, Charsets] = WeakKeyDictionary()


def _charsets(connection: Any) -> Charsets:
    if connection.connection is None:
        connection.ensure_connection()
    if connection.connection not in _known:
        _known[connection.connection] = Charsets(connection)
    return _known[connection.connection]
