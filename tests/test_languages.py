"""Each text has its translation, and pages in Russian are Russian throughout."""

from __future__ import annotations

import gettext
import html
import io
import re
from datetime import timedelta
from pathlib import Path

import django
import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.management import get_commands
from django.urls import reverse
from django.utils import timezone, translation

from django_smska import circuit_breaker, exceptions, sending, states
from django_smska.admin import actions, wording
from django_smska.models import ProviderState, SmsMessage, rows
from django_smska.numbers import normalize
from django_smska.states import Status
from tests import catalogue

LANGUAGES = catalogue.languages()
LIST = "/admin/django_smska/smsmessage/"
PLACEHOLDER = re.compile(r"%\(\w+\)[sd]|%[sd]|\{\w*\}")


def key(text, context):
    return (text[0] if isinstance(text, tuple) else text), context


@pytest.fixture(params=LANGUAGES)
def language(request):
    return request.param


@pytest.fixture
def stored(language):
    """The catalogue as it is checked in."""
    return catalogue.read(language)


@pytest.fixture
def messages(stored):
    return [message for message in stored if message.id]


def entries(compiled):
    """The texts and the header of a compiled catalogue."""
    catalog = gettext.GNUTranslations(io.BytesIO(compiled))
    return {text: said for text, said in catalog._catalog.items() if text}, catalog.info()


# --- the catalogues


def test_there_is_russian():
    assert "ru" in LANGUAGES


@pytest.mark.slow
def test_each_text_of_the_package_is_in_the_catalogue_and_no_other(messages):
    """Where this fails, run ``python -m tests.catalogue`` and translate what it names."""
    wanted = {key(text, context) for text, context in catalogue.texts()}
    found = {key(message.id, message.context) for message in messages}
    assert wanted - found == set(), "not in the catalogue"
    assert found - wanted == set(), "not in the code any more"
    assert len(wanted) > 100


@pytest.mark.slow
def test_what_each_error_means_can_be_translated():
    classes = [one for one in vars(exceptions).values() if hasattr(one, "summary")]
    assert len(classes) > 10
    assert {one.summary for one in classes} <= {text for text, _ in catalogue.texts()}


def test_nothing_obsolete_is_kept(stored):
    assert not stored.obsolete


def test_no_translation_is_missing_or_unsure(messages):
    def is_whole(message):
        forms = message.string if message.pluralizable else [message.string]
        return all(forms) and not message.fuzzy

    assert [message.id for message in messages if not is_whole(message)] == []


def test_plurals_have_all_forms_that_djangos_own_catalogue_has(language, stored, messages):
    """Otherwise Django counts with one rule and we with another."""
    folder = Path(admin.__file__).parent / "locale"
    _, theirs = entries((folder / language / "LC_MESSAGES" / "django.mo").read_bytes())
    rule = theirs["plural-forms"]
    assert re.sub(r"\s", "", stored.plural_forms) == re.sub(r"\s", "", rule)
    plurals = [message for message in messages if message.pluralizable]
    assert plurals and all(len(message.string) == stored.num_plurals for message in plurals)


def test_each_translation_has_the_placeholders_of_its_text(messages):
    def placeholders(text):
        # "{name}" is what a person may type, never a place for a value.
        return sorted(PLACEHOLDER.findall(re.sub("{(name|имя)}", "", text)))

    for message in messages:
        text = message.id[-1] if message.pluralizable else message.id
        for form in message.string if message.pluralizable else [message.string]:
            assert placeholders(form) == placeholders(text), message.id


@pytest.mark.slow
def test_no_word_of_djangos_is_changed(language, messages):
    """All catalogues are one in the end: what Django says in its own way has a context here."""
    ours = {message.id: message.string for message in messages if message.context is None}
    catalogues = list(Path(django.__file__).parent.rglob(f"{language}/LC_MESSAGES/django.mo"))
    assert len(catalogues) > 5
    for path in catalogues:
        theirs, _ = entries(path.read_bytes())
        assert {
            text: theirs[text] for text in ours if theirs.get(text, ours[text]) != ours[text]
        } == {}


#: Words for which another one stands everywhere, because two for one thing seem to be two things.
OTHER_WORDS = {
    r"провайдер": "сервис SMS",
    r"шлюз": "сервис SMS",
    r"служб\w+ отправки": "программа отправки",
    r"\bчаст(?:ь|и|ей) SMS|\bсегмент": "SMS",
    r"клиент": "получатель",
    r"(?:недостаточно|мало) средств": "не хватает денег",
    r"коллег": "сотрудник",
    r"аккаунт": "учётная запись",
}


def test_one_thing_has_one_word_in_russian():
    found = [
        f"“{form}”: write {instead}"
        for message in catalogue.read("ru")
        for form in forms(message)
        for word, instead in OTHER_WORDS.items()
        if re.search(word, form, re.IGNORECASE)
    ]
    assert found == []


def test_quotes_are_those_of_the_language_and_three_dots_are_one_character():
    """A permission's name is shown between quotes, so that its own ones are the inner ones."""
    said = [
        re.sub("„[^“]*“", "", form) for message in catalogue.read("ru") for form in forms(message)
    ]
    assert [form for form in said if re.search(r"[“”„\"]|\.\.\.", form)] == []


def forms(message):
    """The translations of a text; none of the header."""
    if not message.id:
        return []
    return [*message.string] if message.pluralizable else [message.string]


@pytest.mark.slow
def test_the_compiled_catalogue_is_that_of_the_text_file(language, stored):
    fresh = catalogue.compiled(catalogue.updated(stored))
    assert entries(catalogue.path(language, "mo").read_bytes()) == entries(fresh)


def test_the_text_file_names_no_place_and_no_date(language):
    text = catalogue.path(language, "po").read_text(encoding="utf-8")
    assert "#:" not in text and "Date" not in text and "Generated-By" not in text


def test_no_script_needs_a_catalogue_of_its_own():
    """Scripts find their words in data- attributes, which a template wrote."""
    for script in catalogue.PACKAGE.rglob("*.js"):
        assert "gettext(" not in script.read_text(encoding="utf-8")


# --- pages


@pytest.fixture
def russian(settings, client, db):
    settings.LANGUAGE_CODE = "ru"
    client.force_login(User.objects.create_superuser("boss", last_name="Петрова"))
    return client


def make(status="draft", **fields):
    message = SmsMessage(to="89041764995", body="Заказ готов", **fields)
    message.save()
    expiry = message.send_after + timedelta(days=1)
    rows([message.pk]).update(status=status, expires_at=expiry)
    message.refresh_from_db()
    return message


def words(response):
    """What a page says, without scripts and tags, and the words in attributes that people meet."""
    text = response.content.decode()
    text = re.sub(r"<(script|style).*?</\1>", " ", text, flags=re.DOTALL)
    shown = re.findall(r'(?:title|aria-label|placeholder)="([^"]*)"', text)
    shown += re.findall(r'<input type="submit" value="([^"]*)"', text)
    return " ".join(html.unescape(" ".join([re.sub(r"<[^>]*>", " ", text), *shown])).split())


def test_the_list_is_in_russian(russian):
    make("unknown")
    page = words(russian.get(LIST))
    for text in (
        "Написать одному или многим…",
        "неясно, ушло ли",
        "Обновить статус…",
        "сервис SMS",
    ):
        assert text in page


@pytest.mark.parametrize("status", Status.values)
def test_the_page_of_a_message_is_in_russian(russian, status):
    message = make()
    rows([message.pk]).update(status=status, lease_until=timezone.now(), error_code="lease")
    page = words(russian.get(f"{LIST}{message.pk}/change/"))
    assert not left_in_english(page)


#: What some supported Django leaves in English itself: 6.1, and 5.2.0.
DJANGOS_OWN = ("Select an option", "Model name", "Add link", "Change or view list link")


def left_in_english(page):
    """English words; those of a product, a protocol, the user and the settings are none."""
    for text in DJANGOS_OWN:
        page = page.replace(text, "")
    known = r"SMS|CSV|XLSX|Excel|ID|boss|default|GSM|UCS|lease|sms_worker|Django|Europe|Moscow"
    return re.findall(rf"\b(?!(?:{known})\b)[A-Za-z][a-z]{{2,}}\b", page)


def pages():
    """Every page of the admin's, those of later days too."""
    for model in (SmsMessage, ProviderState):
        for url in admin.site._registry[model].get_urls():
            if url.name:
                yield url.name, [] if "object_id" not in str(url.pattern) else [model]


@pytest.mark.parametrize("name, args", [pytest.param(*page, id=page[0]) for page in pages()])
def test_no_page_has_a_word_of_english(russian, name, args):
    keys = {SmsMessage: make("draft").pk, ProviderState: "default"}
    ProviderState.objects.create(
        alias="default",
        reason="funds",
        paused_at=timezone.now(),
        detail=str(exceptions.InsufficientCredits()),
    )
    response = russian.get(reverse(f"admin:{name}", args=[keys[model] for model in args]))
    if response.status_code == 200 and response["Content-Type"].startswith("text/html"):
        assert left_in_english(words(response)) == []
    else:
        assert response.status_code < 500


@pytest.mark.parametrize("name", [action.name for action in actions.ACTIONS])
def test_no_page_that_asks_has_a_word_of_english(russian, name):
    (action,) = (action for action in actions.ACTIONS if action.name == name)
    pks = [make(status).pk for status in Status if status not in ("claimed", "sending")]
    response = russian.get(f"{LIST}{name}/?pks={','.join(map(str, pks))}")
    assert left_in_english(words(response)) == []
    response = russian.post(f"{LIST}{name}/", {"pks": ",".join(map(str, pks))}, follow=True)
    shown = " ".join(str(message) for message in response.context["messages"])
    assert shown and left_in_english(re.sub(r"<[^>]*>", "", shown)) == []


@pytest.mark.parametrize(
    "number, said",
    [
        (1, "1 сообщение, 1 SMS"),
        (2, "2 сообщения, 2 SMS"),
        (5, "5 сообщений, 5 SMS"),
        (11, "11 сообщений, 11 SMS"),
        (21, "21 сообщение, 21 SMS"),
    ],
)
def test_the_page_that_asks_counts_as_russians_do(russian, number, said):
    pks = ",".join(str(make().pk) for _ in range(number))
    page = words(russian.get(f"{LIST}send/?pks={pks}"))
    assert said in page
    assert "«Заказ готов»" in page


def test_what_became_of_messages_is_counted_too(russian):
    pks = ",".join(str(make().pk) for _ in range(3))
    response = russian.post(f"{LIST}cancel/", {"pks": pks}, follow=True)
    (shown,) = response.context["messages"]
    assert str(shown).startswith("Отменено: 3 сообщения (")


# --- texts that are stored in English and shown in the reader's language


@pytest.mark.parametrize(
    "stored, shown",
    [
        ("", ""),
        (sending.EXPIRED_UNSENT, "Срок истёк раньше, чем сообщение удалось отправить."),
        (
            exceptions.InvalidRecipient(gateway_text="-6|Invalid MSISDN").text,
            "Сервис SMS не отправляет на этот номер. Исправьте номер. "
            "Ответ сервиса: -6|Invalid MSISDN",
        ),
        (
            f"{sending.LATE}{sending.ACCEPTED}",
            "Ответ с опозданием: сообщение принято.",
        ),
        (
            f"{sending.LATE}{exceptions.InvalidRequest(gateway_text='-4|x').text}",
            "Ответ с опозданием: Сервис SMS не принял сообщение. Ответ сервиса: -4|x",
        ),
        ("Words of another program.", "Words of another program."),
    ],
)
def test_a_stored_error_is_shown_in_the_readers_language(stored, shown):
    assert wording.error_words(stored) == stored
    with translation.override("ru"):
        assert wording.error_words(stored) == shown


def test_the_page_of_a_message_shows_its_error_in_russian(russian):
    message = make("failed")
    rows([message.pk]).update(error_text=sending.EXPIRED_UNSENT)
    page = words(russian.get(f"{LIST}{message.pk}/change/"))
    assert "Срок истёк раньше, чем сообщение удалось отправить." in page


def test_a_refused_number_says_so_in_russian():
    with pytest.raises(ValidationError) as caught:
        normalize("12345")
    with translation.override("ru"):
        assert "Начните номер" in caught.value.messages[0]


@pytest.mark.django_db
def test_a_pause_keeps_the_words_without_the_name_of_a_setting():
    circuit_breaker.note(
        "default", exceptions.InsufficientCredits(alias="default", gateway_text="-5|No")
    )
    state = ProviderState.objects.get()
    assert state.is_paused and state.detail.startswith("The account at the gateway has")
    with translation.override("ru"):
        assert wording.error_words(state.detail).startswith("На счёте в сервисе SMS")


# --- the administrator's guide


GUIDE = Path(__file__).parents[1] / "README.ru.rst"


def test_the_guide_shows_of_each_status_permission_pause_and_button():
    guide = " ".join(GUIDE.read_text(encoding="utf-8").split())
    permissions = SmsMessage._meta.permissions
    with translation.override("ru"):
        statuses = [str(status.label) for status in Status]
    wanted = [*statuses, *(words for _, words in permissions), *states.PAUSE_SECONDS]
    assert [words for words in wanted if words not in guide] == []
    for action in (actions.CONFIRM_SENT, actions.RESEND, actions.REFRESH):
        with translation.override("ru"):
            assert f"«{action.label}»" in guide


def test_the_guide_names_only_commands_and_settings_that_exist():
    guide = GUIDE.read_text(encoding="utf-8")
    commands = re.findall(r"(?:manage\.py |\b(?=sms_))([a-z_]+)", guide)
    assert len(set(commands)) > 5 and set(commands) <= set(get_commands())
    known = (catalogue.PACKAGE / "conf.py").read_text(encoding="utf-8")
    settings = set(re.findall(r"SMSKA_[A-Z_]+", guide)) - {"SMSKA_API_KEY", "SMSKA_API_PASSWORD"}
    assert settings and all(name in known for name in settings)
