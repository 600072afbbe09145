"""The admin's pages in a real browser."""

import pytest

from django_smska.sms import queue_sms

LIST = "/admin/django_smska/smsmessage/"


@pytest.fixture
def message(transactional_db):
    return queue_sms("+79041764995", "your order is ready")


def test_one_message_is_accessible(look, superuser, message, accessible):
    page = look(superuser)
    page.goto(f"{LIST}{message.pk}/change/")
    accessible(page)
