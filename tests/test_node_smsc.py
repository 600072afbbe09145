"""An independent client of SMSC.ru, node-smsc, against our stand-in and beside our backend.

Without Node.js or the package's registry these tests skip and say so; ``SMSKA_REQUIRE_NODE``
forbids that. ``NODE_PATH`` may name a folder that has the package already.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest

from .counterparts.smsc import LOGIN, PASSWORD, Smsc
from .test_contract import make, message

PACKAGE = "node-smsc@0.2.3"
SCRIPT = """
const smsc = require('node-smsc')
const [request, login, password, calls] = process.argv.slice(2)
const api = smsc({request, login, password})
const results = []
async function all() {
  for (const [name, query] of JSON.parse(calls)) {
    try {
      results.push(await api[name](query))
    } catch (error) {
      if (!error.response) throw error
      results.push({refused: error.response.error_code})
    }
  }
  console.log(JSON.stringify(results))
}
all().catch(error => { console.error(error); process.exit(1) })
"""

pytestmark = pytest.mark.slow


def missing(why):
    if os.environ.get("SMSKA_REQUIRE_NODE"):
        pytest.fail(f"{why}, and SMSKA_REQUIRE_NODE is set")
    pytest.skip(why)


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """Return a function that runs calls of the client, and returns what each one resolved to."""
    if not shutil.which("node"):
        missing("Node.js is not installed")
    folder = tmp_path_factory.mktemp("node")
    script = folder / "calls.js"
    script.write_text(SCRIPT)
    if not can_require(folder):
        install(folder)

    def call(account, *calls, password=PASSWORD):
        arguments = [f"{account.url}/sys/", LOGIN, password, json.dumps(calls)]
        return json.loads(run("node", "--no-deprecation", str(script), *arguments, folder=folder))

    return call


def can_require(folder):
    found = subprocess.run(
        ["node", "-e", "require('node-smsc')"], cwd=folder, capture_output=True, timeout=60
    )
    return found.returncode == 0


def install(folder):
    if not shutil.which("npm"):
        missing("npm is not installed")
    options = ["--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder)]
    try:
        subprocess.run(
            ["npm", "install", *options, PACKAGE],
            cwd=folder,
            check=True,
            capture_output=True,
            timeout=120,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        missing(f"npm could not install {PACKAGE}")


def run(*command, folder):
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.fixture
def account():
    with Smsc() as account:
        yield account


def test_it_sends_and_asks_as_our_backend_does(node, account):
    text = "Заказ № 17 готов & ждёт: 100% + 1; 🙂"
    fields = {"phones": "79041764981", "mes": text, "cost": 3, "sender": "Shop", "id": "order-17"}
    sent, status, balance = node(
        account,
        ["send", fields],
        ["status", {"phone": "79041764981", "id": "order-17", "fmt": 3}],
        ["balance", {"fmt": 3}],
    )
    one = message(text, reference="order-17")
    receipt = make(account).send_message(one)
    theirs, ours = account.accepted
    assert theirs == ours
    assert sent == {"id": "order-17", "cnt": 1, "cost": "2.5", "balance": "97.50"}
    assert receipt.gateway_id == sent["id"] and str(receipt.price) == sent["cost"]
    assert status["status"] == 0 and balance == {"balance": "97.50"}


def test_it_reads_the_refusals_as_our_backend_does(node, account):
    good = {"phones": "79041764981", "mes": "text"}
    results = node(account, ["send", {**good, "phones": "none"}], ["send", {"phones": "79"}])
    assert results == [{"refused": 7}, {"refused": 1}]
    assert node(account, ["send", good], password="another") == [{"refused": 2}]
    assert account.accepted == []


def test_it_finds_nothing_that_was_not_sent(node, account):
    (status,) = node(account, ["status", {"phone": "79041764981", "id": "no", "fmt": 3}])
    assert status == {"status": -3}
    assert make(account).find(message()) is None
