"""A real Slurm of two nodes on this machine, for as long as a test needs it."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "squeue")


def missing() -> list[str]:
    """The programs of Slurm and munge that this machine lacks."""
    path = "/usr/sbin:/usr/bin:/sbin:/bin"
    return [name for name in PROGRAMS if shutil.which(name) is None and shutil.which(name, path=path) is None]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Slurm:
    """Use as a context manager; `run` calls Slurm's commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.conf = folder / "slurm.conf"
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "Slurm":
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes):
            process.terminate()
        for process in reversed(self._processes):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def run(self, *command: str) -> str:
        result = subprocess.run(
            command, cwd=self.folder, env=self._environment(), capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, f"{command}: {result.stderr}{result.stdout}"
        return result.stdout.strip()

    def state(self, job: str) -> dict[str, str]:
        """What Slurm says of a job."""
        return dict(part.partition("=")[::2] for part in self.run("scontrol", "show", "job", job).split())

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "SLURM_CONF": str(self.conf)}

    def _start(self) -> None:
        key, munge = self.folder / "munge.key", self.folder / "munge.sock"
        key.write_bytes(b"a key for one test only".ljust(1024, b"."))
        key.chmod(0o400)
        self.folder.chmod(0o755)  # munged wants it so
        host, ports = socket.gethostname().split(".")[0], [free_port() for _ in range(4)]
        for name in ("state", "n1", "n2"):
            (self.folder / name).mkdir()
        self.conf.write_text(
            f"""
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort={ports[0]}
AuthInfo=socket={munge}
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
StateSaveLocation={self.folder}/state
SlurmdSpoolDir={self.folder}/%n
SlurmctldPidFile={self.folder}/ctld.pid
SlurmdPidFile={self.folder}/%n.pid
SlurmctldLogFile={self.folder}/ctld.log
SlurmdLogFile={self.folder}/%n.log
ReturnToService=2
KillWait=5
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 RealMemory=4096 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 RealMemory=4096 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
        )
        files = {"key-file": key, "socket": munge, "pid-file": self.folder / "munged.pid"}
        files |= {"log-file": self.folder / "munged.log", "seed-file": self.folder / "seed"}
        self._spawn("munged", "--foreground", *(f"--{option}={path}" for option, path in files.items()))
        _until(munge.exists, "munged did not start")
        self._spawn("slurmctld", "-D", "-i")
        for node in ("n1", "n2"):
            self._spawn("slurmd", "-D", "-N", node)
        _until(lambda: self.run("sinfo", "-h", "-t", "idle", "-o", "%D") == "2", "the nodes did not come up", 60)

    def _spawn(self, name: str, *arguments: str) -> None:
        path = shutil.which(name) or f"/usr/sbin/{name}"
        with (self.folder / f"{name}.out").open("ab") as out:
            self._processes.append(
                subprocess.Popen([path, *arguments], stdout=out, stderr=out, env=self._environment())
            )


def _until(condition: Callable[[], bool], trouble: str, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if condition():
                return
        except AssertionError:
            pass
        time.sleep(0.2)
    raise AssertionError(trouble)
