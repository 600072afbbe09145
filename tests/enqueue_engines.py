"""Task engines by ``SMSKA_ENQUEUE``: the recipes of the guide as a project's module, and workers in
processes of their own."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from importlib import import_module

from django.apps import apps
from django.db import connection
from django.utils import timezone

from .documents import block_with
from .packages import package
from .task_engines import REDIS_URL, ROOT, delete_jobs, leave_the_admin, require_redis

GUIDE = "howto/task-engines"


class Project:
    """A project that runs the engine: a module with the recipe, and settings.

    ``needs`` are packages, ``words`` choose the recipe, ``command`` starts a worker.
    """

    needs = ()
    words = header = ""

    def __init__(self, settings, gateway, folder, monkeypatch):
        for name in self.needs:
            package(name)
        require_redis()
        self.settings, self.gateway, self.folder, self.workers = settings, gateway, folder, []
        self.apps = set(settings.INSTALLED_APPS)
        self.name = f"smska{uuid.uuid4().hex}"
        self.write(self.name, self.header + block_with(GUIDE, self.words))
        monkeypatch.syspath_prepend(folder)
        self.configuration = {
            "SMSKA_ENQUEUE": f"{self.name}.enqueue_sms",
            **self.configure(REDIS_URL),
        }
        self.apply(self.configuration)
        self.prepare()

    def apply(self, configuration):
        for name, value in configuration.items():
            setattr(self.settings, name, value)

    def configure(self, url):
        """Return the settings, with the broker there."""
        return {}

    def let_time_come(self):
        """Wait for nothing: its workers look at times every second."""

    def prepare(self):
        """Do what this process needs before it gives the engine anything."""

    def write(self, name, source):
        (self.folder / f"{name}.py").write_text(source, encoding="utf-8")

    def start(self):
        env = os.environ | {
            "DJANGO_SETTINGS_MODULE": "tests.task_settings",
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT, self.folder))),
            "SMSKA_DB": str(connection.settings_dict["NAME"]),
            "SMSKA_URL": self.gateway.url,
            "SMSKA_ENGINE": json.dumps(self.configuration),
        }
        command = [sys.executable, "-m", *self.command()]
        # In a session of its own, so that its processes can be ended together.
        worker = subprocess.Popen(command, env=env, cwd=ROOT, start_new_session=True)
        self.workers.append(worker)
        return worker

    def kill(self, worker):
        """Kill the worker with all of its processes."""
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait(30)

    def close(self):
        for worker in self.workers:
            if worker.poll() is None:
                self.kill(worker)
        self.clean_up()
        leave_the_admin(self.apps)
        self.delete_keys()

    def clean_up(self):
        """Undo what ``prepare`` did."""

    def delete_keys(self):
        import redis

        with redis.Redis.from_url(REDIS_URL) as server:
            for key in server.scan_iter(f"*{self.name}*", count=1000):
                server.delete(key)


class Celery(Project):
    needs = ("celery", "redis")
    words = "send_queued_sms.apply_async"
    app = """
from celery import Celery

app = Celery("{name}", broker="{url}", include=["{name}"], set_as_current=False)
app.conf.update(
    task_default_queue="{name}",
    broker_transport_options={{"global_keyprefix": "{name}:"}},
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
)
app.set_default()
"""

    def command(self):
        quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "WARNING")
        return (
            "celery",
            "-A",
            f"{self.name}_app",
            "worker",
            "--pool",
            "prefork",
            "-c",
            "1",
            *quiet,
        )

    def prepare(self):
        self.broker_at(REDIS_URL)

    def broker_at(self, url):
        name = f"{self.name}_app"
        self.write(name, self.app.format(name=self.name, url=url))
        self.celery = import_module(name).app

    def go_away(self, url):
        self.celery.conf.broker_url = self.celery.conf.broker_write_url = url

    def clean_up(self):
        self.celery.pool.force_close_all()
        self.celery.close()


class Huey(Project):
    needs = ("huey", "redis")
    words = "crontab"

    def command(self):
        return ("django", "run_huey", "--no-periodic", "--workers", "2", "--delay", "0.1")

    def configure(self, url):
        return {
            "SMSKA_ENQUEUE": f"{self.name}.tasks.enqueue_sms",
            "INSTALLED_APPS": [*self.settings.INSTALLED_APPS, "huey.contrib.djhuey", self.name],
            "HUEY": {
                "huey_class": "huey.RedisHuey",
                "name": self.name,
                "url": url,
                "immediate": False,
            },
        }

    def write(self, name, source):
        """Make an app of it, whose tasks the consumer finds."""
        (self.folder / name).mkdir()
        (self.folder / name / "tasks.py").write_text(source, encoding="utf-8")
        (self.folder / name / "__init__.py").touch()

    def prepare(self):
        for name in [name for name in sys.modules if name.startswith("huey.contrib.djhuey")]:
            del sys.modules[name]

    @property
    def huey(self):
        return import_module("huey.contrib.djhuey").HUEY

    def go_away(self, url):
        import redis

        self.huey.storage.conn.close()
        self.huey.storage.conn = redis.Redis.from_url(url)

    def clean_up(self):
        self.huey.storage.conn.close()


class Rq(Project):
    needs = ("django_rq", "rq", "redis")
    words = "import django_rq"

    def command(self):
        return ("django", "rqworker", self.name, "--with-scheduler", "--name", self.name)

    def write(self, name, source):
        super().write(name, source.replace('"default"', f'"{name}"'))

    def configure(self, url):
        return {
            "INSTALLED_APPS": [*self.settings.INSTALLED_APPS, "django_rq"],
            "RQ_QUEUES": {self.name: {"URL": url}, "default": {"URL": url}},
        }

    def clean_up(self):
        import django_rq

        queue = django_rq.get_queue(self.name)
        delete_jobs(queue)
        for key in queue.connection.scan_iter(f"*{self.name}*", count=1000):
            queue.connection.srem("rq:workers", key)


class Dramatiq(Project):
    needs = ("dramatiq", "redis")
    words = "@dramatiq.actor"
    header = """
import django
import dramatiq
from django.apps import apps
from dramatiq.brokers.redis import RedisBroker

if not apps.ready:
    django.setup()
dramatiq.set_broker(RedisBroker(url="{url}", namespace=__name__))

"""

    def write(self, name, source):
        super().write(name, source.replace("{url}", REDIS_URL))

    def command(self):
        return ("dramatiq", self.name, "--processes", "1", "--threads", "2")

    def clean_up(self):
        import dramatiq

        dramatiq.get_broker().client.close()


class DjangoQ(Project):
    needs = ("django_q", "redis")
    words = "async_task("

    def command(self):
        return ("django", "qcluster")

    def configure(self, url):
        return {
            "Q_CLUSTER": {
                "name": self.name,
                "redis": url,
                "workers": 1,
                "timeout": 200,
                "retry": 300,
            },
            "INSTALLED_APPS": [*self.settings.INSTALLED_APPS, "django_q"],
        }

    def prepare(self):
        for name in [name for name in sys.modules if name.startswith("django_q")]:
            if not name.startswith("django_q.models") and not name.startswith("django_q.migr"):
                del sys.modules[name]
        self.models = [apps.get_model("django_q", name) for name in ("Schedule", "Task", "OrmQ")]
        with connection.schema_editor() as editor:
            for model in self.models:
                editor.create_model(model)

    def let_time_come(self):
        """Do what the cluster does every 30 seconds."""
        self.models[0].objects.update(next_run=timezone.now())
        import_module("django_q.scheduler").scheduler()

    def clean_up(self):
        with connection.schema_editor() as editor:
            for model in reversed(self.models):
                editor.delete_model(model)


def until(condition, seconds=60):
    """Wait until the condition holds; return whether it does."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True
