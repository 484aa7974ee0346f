"""A Slurm cluster of one node on this machine, of Debian's `slurm-wlm` and `munge`.

    python tests/support/one_node_slurm.py FOLDER -- sbatch docs/train.sbatch

starts one below FOLDER, runs the command with it, and stops it. All that it writes lies in the
folder; whoever runs it is its administrator. Its two GPUs are made up.
"""

import contextlib
import getpass
import os
import pathlib
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

DAEMONS = ("munged", "slurmctld", "slurmd")
# Debian keeps daemons where a user's shell does not look.
PLACES = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
PATIENCE_S = 60

SLURM_CONF = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SwitchType=switch/none
MpiDefault=none
JobRequeue=1
ReturnToService=2
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 Gres=gpu:2 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """What is not installed, as the reason of a skip; "" if all is there."""
    lacking = [name for name in (*DAEMONS, "sbatch", "srun") if _path(name) is None]
    return f"{', '.join(lacking)} not installed (apt install slurm-wlm munge)" if lacking else ""


@contextlib.contextmanager
def cluster(folder: pathlib.Path) -> Iterator[dict[str, str]]:
    """A cluster until the block ends; gives the environment in which sbatch and srun find it.

    folder: of everything it writes; a short path, for it holds a socket.
    """
    folder = folder.resolve()
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    os.chmod(folder, 0o755)
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o600)
    names = {"host": socket.gethostname().partition(".")[0], "user": getpass.getuser()}
    ports = {"controller_port": _free_port(), "node_port": _free_port()}
    (folder / "slurm.conf").write_text(SLURM_CONF.format(folder=folder, **names, **ports))
    # Any devices will do, in the place of GPUs.
    (folder / "gres.conf").write_text("Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n")
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "PATH": PLACES}
    with contextlib.ExitStack() as stack:
        munge = [
            *("munged", "--foreground", "--force", f"--socket={folder}/munge.socket"),
            *(f"--key-file={key}", f"--log-file={folder}/munged.log"),
            *(f"--pid-file={folder}/munged.pid", f"--seed-file={folder}/munged.seed"),
        ]
        stack.enter_context(_daemon(munge, folder, environment))
        _wait(lambda: (folder / "munge.socket").exists(), folder, "munged")
        stack.enter_context(_daemon(["slurmctld", "-D", "-i"], folder, environment))
        stack.enter_context(_daemon(["slurmd", "-D", "-N", names["host"]], folder, environment))
        _wait(lambda: "idle" in _nodes(environment), folder, "slurmctld")
        try:
            yield environment
        finally:
            # Jobs that a failed test left would outlive their daemon.
            cancel = ["scancel", f"--user={names['user']}"]
            subprocess.run(cancel, check=False, env=environment, timeout=PATIENCE_S)
            with contextlib.suppress(TimeoutError):
                _wait(lambda: not _output(["squeue", "-h"], environment), folder, "slurmctld")


@contextlib.contextmanager
def _daemon(
    command: list[str], folder: pathlib.Path, environment: dict[str, str]
) -> Iterator[None]:
    """A process that lives until the block ends; what it says is in FOLDER/NAME.out."""
    with (folder / f"{command[0]}.out").open("w") as said:
        process = subprocess.Popen(
            [str(_path(command[0])), *command[1:]],
            stdout=said,
            stderr=subprocess.STDOUT,
            env=environment,
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _nodes(environment: dict[str, str]) -> str:
    return _output(["sinfo", "--noheader", "--format=%T"], environment)


def _output(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    return done.stdout.strip()


def _wait(ready, folder: pathlib.Path, daemon: str) -> None:
    """TimeoutError with the last lines of a daemon if nothing comes."""
    until = time.monotonic() + PATIENCE_S
    while not ready():
        if time.monotonic() > until:
            said = (folder / f"{daemon}.out").read_text().splitlines()[-10:]
            raise TimeoutError("\n".join([f"{daemon} is not ready:", *said]))
        time.sleep(0.2)


def _path(name: str) -> str | None:
    return shutil.which(name, path=PLACES)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def main() -> int:
    """Runs a command with a cluster; its exit status."""
    folder, command = pathlib.Path(sys.argv[1]), sys.argv[sys.argv.index("--") + 1 :]
    if reason := missing():
        raise SystemExit(reason)
    with cluster(folder) as environment:
        return subprocess.run(command, check=False, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
