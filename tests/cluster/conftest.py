"""A SLURM of one node with two slots, started for the tests and stopped after them."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue")
CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/ctld.pid
SlurmdPidFile={folder}/d.pid
SlurmctldLogFile={folder}/ctld.log
SlurmdLogFile={folder}/d.log
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Start munge, the controller and the node; yields the folder of their logs. SLURM_CONF is set meanwhile."""
    if os.geteuid() != 0:
        pytest.skip("SLURM can be started by root only")
    for program in PROGRAMS:
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed (Debian: apt install slurm-wlm munge)")
    folder = tmp_path_factory.mktemp("slurm")
    for inner in ("state", "spool"):
        (folder / inner).mkdir()
    host = socket.gethostname().split(".")[0]
    text = CONFIG.format(host=host, folder=folder, controller=free_port(), daemon=free_port())
    (folder / "slurm.conf").write_text(text)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    munge = [f"--key-file={key}", f"--socket={folder}/munge.socket", f"--pid-file={folder}/munge.pid"]
    munge += [f"--log-file={folder}/munge.log", f"--seed-file={folder}/munge.seed", "--force", "--foreground"]
    environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
    commands = [["munged", *munge], ["slurmctld", "-D"], ["slurmd", "-D", "-N", host]]
    processes: list[subprocess.Popen[bytes]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", environment["SLURM_CONF"])
        try:
            for command in commands:
                with (folder / f"{command[0]}.out").open("wb") as output:
                    processes.append(subprocess.Popen(command, env=environment, stdout=output, stderr=output))
                time.sleep(1)
            wait_for_node(folder)
            yield folder
        finally:
            subprocess.run(["scancel", "--user=root"], capture_output=True)
            for process in reversed(processes):
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()


def wait_for_node(folder: Path) -> None:
    """Wait until the node takes jobs."""
    state = ""
    for _ in range(60):
        state = subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True).stdout.strip()
        if state == "idle":
            return
        time.sleep(1)
    logs = "\n".join(path.read_text(errors="replace")[-2000:] for path in folder.glob("*.log"))
    pytest.fail(f"SLURM's node is {state or 'not there'} after a minute:\n{logs}")
