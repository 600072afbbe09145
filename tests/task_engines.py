"""The task engines of the tests: how to configure each, and its worker in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from django.apps import apps
from django.contrib import admin
from django.db import connection

from django_smska.testing.gateway import closed_port

ROOT = Path(__file__).parent.parent
REDIS_DATABASES = 16  # as many as a Redis has unless it is configured otherwise


def redis_url():
    """Return ``REDIS_URL``, counted on for each further worker of pytest-xdist."""
    url = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/15")
    server, _, number = url.rpartition("/")
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return f"{server}/{(int(number) + worker) % REDIS_DATABASES}"


REDIS_URL = redis_url()


class Engine:
    """``command`` starts a worker; with ``hasty`` it ends when no task waits, with ``patient`` it
    waits for one task, and ends after that."""

    command = hasty = patient = ()
    name_option = ""

    def __init__(self, settings, gateway):
        self.settings, self.gateway, self.workers = settings, gateway, []
        self.apps = set(settings.INSTALLED_APPS)
        self.name = f"smska-{uuid.uuid4().hex}"
        self.configuration = {"SMSKA_TASKS": "default", **self.configure()}
        for name, value in self.configuration.items():
            setattr(settings, name, value)

    def start(self, *options):
        """Start a worker in a process of its own."""
        env = os.environ | {
            "DJANGO_SETTINGS_MODULE": "tests.task_settings",
            "SMSKA_DB": str(connection.settings_dict["NAME"]),
            "SMSKA_URL": self.gateway.url,
            "SMSKA_ENGINE": json.dumps(self.configuration),
        }
        command = [sys.executable, "-m", "django", *self.command, *(options or self.hasty)]
        command += [self.name_option, f"{self.name}-{len(self.workers)}"]
        self.workers.append(subprocess.Popen(command, env=env, cwd=ROOT))
        return self.workers[-1]

    def run(self, workers=1):
        """Run workers until nothing waits."""
        started = [self.start() for _ in range(workers)]
        assert [worker.wait(60) for worker in started] == [0] * workers

    def close(self):
        for worker in self.workers:
            if worker.poll() is None:
                self.kill(worker)
        leave_the_admin(self.apps)

    def kill(self, worker):
        worker.kill()
        worker.wait(30)


def leave_the_admin(usual):
    """Unregister the models of other apps, which the admin keeps after the app is removed."""
    for app in apps.get_app_configs():
        for model in app.get_models() if app.name not in usual else ():
            if admin.site.is_registered(model):
                admin.site.unregister(model)


class Database(Engine):
    """django-tasks-db."""

    command = ("db_worker", "--no-startup-delay", "--interval", "0.05")
    hasty = ("--batch",)
    patient = ("--max-tasks", "1")
    name_option = "--worker-id"

    def configure(self):
        pytest.importorskip("django_tasks_db")
        return {
            "INSTALLED_APPS": [*self.settings.INSTALLED_APPS, "django_tasks_db"],
            "TASKS": {"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}},
        }

    def __init__(self, settings, gateway):
        super().__init__(settings, gateway)
        from django_tasks_db.models import DBTaskResult

        self.model = DBTaskResult
        with connection.schema_editor() as editor:
            editor.create_model(self.model)

    def waiting(self):
        """Return the tasks that wait, as (function, arguments, time)."""
        rows = self.model.objects.filter(status="READY").order_by("enqueued_at")
        return [(row.task_path, row.args_kwargs["args"], _moment(row)) for row in rows]

    def let_time_come(self):
        self.model.objects.update(run_after=self.model.objects.first().enqueued_at)

    def lose(self):
        self.model.objects.all().delete()

    def go_away(self):
        with connection.schema_editor() as editor:
            editor.delete_model(self.model)

    def close(self):
        super().close()
        if self.model._meta.db_table in connection.introspection.table_names():
            self.go_away()


def _moment(row):
    return row.run_after if row.run_after.year < 9999 else None


class RedisQueue(Engine):
    """django-tasks-rq, in a queue of its own, so that nothing else in that Redis is touched."""

    hasty = ("--burst",)
    patient = ("--max-jobs", "1", "--with-scheduler")
    name_option = "--name"

    def configure(self):
        pytest.importorskip("django_tasks_rq")
        require_redis()
        self.command = ("rqworker", self.name, "--job-class", "django_tasks_rq.Job")
        return {
            "INSTALLED_APPS": [*self.settings.INSTALLED_APPS, "django_rq", "django_tasks_rq"],
            "TASKS": {"default": {"BACKEND": "django_tasks_rq.RQBackend", "QUEUES": [self.name]}},
            "RQ_QUEUES": self.queues(REDIS_URL),
        }

    def queues(self, url):
        return {name: {"URL": url} for name in ("default", self.name)}

    @property
    def queue(self):
        import django_rq
        from django_tasks_rq import Job

        return django_rq.get_queue(self.name, job_class=Job)

    def waiting(self):
        queue, later = self.queue, self.queue.scheduled_job_registry
        jobs = [(job, None) for job in queue.jobs]
        for job in map(queue.fetch_job, later.get_job_ids()):
            jobs.append((job, later.get_scheduled_time(job)))
        return [(job.func_name, list(job.args), moment) for job, moment in jobs]

    def let_time_come(self):
        queue = self.queue
        for key in queue.scheduled_job_registry.get_job_ids():
            queue.scheduled_job_registry.remove(key)
            queue.enqueue_job(queue.fetch_job(key))

    def lose(self):
        self.queue.empty()

    def go_away(self):
        with closed_port() as port:
            self.settings.RQ_QUEUES = self.queues(f"redis://:password@127.0.0.1:{port}/0")

    def kill(self, worker):
        """Kill first the process that it made for the task. Stopped, it makes no other."""
        worker.send_signal(signal.SIGSTOP)
        for line in subprocess.check_output(["ps", "-eo", "pid=,ppid="], text=True).splitlines():
            pid, parent = map(int, line.split())
            if parent == worker.pid:
                os.kill(pid, signal.SIGKILL)
        super().kill(worker)

    def close(self):
        super().close()
        self.settings.RQ_QUEUES = self.queues(REDIS_URL)
        queue, redis = self.queue, self.queue.connection
        delete_jobs(queue)
        for key in redis.scan_iter(f"*{self.name}*", count=1000):
            redis.delete(key)
            redis.srem("rq:workers", key)


def delete_jobs(queue):
    """Delete the queue of RQ with its jobs, wherever they are."""
    for name in ("scheduled", "started", "finished", "failed"):
        registry = getattr(queue, f"{name}_job_registry")
        for key in registry.get_job_ids(cleanup=False):
            queue.fetch_job(key).delete()
    queue.delete(delete_jobs=True)


def require_redis():
    """Skip without a Redis; fail where ``SMSKA_REQUIRE_REDIS`` is 1, as in CI."""
    import redis

    try:
        with redis.Redis.from_url(REDIS_URL, socket_connect_timeout=2) as server:
            server.ping()
    except redis.RedisError as error:
        why = f"no Redis at REDIS_URL ({type(error).__name__})"
        if os.environ.get("SMSKA_REQUIRE_REDIS") == "1":
            pytest.fail(why)
        pytest.skip(why)
