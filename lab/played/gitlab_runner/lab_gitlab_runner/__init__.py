"""Stand-in for gitlab-runner on the lab's machines: its commands, service and messages, without its code.

Source of behaviour and messages: gitlab-runner v17.10.1, with the docker executor for jobs.
"""

from pathlib import Path

_FILE = Path(__file__).with_name("VERSION")
VERSION = _FILE.read_text().strip() if _FILE.exists() else "17.10.1"
"""The version of the package; in the repository, the default version."""
