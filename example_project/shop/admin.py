"""The names of SMS permissions are in the reader's language, and those of no use are named."""

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, User

from django_smska.admin import SmsPermissionsMixin

admin.site.unregister([Group, User])


@admin.register(Group)
class ShopGroupAdmin(SmsPermissionsMixin, GroupAdmin):
    pass


@admin.register(User)
class ShopUserAdmin(SmsPermissionsMixin, UserAdmin):
    pass
