"""A SeaweedFS of a test's own: S3 and an Iceberg REST catalog on free ports, over one folder."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sysconfig
from pathlib import Path

KEYS = {"AWS_ACCESS_KEY_ID": "labkey", "AWS_SECRET_ACCESS_KEY": "labsecret"}


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def find_weed() -> str | None:
    """Return the server's program, if it is installed."""
    return shutil.which("weed", path=f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}")


class SeaweedFS:
    """``start`` and ``stop`` as often as wanted: what was stored in *folder* stays.

    It has a bucket ``lake`` and, for its catalog, a bucket of tables ``tables``.
    """

    def __init__(self, weed: str, folder: Path) -> None:
        master, volume, filer, self.s3, self.rest = free_ports(5)
        self._command = [
            weed,
            "mini",
            f"-dir={folder}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-bucket=lake",
            "-tableBucket=tables",
            "-webdav=false",
            "-admin.ui=false",
            "-s3.port.lance=0",
            f"-master.port={master}",
            f"-volume.port={volume}",
            f"-filer.port={filer}",
            f"-s3.port={self.s3}",
            f"-s3.port.iceberg={self.rest}",
        ]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_up(self) -> bool:
        """Whether both ports answer; it may need some seconds more before it takes writes."""
        return answers(self.rest) and answers(self.s3)

    @property
    def storage(self) -> dict[str, str]:
        """The properties with which a catalog reaches its buckets."""
        return {
            "s3.endpoint": f"http://127.0.0.1:{self.s3}",
            "s3.access-key-id": KEYS["AWS_ACCESS_KEY_ID"],
            "s3.secret-access-key": KEYS["AWS_SECRET_ACCESS_KEY"],
            "s3.region": "us-east-1",
        }

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._command,
            env=os.environ | KEYS,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def stop(self) -> None:
        """End it and wait for its end; stopping twice is fine."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None
