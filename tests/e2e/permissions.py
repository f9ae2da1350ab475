"""Which actions of AWS the provider calls in the life of a stack: `python -m tests.e2e.permissions` writes them down.

The stack is made in the lab's API alone, remote steps answer without a machine, so it has everything optional that AWS
offers it: certificate, domain, every kind of change. docs/iam/recorded.json is what the policies there are held to.
"""

import json
from typing import Any

import boto3

from lab.cloud import actions
from lab.preview import engine, stack_file
from lab.preview.tree import Version
from lab.workspace import ROOT, say
from tests.e2e.programs import Edits, changed_program

RECORDED = ROOT / "docs/iam/recorded.json"
REGION = "eu-central-1"

CHANGES: Edits = {
    "configuration/flows.py": [('"packages and images"', '"packages, images and more"')],
    "components/load_balancer.py": [('"interval": 10', '"interval": 20')],
    "components/network.py": [("The one interface of", "The only interface of")],
    "components/virtual_machine.py": [("http_put_response_hop_limit=1", "http_put_response_hop_limit=2")],
}
"""Changes of the program that settings do not make, each of something the provider updates in place."""

CHANGED_SETTINGS = {
    "clientCidrs": ["198.51.100.0/25"],
    "registryDataVolumeSize": "120",
    "runnerInstanceType": "t3.xlarge",
    "tags": {"Project": "gitlab", "Environment": "changed"},
}


def record() -> dict[str, list[str]]:
    """The actions by operation, and under `types` the types of resources that were there. Takes some minutes."""
    found: dict[str, list[str]] = {}
    with (
        engine.api({"regions": [], "images": [], "volumes": [], "addresses": []}) as api,
        changed_program(CHANGES) as changed,
    ):
        here, there = (Version("this clone", folder, "dev") for folder in (ROOT, changed))
        settings = {"deletionProtection": "false", "domain": "git.example.com", **_domain(api)}
        before = _configuration(here, api, settings)
        after = _configuration(here, api, settings | CHANGED_SETTINGS)
        answers = here.facts(before)["answers"]
        throwaway = engine.Throwaway("dev", "gitlab", api, creates=True)

        def operate(name: str, version: Version, given: stack_file.StackFile, *operation: str) -> None:
            throwaway.configure(given)
            actions.forget(api=api)
            throwaway.operate(operation, version.folder, answers)
            found[name] = actions.called(api=api)
            say(f"{name}: {len(found[name])} actions")

        at_once = ("--yes", "--skip-preview")
        operate("up", here, before, "up", *at_once)
        found["types"] = sorted({resource["type"] for resource in throwaway.resources() if resource.get("custom")})
        operate("refresh", here, before, "refresh", *at_once)
        operate("preview", there, after, "preview", "--refresh")
        operate("change", there, after, "up", *at_once)
        operate("destroy", here, before, "destroy", *at_once)
    return {name: [each for each in what if not each.startswith("pulumi:")] for name, what in found.items()}


def _configuration(version: Version, api: str, settings: dict[str, Any]) -> stack_file.StackFile:
    given = version.stack_file()
    given["config"] |= {f"gitlab:{key}": value for key, value in settings.items()}
    lab = stack_file.read(ROOT / "Pulumi.lab.yaml")
    return stack_file.for_the_lab(given, version.project(), lab, api)


def _domain(api: str) -> dict[str, str]:
    """A certificate and a hosted zone. moto's zones are called by any letter, AWS's by Z."""

    def client(service: str) -> Any:
        keys = {"aws_access_key_id": "lab", "aws_secret_access_key": "lab"}
        return boto3.client(service, REGION, endpoint_url=api, **keys)

    certificate = client("acm").request_certificate(DomainName="git.example.com")["CertificateArn"]
    route53, zone, attempt = client("route53"), "", 0
    while not zone.startswith("Z"):
        attempt += 1
        made = route53.create_hosted_zone(Name="example.com.", CallerReference=str(attempt))
        zone = made["HostedZone"]["Id"].rpartition("/")[2]
    return {"certificateArn": certificate, "hostedZoneId": zone}


if __name__ == "__main__":
    RECORDED.write_text(json.dumps(record(), indent=2) + "\n")
