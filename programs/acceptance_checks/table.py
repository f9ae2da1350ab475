"""The function of each check, by group; IDs and order are those of configuration/checks.py."""

from typing import Dict

from . import backup_checks, certificate_checks, pipeline_checks, runner_checks, server_checks, update_checks
from .outcomes import Check

CHECKS: Dict[str, Dict[str, Check]] = {
    "server": {
        "target": server_checks.target_healthy,
        "nginx": server_checks.nginx_answers,
        "readiness": server_checks.gitlab_ready,
        "server-backup-fresh": backup_checks.backup_fresh,
        "server-updates": update_checks.updates_installed,
    },
    "runner": {
        "name": runner_checks.name_resolves,
        "balancer": runner_checks.load_balancer_answers,
        "certificate": certificate_checks.certificate_valid,
        "sign-in": runner_checks.sign_in_page,
        "hidden": runner_checks.readiness_hidden,
        "git-ssh": runner_checks.git_over_ssh,
        "issuer": runner_checks.token_issuer_answers,
        "registry": runner_checks.registry_answers,
        "process": runner_checks.runner_runs,
        "docker": runner_checks.docker_knows_registry,
        "online": runner_checks.runner_token_valid,
        "certificate-renewal": certificate_checks.certificate_renewed,
        "runner-updates": update_checks.updates_installed,
    },
    "registry": {
        "registry-backup-fresh": backup_checks.backup_fresh,
        "registry-updates": update_checks.updates_installed,
    },
    "pipeline": {
        "accepted": pipeline_checks.token_accepted,
        "online": pipeline_checks.runner_active,
        "taken": pipeline_checks.job_taken,
        "clone": pipeline_checks.project_cloned,
        "job-token": pipeline_checks.job_token_accepted,
        "push": pipeline_checks.image_pushed,
        "pull": pipeline_checks.image_pulled,
    },
}
