"""Customers as recipients of messages, and their names beside numbers in the admin."""

from typing import Any

from django.db.models import F, QuerySet, Value
from django.db.models.functions import Concat, Trim

from .models import Phone


def customers(user: Any) -> QuerySet[Phone, dict[str, Any]]:
    """Return those whom this member of staff may write to: here all."""
    user_name = Trim(Concat("user__first_name", Value(" "), "user__last_name"))
    return (
        Phone.objects.order_by("pk")
        .annotate(name=user_name, login=F("user__username"))
        .values("number", "name", "login")
    )
