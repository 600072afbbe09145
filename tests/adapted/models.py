from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import BaseUserManager
from django.db import models


class User(AbstractBaseUser):
    """A user as drfpasswordless wants one: found by the number alone."""

    mobile = models.CharField(max_length=16, unique=True)
    is_active = models.BooleanField(default=True)

    objects = BaseUserManager()

    USERNAME_FIELD = "mobile"
