"""Work for the tests of job workers; in a module of its own, which other processes can import."""

import os
from pathlib import Path

from talkgs_cli.stages.job_workers import failed
from talkgs_cli.stages.jobs import Job, Problem


def outcome(job: Job, force: bool) -> dict:
    """Writes the job's audio name into its out; one named "dies" ends its process."""
    if "dies" in job.audio:
        os._exit(9)
    if "fails" in job.audio:
        return failed(job, Problem("bad_input", f"{job.audio} can't be said."))
    if "raises" in job.audio:
        raise KeyError(job.audio)
    Path(job.out).write_text(f"{job.audio} {os.environ.get('TALKGS_THREADS')}")
    return {**failed(job, Problem("", "")), "state": "done", "video": job.out, "error": None}
