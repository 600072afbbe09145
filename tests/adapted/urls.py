from django.http import JsonResponse
from django.urls import path
from sendsms.message import SmsMessage as SendsmsMessage
from sms import send_sms

from django_smska.decorators import limit_visitors
from tests.documents import run


def by_django_sms(request):
    count = send_sms(request.POST["text"], None, request.POST.getlist("to"))
    return JsonResponse({"sent": count})


def by_sendsms(request):
    count = SendsmsMessage(request.POST["text"], to=request.POST.getlist("to")).send()
    return JsonResponse({"sent": count})


urlpatterns = [
    path("django-sms/", by_django_sms),
    path("sendsms/", by_sendsms),
    path("limited/django-sms/", limit_visitors(by_django_sms)),
    *run("howto/adapters", "drfpasswordless.urls")["urlpatterns"],
    *run("howto/adapters", "phone_verify.urls")["urlpatterns"],
]
