"""Elastic Load Balancing (v2). Most constraints are in its model; the rest are quoted from AWS's prose."""

import re
from collections.abc import Callable, Mapping

from lab.cloud.calls import Call, Parameter
from lab.cloud.constraints.kinds import (
    MODEL,
    Constraint,
    Refusal,
    between,
    beyond_model,
    matches,
    refused_by_model,
)

VALIDATION_ERROR = "ValidationError"

# --- references ------------------------------------------------------------------------------------------

ARN_FORMS = "Service Authorization Reference, Resource types defined by Elastic Load Balancing V2"


def _arn(what: str, resource: str) -> Constraint:
    return beyond_model(
        f"arn:PARTITION:elasticloadbalancing:REGION:ACCOUNT:{resource}",
        matches(rf"arn:aws[a-z-]*:elasticloadbalancing:[a-z0-9-]+:\d{{12}}:{resource}"),
        source=ARN_FORMS,
        message=f"'{{value}}' is not a valid {what} ARN",
    )


LISTENER = _arn("listener", r"listener/net/[\w-]+/[\w-]+/[\w-]+")
LOAD_BALANCER = _arn("load balancer", r"loadbalancer/net/[\w-]+/[\w-]+")
TARGET_GROUP = _arn("target group", r"targetgroup/[\w-]+/[\w-]+")
RESOURCE = _arn("resource", r"(listener|loadbalancer|targetgroup)/[\w/-]+")
CERTIFICATE = beyond_model(
    "The Amazon Resource Name (ARN) of the certificate.",
    matches(r"arn:aws[a-z-]*:(acm:[a-z0-9-]+|iam:):\d{12}:(certificate|server-certificate)/.+"),
    message="Certificate ARN '{value}' is not valid",
)


def _id(prefix: str, what: str) -> Constraint:
    return beyond_model(
        f"{prefix}- and 8 or 17 hexadecimal digits",
        matches(rf"{prefix}-([0-9a-f]{{8}}|[0-9a-f]{{17}})"),
        source="Amazon EC2 User Guide, Resource IDs",
        message=f"The {what} '{{value}}' is not valid",
    )


TARGET = _id("i", "instance ID")
POLICIES = tuple(
    f"ELBSecurityPolicy-{name}"
    for name in (
        *("TLS13-1-3-2021-06", "TLS13-1-2-Res-2021-06", "TLS13-1-2-2021-06", "TLS13-1-2-Ext1-2021-06"),
        *("TLS13-1-2-Ext2-2021-06", "TLS13-1-1-2021-06", "TLS13-1-0-2021-06"),
        *("TLS13-1-3-FIPS-2023-04", "TLS13-1-2-Res-FIPS-2023-04", "TLS13-1-2-FIPS-2023-04"),
        *("TLS13-1-2-Ext0-FIPS-2023-04", "TLS13-1-2-Ext1-FIPS-2023-04", "TLS13-1-2-Ext2-FIPS-2023-04"),
        *("TLS13-1-1-FIPS-2023-04", "TLS13-1-0-FIPS-2023-04"),
        *("TLS13-1-3-PQ-2025-09", "TLS13-1-2-Res-PQ-2025-09", "TLS13-1-2-PQ-2025-09", "TLS13-1-2-Ext1-PQ-2025-09"),
        *("TLS13-1-2-Ext2-PQ-2025-09", "TLS13-1-0-PQ-2025-09"),
        *("FS-1-2-Res-2020-10", "FS-1-2-Res-2019-08", "FS-1-2-2019-08", "FS-1-1-2019-08", "FS-2018-06"),
        *("TLS-1-2-Ext-2018-06", "TLS-1-2-2017-01", "TLS-1-1-2017-01", "2016-08"),
    )
)
TLS_POLICY = beyond_model(
    "When you create a TLS listener, you must select a security policy.",
    POLICIES.__contains__,
    source="User Guide for Network Load Balancers, Security policies",
    code="SSLPolicyNotFound",
    message="SSL policy '{value}' not found",
)

# --- names and tags --------------------------------------------------------------------------------------

NAME_LIMIT = 32  # characters


def _name(kind: str, action: str, says: str, *, reserved: str | None = None) -> Constraint:
    def refusal(_: Call, parameter: Parameter) -> Refusal | None:
        value = parameter.value
        if len(value) > NAME_LIMIT:
            complaint = f"cannot be longer than '{NAME_LIMIT}' characters"
        elif not re.fullmatch(r"[A-Za-z0-9-]+", value):
            complaint = "can only contain characters that are alphanumeric characters and hyphens(-)"
        elif value.startswith("-") or value.endswith("-"):
            complaint = "cannot begin or end with a hyphen(-)"
        elif reserved and value.startswith(reserved):
            complaint = f"cannot begin with '{reserved}'"
        else:
            return None
        return Refusal(VALIDATION_ERROR, f"{kind} name '{value}' {complaint}")

    return Constraint(says, f"elasticloadbalancing:{action} Name", refusal)


HYPHENS = "can have a maximum of 32 characters, must contain only alphanumeric characters or hyphens, "
BALANCER_NAME = _name(
    "The load balancer",
    "CreateLoadBalancer",
    f'{HYPHENS}must not begin or end with a hyphen, and must not begin with "internal-"',
    reserved="internal-",
)
GROUP_NAME = _name("Target group", "CreateTargetGroup", f"{HYPHENS}and must not begin or end with a hyphen")


def _tag_key(call: Call, parameter: Parameter) -> Refusal | None:
    if parameter.value.lower().startswith("aws:"):
        return Refusal(VALIDATION_ERROR, "aws: prefixed tag key names are not allowed for external use.")
    return refused_by_model(call, parameter)


TAG_KEY = Constraint(
    "Do not use the aws: prefix in your tag names or values because it is reserved for Amazon Web Services use.",
    f"{MODEL.source}; User Guide for Network Load Balancers, Tag a load balancer",
    _tag_key,
)
TAGS = {"Tags.member.N.Key": TAG_KEY, "Tags.member.N.Value": MODEL}

# --- health checks and attributes ------------------------------------------------------------------------


def _is_matcher(value: str) -> bool:
    codes = [code for part in value.split(",") for code in part.split("-", 1)]
    return all(between(200, 599)(code) for code in codes)


HEALTH_CHECK = {
    "HealthCheckEnabled": MODEL,
    "HealthCheckIntervalSeconds": MODEL,
    "HealthCheckPath": beyond_model("The destination for health checks on the targets.", matches(r"/[\x21-\x7e]*")),
    "HealthCheckPort": beyond_model(
        "the default is traffic-port, which is the port on which each target receives traffic",
        lambda value: value == "traffic-port" or between(1, 65535)(value),
        source="elasticloadbalancing:CreateTargetGroup HealthCheckPort",
        message="Health check port '{value}' is not valid",
    ),
    "HealthCheckProtocol": beyond_model(
        "protocols are not supported for health checks",
        matches("HTTP|HTTPS|TCP"),
        message="The health check protocol '{value}' is not supported",
    ),
    "HealthCheckTimeoutSeconds": MODEL,
    "HealthyThresholdCount": MODEL,
    "Matcher.HttpCode": beyond_model(
        "For Network Load Balancers, you can specify values between 200 and 599",
        _is_matcher,
        message="Health check matcher HTTP code '{value}' must be within '200-599' inclusively",
    ),
    "UnhealthyThresholdCount": MODEL,
}

SWITCH = ("The value is true or false.", matches("true|false"))
LIMIT = ("The possible values are off or an integer from 1 to 100.", matches(r"off|[1-9]\d?|100"))

Attributes = Mapping[str, tuple[str, Callable[[str], object]]]
"""By key: what AWS documents for the value, and the check of it."""

OF_TARGET_GROUPS: Attributes = {
    "deregistration_delay.connection_termination.enabled": SWITCH,
    "deregistration_delay.timeout_seconds": ("The range is 0-3600 seconds.", between(0, 3600)),
    "load_balancing.cross_zone.enabled": (
        "The value is true, false or use_load_balancer_configuration.",
        matches("true|false|use_load_balancer_configuration"),
    ),
    "preserve_client_ip.enabled": SWITCH,
    "proxy_protocol_v2.enabled": SWITCH,
    "stickiness.enabled": SWITCH,
    "stickiness.type": ("source_ip for Network Load Balancers.", matches("source_ip")),
    "target_group_health.dns_failover.minimum_healthy_targets.count": (
        "The possible values are off or an integer from 1 to the maximum number of targets.",
        matches(r"off|[1-9]\d*"),
    ),
    "target_group_health.dns_failover.minimum_healthy_targets.percentage": LIMIT,
    "target_group_health.unhealthy_state_routing.minimum_healthy_targets.count": (
        "The possible values are 1 to the maximum number of targets.",
        matches(r"[1-9]\d*"),
    ),
    "target_group_health.unhealthy_state_routing.minimum_healthy_targets.percentage": LIMIT,
    "target_health_state.unhealthy.connection_termination.enabled": SWITCH,
    "target_health_state.unhealthy.draining_interval_seconds": (
        "The range is 0-360000 seconds.",
        between(0, 360000),
    ),
}
TRUE_AND_FALSE = ("The possible values are true and false.", matches("true|false"))
OF_LOAD_BALANCERS: Attributes = {
    "access_logs.s3.enabled": SWITCH,
    "access_logs.s3.bucket": ("The name of the S3 bucket for the access logs.", matches(r"[a-z0-9.-]{0,63}")),
    "access_logs.s3.prefix": ("The prefix for the location in the S3 bucket for the access logs.", matches(".*")),
    "deletion_protection.enabled": SWITCH,
    "dns_record.client_routing_policy": (
        (
            "The possible values are availability_zone_affinity with 100 percent zonal affinity, "
            "partial_availability_zone_affinity with 85 percent zonal affinity, and any_availability_zone"
        ),
        matches("availability_zone_affinity|partial_availability_zone_affinity|any_availability_zone"),
    ),
    "ipv6.deny_all_igw_traffic": ("It is set to false for internet-facing load balancers", matches("true|false")),
    "load_balancing.cross_zone.enabled": TRUE_AND_FALSE,
    "secondary_ips.auto_assigned.per_subnet": ("The valid range is 0 to 7.", between(0, 7)),
    "zonal_shift.config.enabled": TRUE_AND_FALSE,
}
"""Both omit attributes that only application or gateway load balancers have."""


def _attributes(kind: str, action: str, known: Attributes) -> Mapping[str, Constraint]:
    def value_refused(call: Call, parameter: Parameter) -> Refusal | None:
        key = call.beside(parameter, "Key") or ""
        says, holds = known.get(key, ("", lambda _: True))  # an unknown key has its own error
        if holds(parameter.value):
            return None
        return Refusal(VALIDATION_ERROR, f"{kind} attribute value '{parameter.value}' of '{key}' is not valid. {says}")

    source = f"elasticloadbalancing:{action} Attributes.member.N.Key"
    return {
        "Attributes.member.N.Key": beyond_model(
            "The following attributes are supported only by Network Load Balancers"
            if kind == "Target group"
            else "The following attributes are supported by only Network Load Balancers",
            known.__contains__,
            message=f"{kind} attribute key '{{value}}' is not recognized",
        ),
        "Attributes.member.N.Value": Constraint("The name of the attribute.", source, value_refused),
    }


TABLE: Mapping[str, Mapping[str, Constraint]] = {
    "AddTags": {"ResourceArns.member.N": RESOURCE, **TAGS},
    "CreateListener": {
        "Certificates.member.N.CertificateArn": CERTIFICATE,
        "DefaultActions.member.N.Order": MODEL,
        "DefaultActions.member.N.TargetGroupArn": TARGET_GROUP,
        "DefaultActions.member.N.Type": MODEL,
        "LoadBalancerArn": LOAD_BALANCER,
        "Port": MODEL,
        "Protocol": MODEL,
        "SslPolicy": TLS_POLICY,
        **TAGS,
    },
    "CreateLoadBalancer": {
        "Name": BALANCER_NAME,
        "SecurityGroups.member.N": _id("sg", "security group"),
        "SubnetMappings.member.N.AllocationId": _id("eipalloc", "allocation ID"),
        "SubnetMappings.member.N.SubnetId": _id("subnet", "subnet ID"),
        "Type": MODEL,
        **TAGS,
    },
    "CreateTargetGroup": {
        "Name": GROUP_NAME,
        "Port": MODEL,
        "Protocol": MODEL,
        "TargetType": MODEL,
        "VpcId": _id("vpc", "VPC ID"),
        **HEALTH_CHECK,
        **TAGS,
    },
    "DeleteListener": {"ListenerArn": LISTENER},
    "DeleteLoadBalancer": {"LoadBalancerArn": LOAD_BALANCER},
    "DeleteTargetGroup": {"TargetGroupArn": TARGET_GROUP},
    "DeregisterTargets": {
        "TargetGroupArn": TARGET_GROUP,
        "Targets.member.N.Id": TARGET,
        "Targets.member.N.Port": MODEL,
    },
    "DescribeCapacityReservation": {"LoadBalancerArn": LOAD_BALANCER},
    "DescribeListenerAttributes": {"ListenerArn": LISTENER},
    "DescribeListeners": {"ListenerArns.member.N": LISTENER},
    "DescribeLoadBalancerAttributes": {"LoadBalancerArn": LOAD_BALANCER},
    "DescribeLoadBalancers": {"LoadBalancerArns.member.N": LOAD_BALANCER, "Names.member.N": BALANCER_NAME},
    "DescribeTags": {"ResourceArns.member.N": RESOURCE},
    "DescribeTargetGroupAttributes": {"TargetGroupArn": TARGET_GROUP},
    "DescribeTargetGroups": {"Names.member.N": GROUP_NAME, "TargetGroupArns.member.N": TARGET_GROUP},
    "DescribeTargetHealth": {
        "TargetGroupArn": TARGET_GROUP,
        "Targets.member.N.Id": TARGET,
        "Targets.member.N.Port": MODEL,
    },
    "ModifyListener": {
        "Certificates.member.N.CertificateArn": CERTIFICATE,
        "ListenerArn": LISTENER,
        "Port": MODEL,
        "Protocol": MODEL,
        "SslPolicy": TLS_POLICY,
    },
    "ModifyLoadBalancerAttributes": {
        "LoadBalancerArn": LOAD_BALANCER,
        **_attributes("Load balancer", "ModifyLoadBalancerAttributes", OF_LOAD_BALANCERS),
    },
    "ModifyTargetGroup": {"TargetGroupArn": TARGET_GROUP, **HEALTH_CHECK},
    "ModifyTargetGroupAttributes": {
        "TargetGroupArn": TARGET_GROUP,
        **_attributes("Target group", "ModifyTargetGroupAttributes", OF_TARGET_GROUPS),
    },
    "RegisterTargets": {"TargetGroupArn": TARGET_GROUP, "Targets.member.N.Id": TARGET, "Targets.member.N.Port": MODEL},
    "RemoveTags": {"ResourceArns.member.N": RESOURCE, "TagKeys.member.N": MODEL},
}
"""By action and parameter."""
