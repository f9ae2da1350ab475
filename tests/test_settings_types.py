"""mypy knows the type of each setting: it reports fields that are mixed up."""

import shutil
import subprocess
import sys

from tests.engine import ROOT

MIXED_UP = [
    ('domain=keys.optional("domain", values.domain)', 'domain=keys.text("networkCidr", values.network)'),
    ('runner_version=keys.text("runnerVersion", values.version)', 'runner_version=keys.number("registryPort", 1, 9)'),
    (
        'acceptance_pipeline=keys.boolean("acceptancePipeline")',
        'acceptance_pipeline=keys.text("domain", values.domain)',
    ),
    ('tags=keys.mapping("tags", values.tag)', 'tags=keys.sequence("runnerTags", values.runner_tag)'),
    (
        'runner_concurrency=keys.number("runnerConcurrency", 1, MOST_JOBS, reason=ONE_NETWORK_PER_JOB)',
        "runner_concurrency=_smtp(keys)",
    ),
    (
        'ssh_private_key=keys.optional_secret("sshPrivateKey", ssh_keys.private_key)',
        'ssh_private_key=keys.number("registryPort", 1, 9)',
    ),
    ('ami_id=keys.optional("amiId", values.ami_id)', 'ami_id=keys.optional("networkCidr", values.network)'),
]


def test_fields_of_settings_that_are_mixed_up_are_errors_of_types(tmp_path):
    shutil.copytree(ROOT / "validation", tmp_path / "validation")
    text = (ROOT / "settings.py").read_text()
    for right, wrong in MIXED_UP:
        assert text.count(right) == 1, right
        text = text.replace(right, wrong)
    (tmp_path / "settings.py").write_text(text)
    lines = [number for number, line in enumerate(text.splitlines(), 1) if any(wrong in line for _, wrong in MIXED_UP)]

    # A separate cache, because the clone's contains the correct file under the same name.
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), "settings.py"]
    checked = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    errors = [line for line in checked.stdout.splitlines() if ": error: " in line]
    assert [int(line.split(":")[1]) for line in errors] == lines, checked.stdout + checked.stderr
    assert all(line.endswith("[arg-type]") for line in errors)
