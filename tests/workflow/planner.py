"""Runs Snakemake's command in a fork of a process that has imported it: a dry run takes half the time.

Reads one request per line, {"folder", "arguments", "stdout", "stderr"} (the last two name files), and answers with
{"status", "cpu"} (CPU seconds). The package of the workflow is not imported here, so that each fork reads it anew.
"""

import json
import os
import sys
import traceback

import ase.data  # noqa: F401 (these imports are for the forks)
import pydantic  # noqa: F401
import snakemake.cli


def run(request: dict) -> int:
    for target, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), target)
    os.chdir(request["folder"])
    sys.argv = ["snakemake", *request["arguments"]]
    try:
        snakemake.cli.main(request["arguments"])
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # the fork must end here, whatever happens
        traceback.print_exc()
        return 1
    return 0


for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        status = run(json.loads(line))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    _, status, usage = os.wait4(pid, 0)
    answer = {"status": os.waitstatus_to_exitcode(status), "cpu": usage.ru_utime + usage.ru_stime}
    print(json.dumps(answer), flush=True)
