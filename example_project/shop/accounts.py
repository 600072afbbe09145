"""Log in by a code: django-allauth makes the code, django-smska sends it."""

from typing import Any

from allauth.account.adapter import DefaultAccountAdapter

from django_smska.adapters.allauth import SmsAdapterMixin

from .models import Phone


class AccountAdapter(SmsAdapterMixin, DefaultAccountAdapter):
    using = "codes"
    code_text = "%(code)s – ваш код для входа. Никому его не говорите."

    def get_phone(self, user: Any) -> tuple[str, bool] | None:
        return Phone.objects.filter(user=user).values_list("number", "verified").first()

    def set_phone(self, user: Any, phone: str, verified: bool) -> None:
        values = {"number": phone, "verified": verified}
        Phone.objects.update_or_create(user=user, defaults=values)

    def set_phone_verified(self, user: Any, phone: str) -> None:
        self.set_phone(user, phone, True)

    def get_user_by_phone(self, phone: str) -> Any:
        found = Phone.objects.filter(number=phone).select_related("user").first()
        return found and found.user
