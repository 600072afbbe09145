from django.contrib import admin
from django.contrib.auth.decorators import login_not_required
from django.http import HttpResponse
from django.urls import include, path
from django_otp.views import LoginView

from tests.documents import run

urlpatterns = [
    path("accounts/", include("allauth.urls")),
    path("_allauth/", include("allauth.headless.urls")),
    path("otp/", LoginView.as_view(template_name="otp.html")),
    path("admin/", admin.site.urls),
    path("start/", login_not_required(lambda request: HttpResponse("start")), name="start"),
    *run("howto/adapters", "two_factor.urls")["urlpatterns"],
]
