"""Quotas: how many elastic addresses an account may have in a region, and how it gets more."""

import json
from typing import Any

from moto.core.exceptions import JsonRESTError
from moto.core.utils import unix_time, utcnow
from moto.ec2.responses.account_attributes import AccountAttributes
from moto.moto_api._internal import mock_random
from moto.servicequotas.models import ServiceQuotasBackend, servicequotas_backends
from moto.servicequotas.responses import ServiceQuotasResponse

from lab.cloud.patches.correction import correction

SERVICE, ELASTIC_ADDRESSES = "ec2", "L-0263D0A3"
DEFAULT_ELASTIC_ADDRESSES = 5  # of a region
ATTRIBUTES = ("max-elastic-ips", "vpc-max-elastic-ips")
"""The same quota, as DescribeAccountAttributes names it."""


def elastic_addresses(account: str, region: str) -> int:
    """Return how many elastic addresses the account may have in the region."""
    return int(getattr(servicequotas_backends[account][region], "elastic_addresses", DEFAULT_ELASTIC_ADDRESSES))


def _is_elastic_addresses(service_code: str, quota_code: str) -> bool:
    return (service_code, quota_code) == (SERVICE, ELASTIC_ADDRESSES)


@correction
def quota_of_elastic_addresses() -> None:
    """Service Quotas has the quota of elastic addresses, L-0263D0A3 of ec2, and raises it on request; EC2 describes the
    same number as an attribute of the account. AWS answers small requests within minutes, the lab at once. (moto:
    quotas of VPCs only, no requests, and always 5.)"""
    original_get = ServiceQuotasBackend.get_service_quota
    original_describe = AccountAttributes.describe_account_attributes

    def get_service_quota(self: Any, service_code: str, quota_code: str) -> dict[str, Any]:
        if not _is_elastic_addresses(service_code, quota_code):
            known: dict[str, Any] = original_get(self, service_code, quota_code)
            return known
        return {
            "ServiceCode": SERVICE,
            "ServiceName": "Amazon Elastic Compute Cloud (Amazon EC2)",
            "QuotaArn": f"arn:aws:servicequotas:{self.region_name}:{self.account_id}:{SERVICE}/{ELASTIC_ADDRESSES}",
            "QuotaCode": ELASTIC_ADDRESSES,
            "QuotaName": "EC2-VPC Elastic IPs",
            "Value": float(elastic_addresses(self.account_id, self.region_name)),
            "Unit": "None",
            "Adjustable": True,
            "GlobalQuota": False,
        }

    def request_service_quota_increase(self: Any) -> str:
        sent = json.loads(self.body)
        quota = self.backend.get_service_quota(sent["ServiceCode"], sent["QuotaCode"])
        if sent["DesiredValue"] <= quota["Value"]:
            raise JsonRESTError(
                "IllegalArgumentException",
                "You must provide a quota value greater than the current quota value. "
                f"Current value: {quota['Value']}, desired value: {sent['DesiredValue']}",
            )
        if _is_elastic_addresses(sent["ServiceCode"], sent["QuotaCode"]):
            self.backend.elastic_addresses = int(sent["DesiredValue"])
        shown = {key: value for key, value in quota.items() if key not in ("Value", "Adjustable")}
        now = unix_time(utcnow())
        made = {"Id": mock_random.get_random_hex(32), "DesiredValue": sent["DesiredValue"], "Status": "PENDING"}
        return json.dumps({"RequestedQuota": {**shown, **made, "Created": now, "LastUpdated": now}})

    def describe_account_attributes(self: Any) -> Any:
        answer = original_describe(self)
        for attribute in answer.result["AccountAttributes"]:
            if attribute["AttributeName"] in ATTRIBUTES:
                value = str(elastic_addresses(self.current_account, self.region))
                attribute["AttributeValues"] = [{"AttributeValue": value}]
        return answer

    ServiceQuotasBackend.get_service_quota = get_service_quota
    ServiceQuotasResponse.request_service_quota_increase = request_service_quota_increase
    AccountAttributes.describe_account_attributes = describe_account_attributes
