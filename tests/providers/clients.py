"""The vendors' own clients, driven with the content of a request of ours.

clients.py KIND URL CA: the content comes as JSON on standard input. What they send, the fake keeps.
"""

import json
import ssl
import sys

kind, url, ca = sys.argv[1:4]
content = json.load(sys.stdin)


def pagerduty():
    from pagerduty import EventsApiV2Client

    context = ssl.create_default_context(cafile=ca)
    client = EventsApiV2Client(content["routing_key"], base_url=url, verify=context)
    if content["event_action"] == "resolve":
        return client.resolve(content["dedup_key"])
    payload = dict(content["payload"])
    named = {name: payload.pop(name) for name in ("summary", "source", "severity", "custom_details")}
    return client.trigger(
        dedup_key=content["dedup_key"], payload=payload, links=content.get("links"), **named
    )


def slack():
    from slack_sdk.webhook import WebhookClient

    answer = WebhookClient(url).send(text=content["text"])
    assert (answer.status_code, answer.body) == (200, "ok"), answer.body
    return answer.body


def twilio():
    from twilio.rest import Client

    client = Client(content.pop("account_sid"), content.pop("auth_token"))
    client.api.base_url = url
    names = {"To": "to", "From": "from_", "MessagingServiceSid": "messaging_service_sid", "Body": "body"}
    return client.messages.create(**{names[name]: value for name, value in content.items()}).sid


def standardwebhooks():
    from standardwebhooks import Webhook, WebhookVerificationError

    headers, body = content["headers"], content["body"]
    told = [Webhook(secret).verify(body, headers) for secret in content["secrets"]]
    for wrong in ({**headers, "webhook-id": "other"}, {**headers, "webhook-timestamp": "1"}):
        try:
            Webhook(content["secrets"][0]).verify(body, wrong)
        except WebhookVerificationError:
            continue
        raise AssertionError("verified what was not signed")
    return told[0]["type"]


print(json.dumps({"said": globals()[kind]()}))
