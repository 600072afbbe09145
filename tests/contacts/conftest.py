"""Users and requests of the address book."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Permission, User

#: What a manager has here.
ALL = (
    *("view_contact", "add_contact", "change_contact", "delete_contact"),
    *("view_contactgroup", "add_contactgroup", "change_contactgroup", "delete_contactgroup"),
    "see_number_smsmessage",
)


@pytest.fixture
def user_with(db):
    """Make a user of the staff with these permissions."""

    def make(*codenames):
        user = User.objects.create_user(f"user{User.objects.count()}", is_staff=True)
        found = Permission.objects.filter(codename__in=codenames)
        assert found.count() == len(codenames)
        user.user_permissions.set(found)
        return user

    return make


@pytest.fixture
def log_in(client, user_with):
    def log_in(*codenames):
        client.user = user_with(*codenames)
        client.force_login(client.user)
        return client

    return log_in
