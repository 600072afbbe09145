"""What ``send_sms`` costs a view above a bare ``requests.post``, over the same gateway.

Both send in turns, and the median of the pairs' differences counts.
"""

from __future__ import annotations

import statistics

import common
from sending import NUMBER, CountQueries

LIMITS = {"sqlite": (2.0, 5), "postgresql": (4.0, 5), "mysql": (4.0, 5)}  # ms and queries


def main(number: int, gateway: common.Gateway) -> None:
    import requests
    from django.db import connection

    from django_smska.models import SmsMessage
    from django_smska.sms import send_sms

    form = {"APIKey": "test", "APIPassword": "test", "SenderID": "Test"}
    form |= {"MSISDN": NUMBER, "Message": "a text"}

    def bare() -> None:
        requests.post(gateway.url, data=form, timeout=30)

    def ours() -> None:
        send_sms(f"+{NUMBER}", "a text")

    bares, sends = [], []
    ours()  # warm
    with CountQueries(connection) as counted:
        for _ in range(number):
            bares.append(common.seconds(bare) * 1000)
            sends.append(common.seconds(ours) * 1000)
    assert SmsMessage.objects.filter(status="sent").count() == number + 1
    more = statistics.median(one - other for one, other in zip(sends, bares, strict=True))
    most, most_queries = LIMITS[connection.vendor]
    common.table(
        f"One message, {number} times",
        ["requests.post", "send_sms", "difference in ms", "queries"],
        [
            [
                f"{statistics.median(bares):.2f} ms",
                f"{statistics.median(sends):.2f} ms",
                common.verdict(more, most, at_least=False),
                common.verdict(counted.number / number, most_queries, at_least=False),
            ]
        ],
    )


if __name__ == "__main__":
    options = common.arguments(number=1000)
    with common.database(), common.Gateway(0) as gateway:
        common.use(gateway)
        main(options.number, gateway)
