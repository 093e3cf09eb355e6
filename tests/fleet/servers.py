"""Redis, an S3 server (Ceph's radosgw) and RabbitMQ, each on a free port of the loopback."""

import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import redis

ACCESS_KEY, SECRET_KEY = "test", "testtest"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Wait for a condition; fails the test with what it waited for."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s} s for {what}"
        time.sleep(0.1)


class RedisServer:
    """Keeps nothing on disk: a restart begins empty."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.client = redis.Redis(port=self.port, socket_timeout=5)
        self.start()

    def start(self) -> None:
        command = ["redis-server", "--port", str(self.port), "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        until(self._answers, 10, "Redis")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.ConnectionError:
            return False


class CephServer:
    """One monitor, one storage daemon in memory, one radosgw."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self._mon_port = free_port(), free_port()
        self._tls_port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.tls_endpoint = f"https://127.0.0.1:{self._tls_port}"
        self.certificate = folder / "certificate.pem"
        self._processes: list[subprocess.Popen[bytes]] = []
        for name in ("mon", "osd", "rgw", "run"):
            (folder / name).mkdir(parents=True)
        self._configure()
        self._make_certificate()
        self._make_keys()
        self._start_cluster()
        self._start_gateway()

    def stop(self) -> None:
        for process in reversed(self._processes):
            process.kill()
            process.wait()

    def _configure(self) -> None:
        d, self._fsid = self.folder, str(uuid4())
        (d / "ceph.conf").write_text(
            f"""
[global]
fsid = {self._fsid}
mon host = v2:127.0.0.1:{self._mon_port}
public addr = 127.0.0.1
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = {d}/keyring
mon allow pool size one = true
mon warn on pool no redundancy = false
mon data avail crit = 1
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd objectstore = memstore
memstore device bytes = 4294967296
run dir = {d}/run
admin socket = {d}/run/$name.asok
log file = {d}/$name.log
[mon.a]
mon data = {d}/mon
[osd.0]
osd data = {d}/osd
[client.rgw.test]
rgw data = {d}/rgw
rgw frontends = beast endpoint=127.0.0.1:{self.port} ssl_endpoint=127.0.0.1:{self._tls_port} \
 ssl_certificate={d}/key-and-certificate.pem
rgw rados pool pg num min = 8
"""
        )

    def _make_certificate(self) -> None:
        key = self.folder / "key.pem"
        self._run(
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
            "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
            "-keyout", str(key), "-out", str(self.certificate),
        )  # fmt: skip
        both = key.read_text() + self.certificate.read_text()
        (self.folder / "key-and-certificate.pem").write_text(both)

    def _make_keys(self) -> None:
        keyring = str(self.folder / "keyring")
        for name, caps in {
            "mon.": {"mon": "allow *"},
            "client.admin": {"mon": "allow *", "osd": "allow *", "mgr": "allow *"},
            "osd.0": {"mon": "allow profile osd", "osd": "allow *"},
            "client.rgw.test": {"mon": "allow rw", "osd": "allow rwx"},
        }.items():
            arguments = [part for pair in caps.items() for part in ("--cap", *pair)]
            create = [] if Path(keyring).exists() else ["-C"]
            self._run("ceph-authtool", *create, keyring, "--gen-key", "-n", name, *arguments)

    def _start_cluster(self) -> None:
        d = self.folder
        self._run(
            "monmaptool", "--create", "--addv", "a", f"[v2:127.0.0.1:{self._mon_port}]",
            "--fsid", self._fsid, str(d / "monmap"),
        )  # fmt: skip
        monmap, keyring = str(d / "monmap"), str(d / "keyring")
        mon = ["ceph-mon", *self._conf, "-i", "a"]
        self._run(*mon, "--mkfs", "--monmap", monmap, "--keyring", keyring)
        self._spawn(*mon, "-f", "--public-addr", "127.0.0.1")
        osd, uuid = ["ceph-osd", *self._conf, "-i", "0"], str(uuid4())
        self._run("ceph", *self._conf, "--connect-timeout", "30", "osd", "new", uuid)
        self._run(*osd, "--mkfs", "--osd-uuid", uuid)
        self._spawn(*osd, "-f")

    def _start_gateway(self) -> None:
        self._spawn("radosgw", *self._conf, "-n", "client.rgw.test", "-f")
        until(self._answers, 90, "radosgw")
        self._run(
            "radosgw-admin", *self._conf, "-n", "client.rgw.test", "user", "create",
            "--uid=test", "--display-name=test",
            f"--access-key={ACCESS_KEY}", f"--secret-key={SECRET_KEY}",
        )  # fmt: skip

    @property
    def _conf(self) -> list[str]:
        return ["-c", str(self.folder / "ceph.conf")]

    def _run(self, *command: str) -> None:
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr.decode()}"

    def _spawn(self, *command: str) -> None:
        with (self.folder / f"{command[0]}.out").open("wb") as log:
            self._processes.append(subprocess.Popen(command, stdout=log, stderr=log))

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(self.endpoint, timeout=2):
                return True
        except OSError:
            return False


class RabbitServer:
    """A RabbitMQ node with a home of its own."""

    def __init__(self, folder: Path) -> None:
        self.port, port = free_port(), free_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}//"
        shutil.chown(folder, "rabbitmq") if os.geteuid() == 0 else None
        folder.chmod(0o777)
        self._environment = os.environ | {
            "HOME": str(folder),
            "RABBITMQ_NODENAME": f"test{self.port}@localhost",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(port),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "ERL_EPMD_PORT": str(free_port()),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }
        self._process = subprocess.Popen(
            ["/usr/lib/rabbitmq/bin/rabbitmq-server"],
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        until(self._answers, 60, "RabbitMQ")

    def stop(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        subprocess.run(["epmd", "-kill"], env=self._environment, capture_output=True, check=False)

    def _answers(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0
