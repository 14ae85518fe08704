"""Workers under a supervisor, and a broker, to be killed, stopped, added, taken away and started again."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from streams import broker
from streams.broker import Broker, free_port

SESSION_TIMEOUT = 6.0


class Fleet:
    """The workers, each with a state folder of its own, started again by a supervisor whenever one ends."""

    def __init__(self, folder: Path, flags: list[str], without: str) -> None:
        self.folder, self.flags, self.without = folder, flags, without
        self.wanted = 2
        self.running: dict[int, subprocess.Popen[bytes]] = {}
        self.stopped: set[int] = set()
        self.ended: list[int] = []
        self.lock = threading.Lock()
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self.supervise, name="supervisor")

    def start(self) -> None:
        self.thread.start()

    def spawn(self, number: int) -> None:
        command = [sys.executable, "-P", "-m", "tests.faulty_worker", self.without or "nothing", "worker"]
        state = ["--state", str(self.folder / f"state-{number}")]
        with (self.folder / f"worker-{number}.log").open("ab") as log:
            self.running[number] = subprocess.Popen(
                [*command, *self.flags, *state],
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
            )

    def supervise(self) -> None:
        while not self.ending.wait(0.2):
            with self.lock:
                for number in list(self.running):
                    code = self.running[number].poll()
                    if code is not None:
                        self.ended.append(code)
                        del self.running[number]
                for number in range(self.wanted):
                    if number not in self.running:
                        self.spawn(number)

    def pick(self, rng: random.Random) -> int | None:
        ready = [number for number in self.running if number not in self.stopped]
        return rng.choice(ready) if ready else None

    def kill(self, rng: random.Random) -> str:
        with self.lock:
            number = self.pick(rng)
            if number is None:
                return ""
            process = self.running.pop(number)
            process.kill()
            process.wait()
            # Now and then its disk is lost too.
            lost = rng.random() < 0.4
            if lost:
                shutil.rmtree(self.folder / f"state-{number}", ignore_errors=True)
        return f"kill -9 of worker {number}{', its disk lost' if lost else ''}"

    def stop(self, rng: random.Random) -> str:
        """SIGSTOP past the session timeout, and SIGCONT after: it wakes as a zombie that holds partitions of others."""
        with self.lock:
            number = self.pick(rng)
            if number is None:
                return ""
            process = self.running[number]
            self.stopped.add(number)
        process.send_signal(signal.SIGSTOP)
        time.sleep(SESSION_TIMEOUT + 3)
        process.send_signal(signal.SIGCONT)
        self.stopped.discard(number)
        return f"SIGSTOP of worker {number} for {SESSION_TIMEOUT + 3:.0f} s"

    def change(self, rng: random.Random) -> str:
        with self.lock:
            self.wanted = 3 if self.wanted == 2 else 2
            gone = self.running.pop(2, None) if self.wanted == 2 else None
        if gone is not None:
            gone.terminate()
            gone.wait(40)
        return f"{self.wanted} workers"

    def end(self) -> None:
        self.ending.set()
        self.thread.join()
        for process in self.running.values():
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in self.running.values():
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Kafka:
    """A broker that can be started again on its data."""

    def __init__(self, home: Path, data: Path) -> None:
        self.home, self.data, self.port = home, data, free_port()
        self.context = broker.kafka(home, self.port, data)
        self.running: Broker = self.context.__enter__()

    def restart(self) -> str:
        self.end()
        self.context = broker.kafka(self.home, self.port, self.data)
        self.running = self.context.__enter__()
        return "broker restarted"

    def end(self) -> None:
        self.context.__exit__(None, None, None)
