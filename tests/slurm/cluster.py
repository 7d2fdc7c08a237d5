"""A real Slurm of one node on the loopback interface, for tests: all its files in one folder, stopped by process id.

It needs root (slurmd does) and Debian's slurm-wlm and munge; no systemd, no cgroups, no accounting database. Memory
limits are kept by polling, GPUs are empty files that Slurm counts, and a stand-in for sacct asks squeue. Nothing of it
outlives `stop`, except the packages.
"""

import contextlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

DAEMONS = ("munged", "slurmctld", "slurmd")
CLIENTS = ("sbatch", "squeue", "scancel", "scontrol", "sinfo", "srun")
DEFAULT_PLACE = Path("/etc/slurm")

SLURM_CONF = """\
ClusterName=test
SlurmctldHost={node}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
# Each daemon listens on its own address alone; Slurm would listen on all interfaces.
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=UsePss,OverMemoryKill
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/finished.txt
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=5
# More cores than there are: most test jobs sleep.
SlurmdParameters=config_overrides
ReturnToService=2
SlurmctldTimeout=30
SlurmdTimeout=60
InactiveLimit=0
KillWait=5
MinJobAge=3600
GresTypes=gpu
NodeName={node} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} Gres=gpu:{gpus} State=UNKNOWN
PartitionName=cpu Nodes={node} Default=YES MaxTime=2-00:00:00 State=UP
PartitionName=gpu Nodes={node} Default=NO MaxTime=2-00:00:00 State=UP
"""

SACCT = """\
#!/bin/sh
# States from squeue, no reasons: all that Snakemake's plugin asks for.
for word; do
    [ "$previous" = --name ] && exec squeue --states=all --noheader --format='%i|%T' --name "$word"
    previous=$word
done
"""


def missing() -> str | None:
    """Why no Slurm can be started here, or None."""
    if os.name != "posix" or os.geteuid() != 0:
        return "slurmd needs root"
    absent = [name for name in (*DAEMONS, *CLIENTS) if shutil.which(name) is None]
    if absent:
        return f"not installed: {', '.join(absent)} (Debian: apt-get install slurm-wlm munge)"
    configuration = DEFAULT_PLACE / "slurm.conf"
    if not configuration.exists() and not configuration.is_symlink():
        return None
    session = left_over(configuration)
    if session is None:
        return f"this machine has a Slurm of its own ({configuration})"
    if alive := daemons(session):
        listed = ", ".join(alive)
        return f"the Slurm of another test session runs here; if that session was killed, end its daemons: {listed}"
    return None


def left_over(configuration: Path) -> Path | None:
    """Folder of the test session that a configuration file was linked to, there still or gone; None: it is none's."""
    if not configuration.is_symlink():
        return None
    folder = configuration.resolve().parent
    gone = not configuration.exists()
    return folder if gone or ((folder / "munge").is_dir() and (folder / "gres.conf").exists()) else None


def daemons(folder: Path) -> list[str]:
    """The daemons of a session that live, each "name id", by the folder that they work in or were given: pytest clears
    old folders, with the files of ids in them, under daemons that go on."""
    found = []
    for process in psutil.process_iter(["name", "cwd", "cmdline"]):
        name, place, words = (process.info[key] for key in ("name", "cwd", "cmdline"))
        inside = (place or "").removesuffix(" (deleted)") == str(folder)
        if name in DAEMONS and (inside or any(f"{folder}/" in word for word in words or ())):
            found.append(f"{name} {process.pid}")
    return found


def client(*command: str, seconds: float = 30) -> str:
    """Standard output of a Slurm client, empty if it failed or did not end: a sick controller keeps it waiting."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
        return done.stdout.strip() if done.returncode == 0 else ""
    return ""


@dataclass
class Job:
    """A finished Slurm job; time limit [min], memory asked for [MB]."""

    id: str
    state: str
    start: str
    end: str
    minutes: int
    memory: int
    partition: str

    def seconds(self) -> float:
        start, end = (time.mktime(time.strptime(t, "%Y-%m-%dT%H:%M:%S")) for t in (self.start, self.end))
        return end - start


class Cluster:
    """munged, slurmctld and slurmd of their own; `gpus` devices that are counted and nothing more."""

    def __init__(self, folder: Path, gpus: int = 1) -> None:
        self.folder, self.gpus = folder, gpus
        self.node = socket.gethostname().split(".")[0]
        self.cpus = max(4, len(os.sched_getaffinity(0)))
        self.links: list[Path] = []

    def start(self) -> None:
        """Start the three daemons and wait for an idle node.

        Raises:
            RuntimeError: with the end of the daemons' logs, if the node does not come up.
        """
        for name in ("munge", "state", "spool", "bin"):
            (self.folder / name).mkdir(parents=True)
        self.folder.chmod(0o755)
        (self.folder / "bin/sacct").write_text(SACCT)
        (self.folder / "bin/sacct").chmod(0o755)
        self._munge()
        self._configure()
        # The step executor drops SLURM_CONF from the environment of srun: the files have to be where srun looks.
        DEFAULT_PLACE.mkdir(parents=True, exist_ok=True)
        for name in ("slurm.conf", "gres.conf"):
            link = DEFAULT_PLACE / name
            if link.is_symlink() and (not link.exists() or left_over(link) is not None):
                link.unlink()  # of an earlier session that was killed; `missing` saw that its daemons are gone
            link.symlink_to(self.folder / name)
            self.links.append(link)
        self._start_daemons()

    def _configure(self) -> None:
        devices = [self.folder / f"device{i}" for i in range(self.gpus)]
        for device in devices:
            device.touch()
        names = ",".join(map(str, devices))
        (self.folder / "gres.conf").write_text(f"NodeName={self.node} Name=gpu File={names}\n" if devices else "")
        (self.folder / "slurm.conf").write_text(
            SLURM_CONF.format(
                node=self.node,
                folder=self.folder,
                controller_port=free_port(),
                node_port=free_port(),
                cpus=self.cpus,
                memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 9 // 10 // 2**20,
                gpus=self.gpus,
            )
        )

    def _start_daemons(self) -> None:
        self.start_controller()
        subprocess.run(["slurmd", "-N", self.node], check=True, timeout=60)
        self.wait_until(lambda: client("sinfo", "--noheader", "--format=%T").startswith("idle"), "the node is idle")

    def _munge(self) -> None:
        key = self.folder / "munge/key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        places = {"socket": "socket", "key-file": "key", "log-file": "log", "pid-file": "pid", "seed-file": "seed"}
        options = [f"--{option}={self.folder}/munge/{name}" for option, name in places.items()]
        # --force: folders above this one may be writable by others, as /tmp is.
        subprocess.run(["munged", "--force", *options], check=True, timeout=60, capture_output=True)

    def restart(self, gpus: int) -> None:
        """The same Slurm with another number of GPUs; it knows its jobs still."""
        for name in ("slurmd.pid", "slurmctld.pid"):
            end(self.folder / name)
        self.gpus = gpus
        self._configure()
        self._start_daemons()

    def start_controller(self) -> None:
        subprocess.run(["slurmctld"], check=True, timeout=60)

    def kill_controller(self) -> None:
        """Kill slurmctld as a crash would."""
        pid = int((self.folder / "slurmctld.pid").read_text())
        os.kill(pid, signal.SIGKILL)
        while exists(pid):
            time.sleep(0.1)

    def stop(self) -> None:
        """Cancel what is left and end the daemons, by their process ids."""
        self.cancel()
        for name in ("slurmd.pid", "slurmctld.pid", "munge/pid"):
            end(self.folder / name)
        for link in self.links:
            if link.is_symlink():
                link.unlink()

    def cancel(self) -> None:
        """Cancel all jobs, and wait for their ends."""
        for state in ("PENDING", "RUNNING"):
            client("scancel", f"--state={state}")
        limit = time.monotonic() + 20
        while client("squeue", "--noheader") and time.monotonic() < limit:
            time.sleep(0.3)

    def wait_until(self, condition, what: str, seconds: float = 60) -> None:
        limit = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > limit:
                logs = "".join((self.folder / f"{d}.log").read_text()[-2000:] for d in ("slurmctld", "slurmd"))
                raise RuntimeError(f"not within {seconds:.0f} s: {what}\n{logs}")
            time.sleep(0.3)

    def jobs(self) -> dict[str, str]:
        """State of every job that Slurm remembers, by id."""
        lines = client("squeue", "--states=all", "--noheader", "--format=%i %T").splitlines()
        return dict(line.split() for line in lines)

    def finished(self) -> dict[str, Job]:
        """What Slurm wrote about the jobs that ended, by id."""
        path = self.folder / "finished.txt"
        found = {}
        for line in path.read_text().splitlines() if path.exists() else []:
            field = dict(re.findall(r"(\w+)=(\S*)", line))
            found[field["JobId"]] = Job(
                field["JobId"],
                field["JobState"],
                field["StartTime"],
                field["EndTime"],
                int(field["TimeLimit"]),
                int(re.search(r"mem=(\d+)M", field["Tres"])[1]),
                field["Partition"],
            )
        return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def end(pid_file: Path, patience: float = 15) -> None:
    """End the daemon that wrote `pid_file`, by force if asking does not help."""
    if not pid_file.exists():
        return
    pid = int(pid_file.read_text())
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        limit = time.monotonic() + patience
        while exists(pid) and time.monotonic() < limit:
            time.sleep(0.1)
        if not exists(pid):
            return
