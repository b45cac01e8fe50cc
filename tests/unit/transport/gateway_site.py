"""What tests of the gateway share: a receiver in a thread, a wire that can be cut and bent, contents."""

import contextlib
import random
import socket
import threading
from pathlib import Path

from keystrand.testing.keyfolder import KeyFolder
from keystrand.testing.patience import wait_until
from keystrand.transport.gateway.inbox import PARTS, Inbox
from keystrand.transport.gateway.ports import GatewayLimits
from keystrand.transport.gateway.receiver import Receiver
from keystrand.transport.gateway.sender import send

QUICK = GatewayLimits(
    chunk_bytes=1 << 16,
    checkpoint_bytes=1 << 18,
    idle_s=20.0,
    beat_s=0.1,
    key_wait_s=2.0,
    reconnect_s=3.0,
    opening_s=20.0,
)


OPENED = []  # how to close what the test at hand has opened


def close_all():
    while OPENED:
        OPENED.pop()()


class Site:
    """A receiver in a thread, and what it told."""

    def __init__(
        self,
        tmp_path: Path,
        *,
        limits=QUICK,
        keys=None,
        destination=None,
        senders=("sae-a",),
        port=0,
        pads=None,
        **options,
    ):
        self.folder = tmp_path / "keys"
        self.folder.mkdir(exist_ok=True)
        self.inbox = tmp_path / "inbox"
        self.reports, self.faults, self.progress = [], [], []
        self.receiver = Receiver(
            ("127.0.0.1", port),
            keys=keys or KeyFolder(self.folder, "sae-b"),
            me="sae-b",
            senders=senders,
            destination=destination or Inbox(self.inbox, checkpoint_bytes=limits.checkpoint_bytes, **options),
            pads=pads or {},
            limits=limits,
            report=self.progress.append,
            done=self.reports.append,
            failed=self.faults.append,
        )
        self.port = self.receiver.port
        self.thread = threading.Thread(target=self.receiver.serve_forever)
        self.thread.start()
        OPENED.append(self.close)

    def close(self):
        self.receiver.stop()
        self.thread.join()

    def send(self, source, *, keys=None, port=None, **options):
        options.setdefault("limits", QUICK)
        options.setdefault("rotate_bytes", 1 << 18)
        return send(
            source,
            keys=keys or KeyFolder(self.folder, "sae-a"),
            connect=("127.0.0.1", port or self.port),
            from_sae="sae-a",
            to_sae="sae-b",
            **options,
        )

    def parts(self):
        return sorted(path.name for path in (self.inbox / PARTS).glob("*.part"))


FRAME = QUICK.chunk_bytes


def content(tmp_path, size_bytes, name="report.bin"):
    path = tmp_path / name
    path.write_bytes(random.Random(size_bytes).randbytes(size_bytes))
    return path


def until(told):
    """The first item of a list that another thread fills."""
    wait_until(lambda: told)
    return told[0]


class Middle:
    """A wire that can be cut, bent and recorded: `cut_after` bytes of each connection, in turn."""

    def __init__(self, port, *, cuts=(), bend=None):
        self._port = port
        self._cuts = list(cuts)
        self._bend = bend
        self.recorded = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._accepting = threading.Thread(target=self._run)
        self._accepting.start()
        OPENED.append(self.close)

    def close(self):
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)  # close() alone does not wake who accepts
        self._accepting.join()
        self._server.close()

    def _run(self):
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._port))
            except OSError:  # the site was stopped
                near.close()
                continue
            cut = self._cuts.pop(0) if self._cuts else None
            threading.Thread(target=self._back, args=(far, near), daemon=True).start()
            threading.Thread(target=self._forth, args=(near, far, cut), daemon=True).start()

    def _forth(self, near, far, cut):
        sent, kept = 0, bytearray()
        self.recorded.append(kept)
        while data := near.recv(65536 if cut is None else max(1, min(65536, cut - sent))):
            if self._bend is not None and sent <= self._bend < sent + len(data):
                data = bytearray(data)
                data[self._bend - sent] ^= 0x10
            kept += data
            far.sendall(data)
            sent += len(data)
            if cut is not None and sent >= cut:
                break
        for end in (near, far) if cut is not None else ():
            with contextlib.suppress(OSError):  # gone already
                end.shutdown(socket.SHUT_RDWR)
        far.close()

    @staticmethod
    def _back(far, near):
        try:
            while data := far.recv(65536):
                near.sendall(data)
            near.shutdown(socket.SHUT_WR)
        except OSError:
            pass
