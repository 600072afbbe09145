from django.conf import settings
from django.db import models


class Phone(models.Model):
    """The number by which a customer logs in."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, models.CASCADE)
    number = models.CharField(max_length=16, unique=True)
    verified = models.BooleanField(default=False)

    def __str__(self) -> str:
        return self.number
