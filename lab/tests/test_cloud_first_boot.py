"""The image's own scripts: what differs between two machines, and which calls are only recorded."""

import os
import re
import subprocess

from lab.image import build

SCRIPTS = build.SOURCE / "files/usr/libexec/lab"


def test_no_image_brings_host_keys():
    """Each machine creates its own at first boot, as on EC2, so that a replacement is not mistaken for it."""
    finish = (build.SOURCE / "finish.sh").read_text()
    _, removal, after = finish.partition("\nrm -f /etc/ssh/ssh_host_*\n")
    assert removal
    assert "ssh-keygen" not in after
    assert "apt-get" not in after


def system_users(init, number):
    """Return the arguments of `useradd` in the first process of a new machine, if bash's RANDOM is that number."""
    (block,) = re.findall(r"^if ! id lab-uid-shift .*?^fi$", init, re.MULTILINE | re.DOTALL)
    played = f'id() {{ false; }}; useradd() {{ echo "$@"; }}; RANDOM={number}; {block}'
    return subprocess.run(["bash", "-c", played], capture_output=True, text=True, check=True).stdout


def test_a_second_machine_has_other_system_users_than_the_first():
    """`useradd --system` uses the number below the lowest one in use, so the users of packages are shifted.

    As on RHEL, no number that gitlab.rb pins is in use before GitLab is installed.
    """
    init = (SCRIPTS / "init").read_text()
    asked = {system_users(init, number) for number in range(1, 9)}
    assert len(asked) > 4
    numbers = {int(re.search(r"--system --uid (\d+) ", line)[1]) for line in asked}  # type: ignore[index]
    assert numbers <= set(range(500, 900))
    assert init.index("lab-uid-shift") < init.index("exec /sbin/init")  # before any package is installed


def test_calls_that_only_selinux_could_answer_are_written_down(tmp_path):
    record = tmp_path / "restorecon"
    record.write_text((SCRIPTS / "record").read_text().replace("/var/log/", f"{tmp_path}/"))
    record.chmod(0o755)
    subprocess.run([record, "-R", "/srv/gitlab"], check=True)
    (line,) = (tmp_path / "lab-selinux.log").read_text().splitlines()
    assert line.split(" ", 1)[1] == "restorecon -R /srv/gitlab"
    # SELinux is not reported as enforcing.
    assert subprocess.run([SCRIPTS / "getenforce"], capture_output=True, text=True, check=True).stdout == "Permissive\n"
    assert os.access(SCRIPTS / "getenforce", os.X_OK)
