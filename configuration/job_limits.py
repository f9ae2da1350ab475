"""Resource limits for jobs, so that no job starves the others or the runner's machine."""

from dataclasses import dataclass

from settings import Settings

SYSTEM_MEMORY = 1024
"""MiB that the shares of the jobs leave to the system, Docker and gitlab-runner."""
SMALLEST_SHARE = 512
"""MiB that a job always gets, enough for a clone and a small compiler. With many jobs on a small machine, their limits
may add up to more memory than the machine has.
"""
SMALLEST_LIMIT = 128
"""MiB that a job needs to reach its script."""


@dataclass(frozen=True)
class MachineSize:
    """The size of an instance type according to AWS: memory in MiB, and vCPUs."""

    memory: int
    cpus: int


@dataclass(frozen=True)
class JobLimits:
    """The limits of each container of a job: memory in MiB, and vCPUs."""

    memory: int
    cpus: int


def job_limits(settings: Settings, machine: MachineSize) -> JobLimits:
    """The limits from the settings; by default, the job's share of the runner's machine."""
    jobs = settings.runner_concurrency
    share = max((machine.memory - SYSTEM_MEMORY) // jobs, SMALLEST_SHARE)
    return JobLimits(
        memory=settings.runner_job_memory or share,
        cpus=settings.runner_job_cpus or max(machine.cpus // jobs, 1),
    )


def job_limit_problems(settings: Settings, machine: MachineSize) -> list[str]:
    """Limits with which no job could start, each with key, value and remedy."""
    problems = []
    memory, cpus, name = settings.runner_job_memory, settings.runner_job_cpus, settings.runner.instance_type
    if memory and not SMALLEST_LIMIT <= memory <= machine.memory:
        problems.append(
            f"runnerJobMemory: {memory} is not between {SMALLEST_LIMIT} and the {machine.memory} MiB of {name!r}. "
            "Change it, set it to 0 for a share of the machine, or set a larger runnerInstanceType."
        )
    if cpus > machine.cpus:
        # Docker's error would be: "range of CPUs is from 0.01 to ..." (daemon/daemon_unix.go of Moby).
        problems.append(
            f"runnerJobCpus: {cpus}, but {name!r} has {machine.cpus} vCPUs, and Docker rejects a higher limit. "
            f"Set it to at most {machine.cpus}, or set a larger runnerInstanceType."
        )
    return problems
