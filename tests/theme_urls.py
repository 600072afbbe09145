from django.conf import settings
from django.urls import include, path

from .urls import urlpatterns as own

urlpatterns = list(own)
if settings.THEME == "grappelli":
    urlpatterns.insert(0, path("grappelli/", include("grappelli.urls")))
