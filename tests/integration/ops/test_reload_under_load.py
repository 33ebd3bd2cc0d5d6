"""Does traffic notice that the configuration is rewritten under it? Two workers, a main file and an included one."""

import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import httpx

from tests.live import ADMIN_KEY, KEY, LiveGateway, config_text, eventually

TEAM_KEY = "sk-team-0123456789abcdef"
WORKERS = (1, 2)
FIRST = 500_000
"""Requests a minute; the texts that follow have one more each."""
MAIN = config_text(
    providers="  - {id: demo, kind: demo}",
    models="  - {name: m, targets: [{provider: demo, model: gpt-3.5-turbo}], free: true}",
    limits="{rateLimitMin: 500000, budgetDay: unlimited}",
    more="redis: {timeout: 10s}\ninclude: ['tenants.d/*.yaml']\n",
)
TEAM = f"tenants: [{{id: team, plan: pro, limits: {{rateLimitMin: 500000}}, apiKeys: [{TEAM_KEY}]}}]\n"
WRONG = 900_000
"""A limit that only files have which are not valid."""
Writing = Callable[[Path, str], None]


@attrs.define
class Written:
    """One of the two files: its limit says which text of it an answer goes by."""

    path: Path
    text: str
    key: str
    """Whose calls go by it."""
    generation: int = 0
    floor: int = 0
    """Every worker goes by this one, or by a newer one."""

    def next(self) -> str:
        self.generation += 1
        return self.text.replace(str(FIRST), str(FIRST + self.generation))


@attrs.define
class Traffic:
    """What callers met with: ``wrong`` is what they may not meet with."""

    url: str
    answers: int = 0
    wrong: list[str] = attrs.field(factory=list)
    met: set[tuple[str, int]] = attrs.field(factory=set)
    over: threading.Event = attrs.field(factory=threading.Event)

    def call(self, client: httpx.Client, key: str, file: Written, *, stream: bool) -> None:
        floor = file.floor
        body = {"model": "m", "max_tokens": 3, "stream": stream, "messages": [{"role": "user", "content": "hi"}]}
        headers = {"authorization": f"Bearer {key}"}
        answer = client.post(f"{self.url}/v1/chat/completions", json=body, headers=headers)
        whole = "data: [DONE]" in answer.text if stream else '"finish_reason"' in answer.text
        went_by = int(answer.headers.get("x-ratelimit-limit-requests", "0")) - FIRST
        self.answers += 1
        self.met.add((key, went_by))
        if answer.status_code != 200 or not whole or not floor <= went_by <= file.generation:
            self.wrong.append(f"{answer.status_code}, of {went_by} in {floor} to {file.generation}: {answer.text}")

    def flow(self, key: str, file: Written, *, stream: bool, fresh: bool) -> None:
        """Calls one after another; ``fresh``: each over a connection of its own, so that any worker may get it."""
        limits = httpx.Limits(max_keepalive_connections=0 if fresh else 10)
        with httpx.Client(timeout=60, limits=limits) as client:
            while not self.over.is_set():
                try:
                    self.call(client, key, file, stream=stream)
                except httpx.HTTPError as error:
                    self.wrong.append(repr(error))
                self.over.wait(0.01)


@contextmanager
def flowing(gateway: LiveGateway, main: Written, team: Written) -> Iterator[Traffic]:
    traffic = Traffic(gateway.url)
    with ThreadPoolExecutor(4) as callers:
        flows = [
            callers.submit(traffic.flow, key, file, stream=stream, fresh=fresh)
            for key, file in ((KEY, main), (TEAM_KEY, team))
            for stream, fresh in ((False, True), (True, False))
        ]
        try:
            yield traffic
        finally:
            traffic.over.set()
    assert [flow.exception() for flow in flows] == [None] * 4


def in_place(path: Path, text: str) -> None:
    path.write_text(text)


def renamed(path: Path, text: str) -> None:
    (path.parent / ".draft").write_text(text)
    (path.parent / ".draft").replace(path)


def in_halves(path: Path, text: str) -> None:
    """As a slow editor: the first half, which ends in the middle of a word, is there to be read."""
    half = text.index("rateLimitMin") + 4
    with path.open("w") as file:
        for part in (text[:half], text[half:]):
            file.write(part)
            file.flush()


def lines(gateway: LiveGateway, event: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gateway.log().splitlines() if f'"event":"{event}"' in line]


def reloads(gateway: LiveGateway) -> Counter[int]:
    """How often each worker has told that it took a new configuration over."""
    return Counter(line["worker"] for line in lines(gateway, "config_reloaded"))


def failures(gateway: LiveGateway) -> float:
    name = 'perpetuo_config_reloads_total{result="failure"} '
    return float(gateway.get("/metrics").text.partition(name)[2].partition("\n")[0] or 0)


def break_and_mend(gateway: LiveGateway, traffic: Traffic, file: Written, write: Writing) -> None:
    """A text that is not valid, which both workers see, and then the next one that is, which both take over."""
    before = failures(gateway)
    write(file.path, file.text.replace(str(FIRST), str(WRONG)) + "unheardOf: 1\n")
    eventually(lambda: failures(gateway) >= before + len(WORKERS))
    rewrite(gateway, traffic, file, write)


def rewrite(gateway: LiveGateway, traffic: Traffic, file: Written, write: Writing) -> None:
    """The next text; returns when both workers have taken it over, and a call has met it."""
    told = reloads(gateway)
    write(file.path, file.next())
    eventually(lambda: all(reloads(gateway)[worker] > told[worker] for worker in WORKERS))
    file.floor = file.generation
    eventually(lambda: (file.key, file.generation) in traffic.met)


def test_contract_traffic_does_not_notice_that_files_are_rewritten(redis_url: str, tmp_path: Path) -> None:
    """
    No call fails. Each goes by a text that was valid, and by no older one than all workers have taken over.

    Six texts of each file, written in three ways, and between them files that are not valid.
    """
    gateway = LiveGateway(MAIN, redis_url=redis_url, database_url=f"sqlite:///{tmp_path}/events.db", workers=2)
    team_path = gateway.directory / "tenants.d" / "team.yaml"
    team_path.parent.mkdir()
    team_path.write_text(TEAM)
    main, team = Written(gateway.config_path, MAIN, KEY), Written(team_path, TEAM, TEAM_KEY)
    with gateway, flowing(gateway, main, team) as traffic:
        pids = gateway.worker_pids()
        for write in (in_place, renamed, in_halves):
            for file, other in ((main, team), (team, main)):
                break_and_mend(gateway, traffic, file, write)
                rewrite(gateway, traffic, other, write)
        assert gateway.worker_pids() == pids
        eventually(lambda: "perpetuo_config_versions 1.0" in gateway.get("/metrics").text)
    assert traffic.wrong == []


def test_s6_a_worker_that_missed_a_version_takes_it_over_from_the_others(redis_url: str, tmp_path: Path) -> None:
    """Two changes, the second not valid, and a worker that was held up between them: it never saw the first."""
    main = MAIN.replace("include", "# include")
    database = f"sqlite:///{tmp_path}/events.db"
    with LiveGateway(main, redis_url=redis_url, database_url=database, workers=2) as gateway:
        ready = eventually(lambda: found if len(found := lines(gateway, "ready")) == 2 else None)
        late = next(line["pid"] for line in ready if line["worker"] == 2)
        os.kill(late, signal.SIGSTOP)
        try:
            gateway.config_path.write_text(main.replace(str(FIRST), str(FIRST + 1)))
            eventually(lambda: lines(gateway, "config_reloaded"))
            gateway.config_path.write_text("unheardOf: 1\n")
            eventually(lambda: lines(gateway, "config_rejected"))
        finally:
            os.kill(late, signal.SIGCONT)
        eventually(lambda: set(reloads(gateway)) == set(WORKERS))
        eventually(lambda: "perpetuo_config_versions 1.0" in gateway.get("/metrics").text)
        assert {gateway.chat().headers["x-ratelimit-limit-requests"] for _ in range(8)} == {str(FIRST + 1)}
        asked = {"authorization": f"Bearer {ADMIN_KEY}"}
        system = httpx.get(f"{gateway.url}/admin/api/system", headers=asked, timeout=30).json()
        assert system["config"]["versions"] == 1
        assert "unheardOf" in str(system["config"]["problems"])
