"""The columns of an app's tables in which a text can stand, and so a number."""

from django.apps import apps
from django.db.models import fields

NO_TEXT = (
    *(fields.AutoField, fields.IntegerField, fields.DecimalField, fields.BooleanField),
    *(fields.DateField, fields.related.ForeignKey),
)


def of_text(label):
    """Return their names by model. A kind of field that is not known here counts as text."""
    models = apps.get_app_config(label).get_models(include_auto_created=True)
    return {
        model: {one.name for one in model._meta.concrete_fields if not isinstance(one, NO_TEXT)}
        for model in models
    }
