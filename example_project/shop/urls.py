from django.contrib import admin
from django.urls import include, path

from . import views

urlpatterns = [
    path("", views.start, name="start"),
    path("ready/", views.order_ready, name="order-ready"),
    path("code/", views.ask_for_code, name="code"),
    path("code/check/", views.check_code, name="code-check"),
    path("accounts/", include("allauth.urls")),
    path("admin/", admin.site.urls),
]
