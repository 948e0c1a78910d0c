"""Events in structured JSON as CloudEvents' own conformance suite has them; its binary mode is not our wire.

Source: cloudevents/conformance, yaml/v1.yaml, yaml/v1.0/v1_minimum.yaml, features/kafka-protocol-binding.feature.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import orjson
import pytest

from shared.envelope import Envelope

REQUIRED = {"specversion": "1.0", "id": "0001", "source": "//cloudevents.example/conformance", "type": "a.minimum"}
GREETING = "Hello, 🌎!"


@pytest.mark.parametrize(
    ("media_type", "data"),
    [
        ("text/plain; charset=us-ascii", "Hello, World!"),
        ("text/plain; charset=utf-8", GREETING),
        ("application/json; charset=utf-8", GREETING),
        ("application/json; charset=utf-8", {"msg": GREETING}),
        ("application/json; charset=utf-8", ["Hello", "🌎!"]),
        ("application/xml; charset=utf-8", f"<msg>{GREETING}</msg>"),
    ],
)
def test_the_smallest_events_have_their_data(media_type: str, data: Any) -> None:
    found = Envelope.decode(orjson.dumps({**REQUIRED, "datacontenttype": media_type, "data": data}))
    assert (found.id, found.source, found.type) == (REQUIRED["id"], REQUIRED["source"], REQUIRED["type"])
    assert found.data == data


@pytest.mark.parametrize("binary", [False, True])
def test_an_event_with_extensions_of_others_has_its_attributes_and_its_data(*, binary: bool) -> None:
    data = {"world": "hello"}
    sent = {
        "specversion": "1.0",
        "type": "com.example.someevent",
        "time": "2018-04-05T03:56:24Z",
        "id": "4321-4321-4321",
        "source": "/mycontext/subcontext",
        "comexampleextension1": "value",
        "comexampleextension2": '{"othervalue": 5}',
        "datacontenttype": "application/json",
        **({"data_base64": b64encode(orjson.dumps(data)).decode()} if binary else {"data": data}),
    }
    found = Envelope.decode(orjson.dumps(sent))
    read = {name: getattr(found, name) for name in ("type", "time", "id", "source")}
    assert read == {name: sent[name] for name in read}
    assert found.data == data
