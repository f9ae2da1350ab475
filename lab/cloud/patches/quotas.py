"""Quotas: how many elastic addresses, VPCs and vCPUs an account may have in a region, and how it gets more."""

import json
from dataclasses import dataclass
from typing import Any

from moto.core.exceptions import JsonRESTError
from moto.core.utils import unix_time, utcnow
from moto.ec2.responses.account_attributes import AccountAttributes
from moto.moto_api._internal import mock_random
from moto.servicequotas.models import ServiceQuotasBackend, servicequotas_backends
from moto.servicequotas.responses import ServiceQuotasResponse

from lab.cloud.patches.correction import correction

SERVICES = {"ec2": "Amazon Elastic Compute Cloud (Amazon EC2)", "vpc": "Amazon Virtual Private Cloud (Amazon VPC)"}


@dataclass(frozen=True)
class Quota:
    """A quota of each region by its codes, with AWS's name and the value that a new account of the lab has."""

    service: str
    code: str
    name: str
    value: int


ELASTIC_ADDRESSES = Quota("ec2", "L-0263D0A3", "EC2-VPC Elastic IPs", 5)
VPCS = Quota("vpc", "L-F678F1CE", "VPCs per Region", 5)
STANDARD_CPUS = Quota(
    "ec2", "L-1216C47A", "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances", 32
)  # AWS's default is 5, too few for a stack; 32 are enough for two of the default types
KNOWN = {(each.service, each.code): each for each in (ELASTIC_ADDRESSES, VPCS, STANDARD_CPUS)}

ATTRIBUTES = ("max-elastic-ips", "vpc-max-elastic-ips")
"""The quota of elastic addresses, as DescribeAccountAttributes names it."""


def allowed(quota: Quota, account: str, region: str) -> int:
    """Return how much the account may have in the region."""
    return int(_raised(servicequotas_backends[account][region]).get(quota, quota.value))


def _raised(backend: Any) -> dict[Quota, int]:
    if not hasattr(backend, "raised"):
        backend.raised = {}
    raised: dict[Quota, int] = backend.raised
    return raised


@correction
def quotas_that_a_stack_needs() -> None:
    """Service Quotas has the quotas of elastic addresses, L-0263D0A3 of ec2, of VPCs, L-F678F1CE of vpc, and of vCPUs
    of standard instances, L-1216C47A of ec2, and raises them on request; EC2 describes the first as an attribute of the
    account, too. AWS answers small requests within minutes, the lab at once. (moto: quotas of VPCs only, no requests,
    and always 5 addresses.)"""
    original_get = ServiceQuotasBackend.get_service_quota
    original_describe = AccountAttributes.describe_account_attributes

    def get_service_quota(self: Any, service_code: str, quota_code: str) -> dict[str, Any]:
        quota = KNOWN.get((service_code, quota_code))
        if quota is None:
            known: dict[str, Any] = original_get(self, service_code, quota_code)
            return known
        return {
            "ServiceCode": quota.service,
            "ServiceName": SERVICES[quota.service],
            "QuotaArn": f"arn:aws:servicequotas:{self.region_name}:{self.account_id}:{quota.service}/{quota.code}",
            "QuotaCode": quota.code,
            "QuotaName": quota.name,
            "Value": float(allowed(quota, self.account_id, self.region_name)),
            "Unit": "None",
            "Adjustable": True,
            "GlobalQuota": False,
        }

    def request_service_quota_increase(self: Any) -> str:
        sent = json.loads(self.body)
        codes = sent["ServiceCode"], sent["QuotaCode"]
        shown = self.backend.get_service_quota(*codes)
        if sent["DesiredValue"] <= shown["Value"]:
            raise JsonRESTError(
                "IllegalArgumentException",
                "You must provide a quota value greater than the current quota value. "
                f"Current value: {shown['Value']}, desired value: {sent['DesiredValue']}",
            )
        if quota := KNOWN.get(codes):
            _raised(self.backend)[quota] = int(sent["DesiredValue"])
        shown = {key: value for key, value in shown.items() if key not in ("Value", "Adjustable")}
        now = unix_time(utcnow())
        made = {"Id": mock_random.get_random_hex(32), "DesiredValue": sent["DesiredValue"], "Status": "PENDING"}
        return json.dumps({"RequestedQuota": {**shown, **made, "Created": now, "LastUpdated": now}})

    def describe_account_attributes(self: Any) -> Any:
        answer = original_describe(self)
        for attribute in answer.result["AccountAttributes"]:
            if attribute["AttributeName"] in ATTRIBUTES:
                value = str(allowed(ELASTIC_ADDRESSES, self.current_account, self.region))
                attribute["AttributeValues"] = [{"AttributeValue": value}]
        return answer

    ServiceQuotasBackend.get_service_quota = get_service_quota
    ServiceQuotasResponse.request_service_quota_increase = request_service_quota_increase
    AccountAttributes.describe_account_attributes = describe_account_attributes
