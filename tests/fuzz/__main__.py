"""
``python -m tests.fuzz --seconds 60``: look for bytes that break a promise of the transport (`tests.fuzz.scene`).

Coverage leads the way: that of the transport, that of h11, which reads the same bytes and branches where llhttp does
(whose own branches can't be seen), and one landmark for each reason a call ended with. What was found stays in
``var/fuzz-transport``; ``--keep`` boils it down and writes it to ``corpus.txt``. A failing input is shown as a line for
``tests/unit/transport/test_fuzzed.py``.
"""

import argparse
import random
import re
import shutil
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

from tests.fuzz import corpus
from tests.fuzz.plays import PIECES, PLAYS

ROOT = Path(__file__).parents[2]
PLACE = ROOT / "var" / "fuzz-transport"
WORDS = (
    "HTTP/1.1 200 OK\r\n", "HTTP/1.0 200 OK\r\n", "HTTP/1.1 103 E\r\n", "HTTP/1.1 204 N\r\n", " 304 ", "\r\n\r\n",
    "content-length: ", "transfer-encoding: chunked\r\n", "connection: close\r\n", "connection: keep-alive\r\n",
    "keep-alive: timeout=", "content-encoding: ", "identity", "upgrade: x\r\n", "0\r\n\r\n", "1\r\na\r\n", ";", ",",
    "\xff|", "\xff~", "\xffe", "\xffx", "\xffr", "\xffw", "\xffn\x00", "\xffn\x01", "\xffn\x0c", "\xffn\x10",
    "\xffc\x00", "\r\n",
    "\xffc\x01", "\xffa\x00", "\xffk\x00", "\xfft\x00", "\xfft\x02", "\xfft\x03", "\xfff\x00", "\xfff\x01",
    "\xffb\x00", "\xffb\x03", "\xffba", "content-length: 65536\r\n", "\xffz",
)  # fmt: skip


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    options.add_argument("--seconds", type=int, default=60)
    options.add_argument("--keep", action="store_true", help="write what was found to corpus.txt")
    options.add_argument("--inside", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.inside is not None:
        return inside(given.inside)
    found = PLACE / "corpus"
    corpus.unpack(found, [*corpus.load(), *(play for play in PLAYS.values() if len(play) < 1000)])
    for old in failing():
        old.unlink()
    (PLACE / "words").write_text("".join(f'"{_escaped(word)}"\n' for word in WORDS))
    ending = fuzzer(f"-max_total_time={given.seconds}", f"-dict={PLACE / 'words'}", str(found))
    for file in failing():
        print(f"{file.name} as a line: {corpus.as_line(file.read_bytes())}")
    if ending == 0 and given.keep:
        keep(found)
    return ending


def failing() -> list[Path]:
    """Inputs that broke a promise, or took too long."""
    return sorted(PLACE.glob("[a-z]*-[0-9a-f]*"))


def _escaped(word: str) -> str:
    return "".join(f"\\x{ord(character):02x}" for character in word)


def fuzzer(*arguments: str) -> int:
    """libFuzzer ends its process, so it gets one of its own."""
    limits = ("-max_len=4096", "-timeout=20", "-rss_limit_mb=1500", "-verbosity=1", f"-artifact_prefix={PLACE}/")
    return subprocess.run((sys.executable, "-m", "tests.fuzz", "--inside", *limits, *arguments), check=False).returncode


def keep(found: Path) -> None:
    """What adds nothing is left out."""
    small = PLACE / "small"
    shutil.rmtree(small, ignore_errors=True)
    small.mkdir()
    if fuzzer("-set_cover_merge=1", str(small), str(found)) == 0:
        shutil.rmtree(found)
        shutil.move(small, found)
        print(f"{corpus.pack(found)} inputs in {corpus.LINES.relative_to(ROOT)}")


def inside(arguments: list[str]) -> int:
    """The process that fuzzes; it does not return."""
    import atheris  # installed by `make fuzz-transport` only

    with atheris.instrument_imports(include=["h11", "perpetuo.adapters.providers.transport"]):
        from tests.fuzz.scene import play  # instrumented as it is imported

    marks = [atheris.instrument_func(mark) for mark in landmarks()]

    def one(data: bytes) -> None:
        for call in play(data):
            reason = "" if call.failure is None else call.failure.text[:60]
            marks[zlib.crc32(f"{call.status // 100} {call.whole} {reason}".encode()) % len(marks)]()

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        dice = random.Random(seed)
        return atheris.Mutate(data, most) if dice.random() < 0.6 else rearranged(data, dice)[:most]

    print(f"began at {time.strftime('%H:%M:%S', time.gmtime())} UTC", flush=True)
    atheris.Setup([str(itself()), *arguments], one, custom_mutator=mutate)
    atheris.Fuzz()
    return 0


def rearranged(data: bytes, dice: random.Random) -> bytes:
    """A play with another piece in it, or one less: bytes alone rarely make a second good answer."""
    parts = re.split(rb"(?=\xff[a-z|~])|(?=HTTP/1\.1 [1-5]\d\d )", data)
    at = dice.randrange(len(parts))
    piece = dice.choice(PIECES) if dice.random() < 0.7 else bytes((0xFF, dice.choice(b"ncaktfb"), dice.randrange(40)))
    match dice.randrange(4):
        case 0:
            parts[at] = piece
        case 1 if len(parts) > 1:
            del parts[at]
        case 2:
            parts.insert(dice.randrange(len(parts) + 1), parts[at])
        case _:
            parts.insert(at + 1, piece)
    return b"".join(parts)


def itself() -> Path:
    """A command that does what this process does: merging, libFuzzer runs itself again."""
    script = PLACE / "fuzz.sh"
    script.write_text(f'#!/bin/sh\ncd "{ROOT}" && exec "{sys.executable}" -m tests.fuzz --inside "$@"\n')
    script.chmod(0o755)
    return script


def landmarks() -> list[Callable[[], None]]:
    """Functions that do nothing, each with a place of its own that the fuzzer sees reached."""
    space: dict[str, Callable[[], None]] = {}
    exec("\n".join(f"def mark_{number}(): pass" for number in range(256)), space)  # noqa: S102
    return [space[f"mark_{number}"] for number in range(256)]


if __name__ == "__main__":
    sys.exit(main())
