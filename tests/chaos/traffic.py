"""
The clients: one process, many threads, each with a part to play.

``python -m tests.chaos.traffic '{"seed": 1, "name": "a", "urls": […], "until": …, "history": …}'``

    tight     floods a tenant with a low rate
    short     several at once on a budget that is nearly used up
    keyed     idempotency keys, each tried by several clients at the same time and again later; some leave
    twin      the same keys and the same bodies as another tenant
    busy      plain and streamed calls without limits; some leave in the middle, some of odd models
    crowd     keys with limits of their own
    guest     a key that comes and goes
"""

import random
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import msgspec

from tests.chaos import stage, wire
from tests.chaos.history import Answered, Asked, Recorder

PARTS = (
    "tight", "short", "keyed", "twin", "busy", "crowd", "keyed", "busy", "short", "guest", "keyed", "crowd", "busy",
    "twin", "short", "keyed",
)  # fmt: skip
"""Of the threads of one process."""
SLOT = 0.5
"""Seconds for which all clients of a tenant use the same idempotency key."""
AGAIN, AGAIN_AFTER = 10, 1.2
"""How often a client with a key tries again when it has no answer yet, and after how many seconds: beyond a lease."""
BROKEN = frozenset({"reset", "cut", "left", "timeout"})
PAUSE = {"tight": 0.12, "guest": 0.5, "crowd": 0.2}


@attrs.frozen
class Orders:
    """What this process is told."""

    seed: int
    name: str
    urls: Sequence[str]
    until: float
    history: str


@attrs.frozen
class Wish:
    """One request before it is sent."""

    tenant: str
    key: str = "main"
    model: str = "m"
    said: str = ""
    """Empty: a canary of the tenant's and the request's own."""
    idem: str | None = None
    stream: bool = False
    limit: int = 20
    headers: dict[str, str] = attrs.field(factory=dict)
    leave: wire.Leave | None = None


Part = Callable[[random.Random], Wish]


def tight(draw: random.Random) -> Wish:
    return Wish("tight", stream=draw.random() < 0.3, limit=5)


def short(draw: random.Random) -> Wish:
    return Wish("short", stream=draw.random() < 0.5, limit=draw.choice((5, 20, 40)), model=draw.choice(("m", "s")))


def keyed(draw: random.Random, tenant: str = "keyed") -> Wish:
    """The key of this moment, or one of a little while ago; its number alone says what is asked."""
    number = int(time.time() / SLOT) - (draw.randrange(1, 60) if draw.random() < 0.4 else 0)
    model = ("m", "s", "m", "odd-1", "m", "odd-3")[number % 6]
    headers = {"prefer": "wait=4"} if draw.random() < 0.4 else {}
    return Wish(
        tenant, model=model, said=f"shared-{number}", idem=f"k{number}", stream=number % 2 == 0, headers=headers,
        leave=leaving(draw, 0.08),
    )  # fmt: skip


def leaving(draw: random.Random, chance: float) -> wire.Leave | None:
    if draw.random() >= chance:
        return None
    return wire.Leave(draw.choice((1, 300, 1_500)), draw.uniform(0.05, 1.0), draw.random() < 0.5)


def twin(draw: random.Random) -> Wish:
    return keyed(draw, "twin")


def busy(draw: random.Random) -> Wish:
    """Half of them streams; one in six leaves, one in ten is in a hurry."""
    model = draw.choice(("m", "m", "m", "s", *stage.BEHAVIOURS))
    headers = {"x-request-timeout-ms": "1500"} if draw.random() < 0.1 else {}
    return Wish("busy", model=model, stream=draw.random() < 0.5, limit=40, headers=headers, leave=leaving(draw, 0.17))


def crowd(draw: random.Random) -> Wish:
    return Wish("crowd", key=draw.choice("abc"), stream=draw.random() < 0.5, limit=10)


def guest(draw: random.Random) -> Wish:
    return Wish("busy", key=stage.GUEST, limit=draw.randrange(1, 10))


PLAY: dict[str, Part] = {
    "tight": tight, "short": short, "keyed": keyed, "twin": twin, "busy": busy, "crowd": crowd, "guest": guest,
}  # fmt: skip


class Client(threading.Thread):
    """Plays one part until the end."""

    def __init__(self, orders: Orders, number: int, recorder: Recorder) -> None:
        super().__init__(name=f"{orders.name}{number}")
        self._orders = orders
        self._part = PARTS[number % len(PARTS)]
        self._draw = random.Random(f"{orders.seed}/{self.name}")
        self._recorder = recorder
        self._sent = 0

    def run(self) -> None:
        while time.time() < self._orders.until:
            wish = PLAY[self._part](self._draw)
            answered = self._one(wish)
            for _ in range(AGAIN):
                if wish.idem is None or not (answered.code == "idempotency_in_progress" or answered.how in BROKEN):
                    break
                time.sleep(AGAIN_AFTER)
                answered = self._one(attrs.evolve(wish, leave=None))
            pause = 0.5 if answered.how == "refused" else PAUSE.get(self._part, 0.08)
            time.sleep(self._draw.uniform(0.2, 1.8) * pause)

    def _one(self, wish: Wish) -> Answered:
        self._sent += 1
        request = f"{self.name}-{self._sent}"
        gateway = self._draw.randrange(len(self._orders.urls))
        asked = Asked(
            id=request, at=time.time(), gateway=gateway, tenant=wish.tenant, key=wish.key, idem=wish.idem,
            said=wish.said or f"canary-{wish.tenant}-{request}", stream=wish.stream, leaves=wish.leave is not None,
        )  # fmt: skip
        self._recorder.invoke(asked)
        answered = wire.ask(self._orders.urls[gateway], asked, headers_of(wish), body_of(wish, asked), wish.leave)
        self._recorder.end(answered)
        return answered


def headers_of(wish: Wish) -> dict[str, str]:
    key = {} if wish.idem is None else {"x-idempotency-key": wish.idem}
    return {"authorization": f"Bearer {stage.api_key(wish.tenant, wish.key)}", **key, **wish.headers}


def body_of(wish: Wish, asked: Asked) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"{asked.said} and more words"}]
    return {"model": wish.model, "messages": messages, "max_tokens": wish.limit, "stream": wish.stream}


def main(text: str) -> None:
    orders = msgspec.json.decode(text, type=Orders)
    recorder = Recorder(Path(orders.history))
    clients = [Client(orders, number, recorder) for number in range(len(PARTS))]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    recorder.close()


if __name__ == "__main__":
    main(sys.argv[1])
