"""
Does a call cost the same with 10,000 tenants, four workers, a million events, a thousand streams?

``make bench-scale``, or ``python -m bench.scale [--part NAME …] [--filled URL]``. Each part keeps its figures in
``bench/out``; once all parts have some, ``bench/SCALE.md`` and ``bench/scale.png`` are written. Exit status 1 when a
bound is broken.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import attrs
import msgspec

from bench import machine
from bench.scale import admin, calls, reload, report, stage, streams
from bench.upstream import MissingToolError, Nginx, start_upstream
from tests import servers

PARTS = ("tenants", "workers", "rows", "reload", "streams", "admin")
OUT = Path(__file__).parents[1] / "out"


def measured(part: str, upstream: Nginx, stores: stage.Stores, filled: str | None) -> list[Any]:
    """The figures of one part."""
    match part:
        case "tenants":
            return calls.by_tenants(upstream, stores)
        case "workers":
            return calls.by_workers(upstream, stores)
        case "rows":
            return calls.by_rows(upstream, stores, filled or calls.filled_database(stores))
        case "reload":
            return [reload.measure(tenants, upstream, stores) for tenants in calls.TENANTS]
        case "streams":
            return streams.measure(stores)
    database = filled or calls.filled_database(stores)
    with stage.gateway(stage.config(calls.TENANTS[-1], upstream.port), stores.redis, database) as live:
        return admin.ask_all(live)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument("--part", action="append", choices=PARTS, help="only this one (again and again: these)")
    parser.add_argument("--filled", help="URL of a database that `bench.scale.fill` has filled before")
    asked = parser.parse_args()
    os.sched_setaffinity(0, {stage.OTHER_CORE})
    OUT.mkdir(exist_ok=True)
    machine.compile_gateway()
    try:
        upstream = start_upstream(servers.free_port())
    except MissingToolError as missing:
        print(missing, file=sys.stderr)
        return 2
    machine.pin(upstream.pid, stage.OTHER_CORE)
    try:
        with stage.stores() as stores:
            for part in asked.part or PARTS:
                found = measured(part, upstream, stores, asked.filled)
                text = msgspec.json.encode([attrs.asdict(one) for one in found])
                (OUT / f"scale-{part}.json").write_bytes(text)
                print(f"{part}: {len(found)} measured", flush=True)
    finally:
        upstream.close()
    figures = {part: OUT / f"scale-{part}.json" for part in PARTS}
    if not all(path.exists() for path in figures.values()):
        return 0
    return report.write({part: msgspec.json.decode(path.read_bytes()) for part, path in figures.items()})


if __name__ == "__main__":
    sys.exit(main())
