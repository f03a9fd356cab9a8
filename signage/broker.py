"""An MQTT broker as a child process: mosquitto when the machine has it, else amqtt. For the demo, tests, and one
machine.

Rules:

1. It has a port of its own (a free one unless told), a folder of its own, and listens on loopback only. What it
   retains is on disk (mosquitto), so that a restart of it forgets nothing.
2. **It never outlives us.** Between us and the broker stands a watcher process (`python -m signage.broker`) that holds
   one end of a pipe: when our end is gone, by whatever death, it reads the end of the file and stops the broker. The
   watcher itself asks Linux to kill the broker with it (`PR_SET_PDEATHSIG`). A plain `PR_SET_PDEATHSIG` from here
   would not do: it fires when the *thread* that forked ends, and trio starts processes in worker threads.
3. `start_broker` returns when the broker answers a connection, or raises `Refused("broker_unavailable")` with its last
   words.

amqtt speaks MQTT 3.1.1 only and is pure Python: right for hundreds of boards, not for ten thousand. A broker for
production is configured in `config/mosquitto.conf` and named in `signage.brokers`.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NoReturn

import trio

from fanout.errors import Refused

START_TIMEOUT_S: Final = 60.0  # a busy machine takes its time to load Python twice
STOP_TIMEOUT_S: Final = 3.0
_PR_SET_PDEATHSIG: Final = 1

MOSQUITTO_CONF: Final = """\
listener {port} 127.0.0.1
allow_anonymous true
persistence true
persistence_location {folder}/
autosave_interval 30
max_inflight_messages 2000
max_queued_messages 200000
set_tcp_nodelay true
log_dest stderr
log_type error
log_type warning
"""


class Broker:
    """A running broker. `address` is what `signage.brokers` takes, `kind` is `mosquitto` or `amqtt`,
    `protocol` what `signage.protocol` should be for it."""

    def __init__(self, kind: str, port: int, folder: Path, process: subprocess.Popen[bytes]) -> None:
        self.kind = kind
        self.port = port
        self.folder = folder
        self.process = process
        self.address = f"mqtt://127.0.0.1:{port}"
        self.protocol = "3.1.1" if kind == "amqtt" else "auto"

    def stop(self) -> None:
        """End it and wait until it has ended. Blocks up to `STOP_TIMEOUT_S`; harmless when it is gone already."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def find_mosquitto() -> str | None:
    """The path of mosquitto; Debian puts it where ordinary users' PATH does not look."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


def free_port() -> int:
    """A TCP port on loopback that nobody listens on, and that stays ours until this process ends.

    A socket of ours stays bound to it and does not listen. So the system gives it to nobody who asks for any port, as
    it might to another program before the server that it is meant for has started; that server can have it by its
    number, if it sets `SO_REUSEADDR`, as servers do.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    atexit.register(held.close)
    port: int = held.getsockname()[1]
    return port


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def start_broker(folder: Path, *, port: int = 0, kind: str = "auto") -> Broker:
    """Start a broker and wait until it answers. Blocking. `port` 0: a free one; `kind`: auto · mosquitto · amqtt."""
    assert kind in ("auto", "mosquitto", "amqtt")
    program = find_mosquitto() if kind != "amqtt" else None
    if program is None and kind == "mosquitto":
        raise Refused("broker_unavailable", address="mosquitto", detail="no mosquitto is installed on this machine")
    folder.mkdir(parents=True, exist_ok=True)
    if port and not _free(port):
        detail = "another program listens there; set signage.embedded_port to another port, or to 0"
        raise Refused("broker_unavailable", address=f"mqtt://127.0.0.1:{port}", detail=detail)
    port = port or free_port()
    log = folder / "broker.log"
    if program is not None:
        conf = folder / "broker.conf"
        text = MOSQUITTO_CONF.format(port=port, folder=folder)
        conf.write_text(text + ("user root\n" if os.geteuid() == 0 else ""))
        command = ["mosquitto", program, "-c", str(conf)]
    else:
        command = ["amqtt", str(port)]
    with log.open("wb") as words:
        process = subprocess.Popen(
            [sys.executable, "-m", "signage.broker", *command],
            stdin=subprocess.PIPE,
            stdout=words,
            stderr=words,
            start_new_session=True,  # Ctrl-C is for us; the broker ends after we said goodbye to it
        )
    broker = Broker(command[0], port, folder, process)
    if not _answers(port, process):
        broker.stop()
        last = log.read_text(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
        raise Refused("broker_unavailable", address=broker.address, detail=f"{broker.kind} did not start: {last[0]}")
    return broker


@asynccontextmanager
async def open_broker(folder: Path, *, port: int = 0, kind: str = "auto") -> AsyncIterator[Broker]:
    """`start_broker` for trio: started on entry, ended on exit, also when cancelled."""
    broker = await trio.to_thread.run_sync(lambda: start_broker(folder, port=port, kind=kind))
    try:
        yield broker
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(broker.stop)


def _answers(port: int, process: subprocess.Popen[bytes]) -> bool:
    """Whether something takes connections at the port before the time is over and while the process lives."""
    pause = threading.Event()
    for _ in range(int(START_TIMEOUT_S / 0.05)):
        if process.poll() is not None:
            return False
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=0.5):
            return True
        pause.wait(0.05)
    return False


# --- the watcher process ----------------------------------------------------------------------------------------------


def _die_with_parent() -> None:
    """In the broker's process, before it becomes mosquitto: Linux kills it when the watcher dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _watch_mosquitto(command: list[str]) -> int:
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_die_with_parent)

    def until_parent_is_gone() -> None:
        while os.read(0, 64):
            pass
        child.terminate()
        try:
            child.wait(STOP_TIMEOUT_S - 1.0)
        except subprocess.TimeoutExpired:
            child.kill()

    threading.Thread(target=until_parent_is_gone, daemon=True).start()
    return child.wait()


def _run_amqtt(port: int) -> NoReturn:
    from amqtt.broker import Broker as Amqtt

    def until_parent_is_gone() -> None:
        while os.read(0, 64):
            pass
        os._exit(0)

    threading.Thread(target=until_parent_is_gone, daemon=True).start()
    config = {
        "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}", "max_connections": 20_000}},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    }

    async def serve() -> None:
        broker = Amqtt(config)
        await broker.start()
        await asyncio.Event().wait()

    asyncio.run(serve())
    raise SystemExit(0)


def main(arguments: list[str]) -> int:
    """`mosquitto PROGRAM ARGUMENT…` or `amqtt PORT`; standard input is the pipe whose end ends everything."""
    if arguments[0] == "mosquitto":
        return _watch_mosquitto(arguments[1:])
    _run_amqtt(int(arguments[1]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
