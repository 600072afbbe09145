"""Columns that hold the same on every database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import models

if TYPE_CHECKING:
    CharField = models.CharField[Any, Any]
else:
    CharField = models.CharField


class ExactField(CharField):
    """Text that is compared character by character.

    MariaDB's usual collations count "Key", "kéy" and "key " as one.
    """

    def db_parameters(self, connection: Any) -> Any:
        parameters = super().db_parameters(connection)
        if connection.vendor == "mysql":
            return {**parameters, "collation": exact_collation(connection)}
        return parameters


def exact_collation(connection: Any) -> str:
    """Return the collation without case, accents or padding; each server has a name of its own."""
    return "utf8mb4_nopad_bin" if connection.mysql_is_mariadb else "utf8mb4_0900_bin"
