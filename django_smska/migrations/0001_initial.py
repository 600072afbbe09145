import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models

import django_smska.fields
import django_smska.references


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="ProviderState",
            fields=[
                (
                    "alias",
                    models.CharField(
                        max_length=64, primary_key=True, serialize=False, verbose_name="provider"
                    ),
                ),
                ("reason", models.CharField(blank=True, max_length=16, verbose_name="reason")),
                (
                    "detail",
                    django_smska.fields.ExternalTextField(blank=True, verbose_name="details"),
                ),
                (
                    "failures",
                    models.PositiveIntegerField(default=0, verbose_name="failures in a row"),
                ),
                (
                    "probes",
                    models.PositiveIntegerField(default=0, verbose_name="probes since the pause"),
                ),
                ("paused_at", models.DateTimeField(null=True, verbose_name="paused since")),
                ("probe_at", models.DateTimeField(null=True, verbose_name="next probe")),
                (
                    "balance",
                    models.DecimalField(
                        decimal_places=4, max_digits=18, null=True, verbose_name="balance"
                    ),
                ),
                ("balance_at", models.DateTimeField(null=True, verbose_name="balance reported")),
                ("next_send_at", models.DateTimeField(null=True, verbose_name="next sending")),
                (
                    "worker_seen_at",
                    models.DateTimeField(null=True, verbose_name="worker last seen"),
                ),
                ("segments_on", models.DateField(null=True, verbose_name="segments counted on")),
                (
                    "segments_used",
                    models.PositiveBigIntegerField(
                        default=0, verbose_name="segments used that day"
                    ),
                ),
                ("stopped_at", models.DateTimeField(null=True, verbose_name="stopped since")),
                (
                    "stopped_by",
                    django_smska.fields.ExternalCharField(
                        blank=True, max_length=150, verbose_name="stopped by"
                    ),
                ),
                ("held_before", models.DateTimeField(null=True, verbose_name="held if due before")),
            ],
            options={
                "verbose_name": "SMS provider",
                "verbose_name_plural": "SMS providers",
                "permissions": [("stop_providerstate", "Can stop and resume sending")],
                "default_permissions": ("view",),
            },
        ),
        migrations.CreateModel(
            name="SmsDay",
            fields=[
                ("day", models.DateField(primary_key=True, serialize=False)),
                ("counted_at", models.DateTimeField(null=True)),
                ("settled", models.BooleanField(default=False)),
            ],
            options={
                "default_permissions": (),
            },
        ),
        migrations.CreateModel(
            name="SmsErasure",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "number_hash",
                    models.CharField(
                        db_index=True, editable=False, max_length=64, verbose_name="number hash"
                    ),
                ),
                (
                    "erased_at",
                    models.DateTimeField(
                        default=django.utils.timezone.now, editable=False, verbose_name="erased"
                    ),
                ),
                (
                    "erased_by",
                    models.CharField(
                        blank=True, editable=False, max_length=150, verbose_name="erased by"
                    ),
                ),
                (
                    "messages",
                    models.PositiveBigIntegerField(
                        default=0, editable=False, verbose_name="messages"
                    ),
                ),
                (
                    "details",
                    django_smska.fields.JsonTextField(
                        default=dict, editable=False, verbose_name="details"
                    ),
                ),
            ],
            options={
                "verbose_name": "erasure",
                "verbose_name_plural": "erasures",
                "default_permissions": ("view",),
            },
        ),
        migrations.CreateModel(
            name="SmsLimit",
            fields=[
                ("key", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("log", models.TextField(default="[]")),
                ("ends_at", models.DateTimeField(db_index=True)),
            ],
            options={
                "default_permissions": (),
            },
        ),
        migrations.CreateModel(
            name="SmsInbound",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("using", models.CharField(editable=False, max_length=64, verbose_name="provider")),
                ("sender", models.CharField(editable=False, max_length=32, verbose_name="from")),
                (
                    "to",
                    models.CharField(blank=True, editable=False, max_length=32, verbose_name="to"),
                ),
                (
                    "body",
                    django_smska.fields.ExternalTextField(
                        blank=True, editable=False, verbose_name="text"
                    ),
                ),
                (
                    "gateway_id",
                    django_smska.fields.ExactField(
                        editable=False, max_length=64, null=True, verbose_name="gateway id"
                    ),
                ),
                (
                    "received_at",
                    models.DateTimeField(
                        default=django.utils.timezone.now, editable=False, verbose_name="received"
                    ),
                ),
            ],
            options={
                "verbose_name": "received SMS",
                "verbose_name_plural": "received SMS",
                "ordering": ("-id",),
                "default_permissions": ("delete", "view"),
                "indexes": [
                    models.Index(fields=["sender"], name="smska_inbound_number"),
                    models.Index(fields=["received_at"], name="smska_inbound_received"),
                ],
                "constraints": [
                    models.UniqueConstraint(fields=("using", "gateway_id"), name="smska_inbound")
                ],
            },
        ),
        migrations.CreateModel(
            name="SmsMailing",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.CharField(max_length=200, verbose_name="name")),
                ("body", models.TextField(blank=True, editable=False, verbose_name="text")),
                (
                    "sender",
                    models.CharField(
                        blank=True, editable=False, max_length=32, verbose_name="sender"
                    ),
                ),
                (
                    "using",
                    models.CharField(
                        blank=True, editable=False, max_length=64, verbose_name="provider"
                    ),
                ),
                (
                    "send_after",
                    models.DateTimeField(editable=False, null=True, verbose_name="send after"),
                ),
                (
                    "created_at",
                    models.DateTimeField(
                        default=django.utils.timezone.now, editable=False, verbose_name="created"
                    ),
                ),
                (
                    "stopped_at",
                    models.DateTimeField(editable=False, null=True, verbose_name="stopped since"),
                ),
                (
                    "stopped_by",
                    django_smska.fields.ExternalCharField(
                        blank=True, editable=False, max_length=150, verbose_name="stopped by"
                    ),
                ),
                ("at_any_hour", models.BooleanField(default=True, editable=False)),
                (
                    "segments",
                    models.PositiveBigIntegerField(
                        default=0, editable=False, verbose_name="segments"
                    ),
                ),
                ("again", models.PositiveIntegerField(default=0, editable=False)),
                ("counts", django_smska.fields.JsonTextField(default=dict, editable=False)),
                ("pruned", django_smska.fields.JsonTextField(default=dict, editable=False)),
                ("samples", django_smska.fields.JsonTextField(default=list, editable=False)),
                ("counted_at", models.DateTimeField(editable=False, null=True)),
                ("settled", models.BooleanField(default=False, editable=False)),
                ("prices", django_smska.fields.JsonTextField(default=dict, editable=False)),
                ("priced_at", models.DateTimeField(editable=False, null=True)),
                (
                    "created_by",
                    django_smska.fields.UserField(
                        blank=True,
                        editable=False,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                        verbose_name="created by",
                    ),
                ),
            ],
            options={
                "verbose_name": "mailing",
                "verbose_name_plural": "mailings",
                "ordering": ("-id",),
                "default_permissions": (),
            },
        ),
        migrations.CreateModel(
            name="SmsDayCount",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("using", django_smska.fields.ExactField(max_length=64)),
                ("sender", django_smska.fields.ExactField(max_length=32)),
                ("status", models.CharField(max_length=16)),
                ("error_code", django_smska.fields.ExactField(max_length=32)),
                ("delivered_within_seconds", models.PositiveBigIntegerField(default=0)),
                ("currency", django_smska.fields.ExactField(default="", max_length=3)),
                ("messages", models.PositiveBigIntegerField(default=0)),
                ("segments", models.PositiveBigIntegerField(default=0)),
                ("price", models.DecimalField(decimal_places=6, max_digits=20, null=True)),
                ("pruned_messages", models.PositiveBigIntegerField(default=0)),
                ("pruned_segments", models.PositiveBigIntegerField(default=0)),
                ("pruned_price", models.DecimalField(decimal_places=6, max_digits=20, null=True)),
                (
                    "day",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="counts",
                        to="django_smska.smsday",
                    ),
                ),
            ],
            options={
                "default_permissions": (),
                "constraints": [
                    models.UniqueConstraint(
                        fields=(
                            "day",
                            "using",
                            "sender",
                            "status",
                            "error_code",
                            "delivered_within_seconds",
                            "currency",
                        ),
                        name="smska_day_count",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="SmsMessage",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("to", models.CharField(max_length=16, verbose_name="number")),
                ("body", models.TextField(verbose_name="text")),
                (
                    "sender",
                    models.CharField(
                        blank=True,
                        help_text="Empty: the provider's sender ID.",
                        max_length=32,
                        verbose_name="sender",
                    ),
                ),
                (
                    "using",
                    models.CharField(default="default", max_length=64, verbose_name="provider"),
                ),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("draft", "draft"),
                            ("queued", "queued"),
                            ("claimed", "about to be sent"),
                            ("sending", "sending"),
                            ("sent", "sent"),
                            ("delivered", "delivered"),
                            ("rejected", "rejected"),
                            ("expired", "expired"),
                            ("deleted", "deleted"),
                            ("unconfirmed", "unconfirmed"),
                            ("failed", "failed"),
                            ("unknown", "unknown"),
                            ("cancelled", "cancelled"),
                        ],
                        default="draft",
                        editable=False,
                        max_length=16,
                        verbose_name="status",
                    ),
                ),
                ("reported_status", models.CharField(blank=True, editable=False, max_length=16)),
                (
                    "proof",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("person", "a person"),
                            ("report", "a report of the provider"),
                            ("answer", "an answer of the provider"),
                        ],
                        editable=False,
                        max_length=8,
                        verbose_name="resolved by",
                    ),
                ),
                (
                    "reference",
                    django_smska.fields.ExactField(
                        default=django_smska.references.new_reference,
                        editable=False,
                        max_length=22,
                        unique=True,
                        verbose_name="reference",
                    ),
                ),
                (
                    "gateway_id",
                    models.CharField(
                        blank=True, editable=False, max_length=64, verbose_name="gateway id"
                    ),
                ),
                (
                    "gateway_status",
                    django_smska.fields.ExternalCharField(
                        blank=True, editable=False, max_length=64, verbose_name="gateway status"
                    ),
                ),
                (
                    "error_code",
                    django_smska.fields.ExternalCharField(
                        blank=True, editable=False, max_length=32, verbose_name="error code"
                    ),
                ),
                (
                    "error_text",
                    django_smska.fields.ExternalTextField(
                        blank=True, editable=False, verbose_name="error"
                    ),
                ),
                (
                    "segments",
                    models.PositiveSmallIntegerField(
                        default=0, editable=False, verbose_name="segments"
                    ),
                ),
                (
                    "encoding",
                    models.CharField(
                        blank=True, editable=False, max_length=8, verbose_name="encoding"
                    ),
                ),
                (
                    "price",
                    models.DecimalField(
                        decimal_places=6,
                        editable=False,
                        max_digits=12,
                        null=True,
                        verbose_name="price",
                    ),
                ),
                (
                    "currency",
                    models.CharField(
                        blank=True, editable=False, max_length=3, verbose_name="currency"
                    ),
                ),
                (
                    "billed_segments",
                    models.PositiveSmallIntegerField(
                        editable=False, null=True, verbose_name="billed segments"
                    ),
                ),
                (
                    "attempts",
                    models.PositiveSmallIntegerField(
                        default=0, editable=False, verbose_name="attempts"
                    ),
                ),
                (
                    "priority",
                    models.SmallIntegerField(
                        default=0, help_text="Higher goes first.", verbose_name="priority"
                    ),
                ),
                (
                    "send_after",
                    models.DateTimeField(
                        default=django.utils.timezone.now,
                        help_text="Not sent before this time.",
                        verbose_name="send after",
                    ),
                ),
                (
                    "expires_at",
                    models.DateTimeField(
                        blank=True,
                        help_text="Not sent after this time. Empty: the site's default lifetime.",
                        null=True,
                        verbose_name="expires at",
                    ),
                ),
                ("has_site_lifetime", models.BooleanField(default=False, editable=False)),
                (
                    "idempotency_key",
                    django_smska.fields.ExactField(
                        blank=True,
                        default=None,
                        max_length=128,
                        null=True,
                        unique=True,
                        verbose_name="idempotency key",
                    ),
                ),
                (
                    "created_at",
                    models.DateTimeField(
                        default=django.utils.timezone.now, editable=False, verbose_name="created"
                    ),
                ),
                (
                    "claimed_at",
                    models.DateTimeField(editable=False, null=True, verbose_name="claimed"),
                ),
                (
                    "sending_at",
                    models.DateTimeField(editable=False, null=True, verbose_name="request began"),
                ),
                ("sent_at", models.DateTimeField(editable=False, null=True, verbose_name="sent")),
                (
                    "finished_at",
                    models.DateTimeField(editable=False, null=True, verbose_name="finished"),
                ),
                ("immediate", models.BooleanField(default=False, editable=False)),
                ("counted_on", models.DateField(editable=False, null=True)),
                (
                    "sensitive",
                    models.BooleanField(default=False, editable=False, verbose_name="sensitive"),
                ),
                (
                    "code",
                    django_smska.fields.ExactField(
                        blank=True, default="", editable=False, max_length=64
                    ),
                ),
                ("despite_opt_out", models.BooleanField(default=False, editable=False)),
                (
                    "text_hash",
                    models.CharField(blank=True, default="", editable=False, max_length=64),
                ),
                (
                    "erased_at",
                    models.DateTimeField(editable=False, null=True, verbose_name="erased"),
                ),
                ("token", models.CharField(blank=True, editable=False, max_length=32)),
                ("lease_until", models.DateTimeField(editable=False, null=True)),
                (
                    "next_status_at",
                    models.DateTimeField(
                        editable=False, null=True, verbose_name="next status query"
                    ),
                ),
                ("status_queries", models.PositiveSmallIntegerField(default=0, editable=False)),
                (
                    "created_by",
                    django_smska.fields.UserField(
                        blank=True,
                        editable=False,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                        verbose_name="created by",
                    ),
                ),
                (
                    "mailing",
                    models.ForeignKey(
                        blank=True,
                        db_index=False,
                        editable=False,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="messages",
                        to="django_smska.smsmailing",
                        verbose_name="mailing",
                    ),
                ),
                (
                    "resend_of",
                    models.OneToOneField(
                        blank=True,
                        editable=False,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="resent_as",
                        to="django_smska.smsmessage",
                        verbose_name="resend of",
                    ),
                ),
            ],
            options={
                "verbose_name": "SMS message",
                "verbose_name_plural": "SMS messages",
                "ordering": ("-id",),
                "permissions": [
                    ("send_smsmessage", "Can send SMS messages"),
                    ("refresh_smsmessage", "Can refresh the status of SMS messages"),
                    ("resend_smsmessage", "Can decide about and resend SMS messages"),
                    ("see_text_smsmessage", "Can see the text of SMS messages"),
                    ("see_number_smsmessage", "Can see the whole number of SMS messages"),
                    ("export_smsmessage", "Can export SMS messages"),
                    ("release_smsmessage", "Can release or cancel held SMS messages"),
                ],
                "indexes": [
                    models.Index(
                        fields=["status", "using", "-priority", "send_after", "id"],
                        name="smska_claim",
                    ),
                    models.Index(fields=["status", "using", "send_after"], name="smska_due"),
                    models.Index(fields=["status", "expires_at"], name="smska_expiry"),
                    models.Index(fields=["status", "next_status_at"], name="smska_report"),
                    models.Index(fields=["status", "-id"], name="smska_status"),
                    models.Index(fields=["to"], name="smska_number"),
                    models.Index(fields=["gateway_id"], name="smska_gateway_id"),
                    models.Index(fields=["created_at"], name="smska_created"),
                    models.Index(fields=["erased_at", "id"], name="smska_erased"),
                    models.Index(fields=["mailing", "status", "-id"], name="smska_mailing"),
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            (
                                "status__in",
                                [
                                    "draft",
                                    "queued",
                                    "claimed",
                                    "sending",
                                    "sent",
                                    "delivered",
                                    "rejected",
                                    "expired",
                                    "deleted",
                                    "unconfirmed",
                                    "failed",
                                    "unknown",
                                    "cancelled",
                                ],
                            )
                        ),
                        name="smska_status_known",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("status__in", ["claimed", "sending"]), _negated=True),
                            ("lease_until__isnull", False),
                            _connector="OR",
                        ),
                        name="smska_claim_has_lease",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("status__in", ["draft", "cancelled"]),
                            ("expires_at__isnull", False),
                            _connector="OR",
                        ),
                        name="smska_queued_has_expiry",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="SmsOptOut",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "number",
                    django_smska.fields.ExactField(
                        blank=True, db_index=True, max_length=16, verbose_name="number"
                    ),
                ),
                ("number_hash", models.CharField(editable=False, max_length=64)),
                (
                    "sender",
                    django_smska.fields.ExactField(
                        blank=True,
                        help_text="Empty: all. Otherwise exactly as in the messages.",
                        max_length=32,
                        verbose_name="sender",
                    ),
                ),
                ("reason", models.CharField(blank=True, max_length=200, verbose_name="reason")),
                (
                    "source",
                    models.CharField(
                        blank=True,
                        help_text="Where the entry comes from.",
                        max_length=64,
                        verbose_name="source",
                    ),
                ),
                (
                    "created_at",
                    models.DateTimeField(
                        default=django.utils.timezone.now, editable=False, verbose_name="created"
                    ),
                ),
                (
                    "created_by",
                    django_smska.fields.UserField(
                        blank=True,
                        editable=False,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                        verbose_name="created by",
                    ),
                ),
            ],
            options={
                "verbose_name": "do-not-send entry",
                "verbose_name_plural": "do-not-send entries",
                "ordering": ("-id",),
                "default_permissions": ("add", "delete", "view"),
                "constraints": [
                    models.UniqueConstraint(fields=("number_hash", "sender"), name="smska_opt_out")
                ],
            },
        ),
        migrations.CreateModel(
            name="SmsTemplate",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.CharField(max_length=100, verbose_name="name")),
                (
                    "language",
                    models.CharField(
                        blank=True, default="", max_length=16, verbose_name="language"
                    ),
                ),
                ("body", models.TextField(verbose_name="text")),
                (
                    "created_at",
                    models.DateTimeField(
                        default=django.utils.timezone.now, editable=False, verbose_name="created"
                    ),
                ),
                ("changed_at", models.DateTimeField(auto_now=True, verbose_name="changed")),
                (
                    "created_by",
                    django_smska.fields.UserField(
                        blank=True,
                        editable=False,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                        verbose_name="created by",
                    ),
                ),
            ],
            options={
                "verbose_name": "SMS template",
                "verbose_name_plural": "SMS templates",
                "ordering": ("name", "language"),
                "constraints": [
                    models.UniqueConstraint(
                        fields=("name", "language"),
                        name="smska_template_name",
                        violation_error_message="There is a template with this name and language.",
                    )
                ],
            },
        ),
    ]
