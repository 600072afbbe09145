from typing import Any

from django import forms
from django.conf import settings
from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.formats import date_format
from django.utils.timezone import localtime
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from django_smska.decorators import limit_visitors, why
from django_smska.exceptions import (
    InvalidRecipient,
    LimitExceeded,
    SmsNotSent,
    SmsOutcomeUnknown,
)
from django_smska.models import SmsMessage
from django_smska.numbers import mask
from django_smska.sms import providers, send_sms
from django_smska.states import Status

from . import codes
from .forms import CodeForm, OrderReadyForm, PhoneForm

WHERE = {
    "console": _("SMS are printed in the terminal where the site runs. None is sent."),
    "dummy": _("SMS are thrown away. None is sent."),
    "filebased": _("SMS are written to files. None is sent."),
    "locmem": _("SMS are kept in memory. None is sent."),
}


def start(request: HttpRequest) -> HttpResponse:
    gateway_page = getattr(settings, "DEMO_GATEWAY_PAGE", "")
    backend = type(providers["default"]).__module__.rpartition(".")[2]
    where = WHERE.get(backend) or gettext("SMS are sent through %s.") % backend
    if gateway_page:
        where = gettext("SMS are sent to the stand-in gateway. No phone rings.")
    return render(request, "shop/start.html", {"where": where, "gateway_page": gateway_page})


# --- "your order is ready" ------------------------------------------------------------------------


def order_ready(request: HttpRequest) -> HttpResponse:
    """One SMS for one order, however often the button is pressed."""
    form = OrderReadyForm(request.POST or None)
    if form.is_valid():
        order = form.cleaned_data["order"]
        key = f"order-{order}-ready"
        again = SmsMessage.objects.filter(idempotency_key=key).exists()
        if message := _send_ready(form, key):
            _report(request, order, message, again)
            return redirect("order-ready")
    return render(request, "shop/order_ready.html", {"form": form})


def _send_ready(form: forms.Form, key: str) -> SmsMessage | None:
    """Send, or say in the form why not."""
    order, phone = form.cleaned_data["order"], form.cleaned_data["phone"]
    text = f"Ваш заказ №{order} готов. Ждём вас!"
    try:
        return send_sms(phone, text, idempotency_key=key)
    except ValidationError as error:
        if "idempotency_key" in getattr(error, "error_dict", ()):
            words = gettext("Another number has the SMS of order %s already. Nothing was sent now.")
            form.add_error("phone", words % order)
        else:
            form.add_error(None, error.messages)
    except InvalidRecipient:
        form.add_error("phone", gettext("No SMS can be sent to this number. Call the customer."))
    except LimitExceeded as error:
        form.add_error(None, why(error))
    except SmsNotSent:
        form.add_error(None, gettext("The SMS was not sent. Staff can send it again in the admin."))
    except SmsOutcomeUnknown:
        form.add_error(
            None,
            gettext(
                "It is not certain whether the SMS was sent. It is never sent again "
                "automatically: ask the customer, then decide in the admin."
            ),
        )
    return None


def _report(request: HttpRequest, order: int, message: SmsMessage, again: bool) -> None:
    """Say what became of the SMS; the button pressed again finds the first one, in any state."""
    level, words = messages.SUCCESS, gettext("%(sms)s is %(status)s.")
    if message.status == Status.FAILED:
        level, words = (
            messages.ERROR,
            gettext("%(sms)s failed. Staff can send it again in the admin."),
        )
    elif message.status == Status.UNKNOWN:
        level, words = messages.WARNING, gettext("%(sms)s was perhaps sent. Decide in the admin.")
    elif again and message.sent_at:
        level = messages.INFO
        words = gettext(
            "%(sms)s was already sent (%(time)s). Nothing was sent now. Status: %(status)s."
        )
    elif again:
        level = messages.INFO
        words = gettext("%(sms)s is already on its way (%(status)s). Nothing was sent now.")
    parts = {"order": order, "number": message.pk, "phone": mask(message.to)}
    sms = gettext("Order %(order)s: SMS %(number)s to %(phone)s") % parts
    sent = (
        date_format(localtime(message.sent_at), "SHORT_DATETIME_FORMAT") if message.sent_at else ""
    )
    shown = {"sms": sms, "status": Status(message.status).label, "time": sent}
    messages.add_message(request, level, words % shown)


# --- a one-time code ------------------------------------------------------------------------------


@limit_visitors
def ask_for_code(request: HttpRequest) -> HttpResponse:
    form = PhoneForm(request.POST or None)
    if form.is_valid() and _send_code(request, form):
        return redirect("code-check")
    context = {"form": form, "pending": codes.pending_number(request.session)}
    return render(request, "shop/code.html", context)


def _send_code(request: HttpRequest, form: forms.Form) -> bool:
    """Send, or say in the form why not; return whether a code may arrive."""
    try:
        message = codes.send_code(request.session, form.cleaned_data["phone"])
    except (SmsNotSent, ValidationError) as error:
        form.add_error("phone", why(error))
    else:
        if message.status == Status.UNKNOWN:
            text = gettext(
                "The code may be late. If it does not arrive in a minute, ask for another."
            )
            messages.warning(request, text)
        return True
    return False


def check_code(request: HttpRequest) -> HttpResponse:
    number = codes.pending_number(request.session)
    if not number:
        return redirect("code")
    form = CodeForm(request.POST or None)
    if form.is_valid():
        if not (problem := codes.check_code(request.session, form.cleaned_data["code"])):
            messages.success(request, gettext("The number %s is yours.") % mask(number))
            return redirect("start")
        form.add_error("code", problem)
    context: dict[str, Any] = {"form": form, "number": number, "masked": mask(number)}
    return render(request, "shop/code_check.html", context)
