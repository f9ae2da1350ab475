"""The lab's GitLab package and the product have the same upgrade stops and PostgreSQL versions."""

import re
import subprocess
from pathlib import Path

import pytest

from configuration.upgrade_stops import MINIMUM_POSTGRESQL, REQUIRED_STOPS, minimum_postgresql, stops_before

[SPEC] = (Path(__file__).resolve().parent.parent).rglob("gitlab_ce.spec")


def computed(macro: str, version: str) -> str:
    """Return the value of a macro in the spec for a version: the output of its shell code, as rpm runs it."""
    shell = re.search(rf"^%global {macro} %\(bash -c '\n(.*?)'\)$", SPEC.read_text(), re.MULTILINE | re.DOTALL)
    assert shell
    text = shell[1].replace("%{gitlab_version}", version).replace("%%", "%").replace(r"\\n", r"\n")
    return subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=True).stdout.strip()


def after(stop: str) -> str:
    major, minor = stop.split(".")
    return f"{major}.{int(minor) + 1}.0"


@pytest.mark.parametrize("stop", REQUIRED_STOPS)
def test_the_packages_oldest_release_is_the_last_stop_before_it(stop):
    if stop == "17.8":  # 17.9 also accepts 17.5
        version = "17.10.0"
    elif stop in ("17.11", "18.11"):  # the last of their major versions
        version = f"{int(stop[:2]) + 1}.0.0"
    else:
        version = after(stop)
    assert computed("minimum_version", version) == stops_before(version)[-1] == stop


def test_the_package_has_no_stop_that_the_product_lacks():
    listed = re.findall(r"\d+\.\d+:(\d+\.\d+)", SPEC.read_text())
    assert set(listed) - {"17.5"} == set(REQUIRED_STOPS)


@pytest.mark.parametrize("major", MINIMUM_POSTGRESQL)
def test_the_package_requires_the_same_postgresql_as_the_product(major):
    version = f"{major}.4.0"
    assert computed("minimum_postgresql", version) == str(minimum_postgresql(version))
