"""IAM. Its model has the limits, patterns and allowed values; policies are also checked to be JSON."""

import json
from collections.abc import Mapping

from lab.cloud.constraints.kinds import MODEL, Constraint, beyond_model, matches


def _is_document(value: str) -> bool:
    try:
        document = json.loads(value)
    except ValueError:
        return False
    return isinstance(document, dict) and "Statement" in document


DOCUMENT = beyond_model(
    "You must provide policies in JSON format in IAM.",
    _is_document,
    source="iam:PutRolePolicy PolicyDocument",
    code="MalformedPolicyDocument",
    message="Syntax errors in policy.",
)
TRUST = beyond_model(
    "In IAM, you must provide a JSON policy that has been converted to a string.",
    _is_document,
    code="MalformedPolicyDocument",
    message="This policy contains invalid Json",
)
BOUNDARY = beyond_model(
    "The ARN of the managed policy that is used to set the permissions boundary for the role.",
    matches(r"arn:aws[a-z-]*:iam::(\d{12}|aws):policy/.+"),
    message="ARN {value} is not valid.",
)
TAG_KEY = beyond_model(
    "Tag keys cannot begin with aws:",
    lambda value: not value.lower().startswith("aws:"),
    source="IAM User Guide, Tags for IAM resources, rules for tagging",
    code="InvalidInput",
    message="System tags cannot be added/updated by requester: {value}",
)
TAGS = {"Tags.member.N.Key": TAG_KEY, "Tags.member.N.Value": MODEL}
PROFILE, ROLE, POLICY = ({name: MODEL} for name in ("InstanceProfileName", "RoleName", "PolicyName"))

TABLE: Mapping[str, Mapping[str, Constraint]] = {
    "AddRoleToInstanceProfile": {**PROFILE, **ROLE},
    "CreateInstanceProfile": {**PROFILE, "Path": MODEL, **TAGS},
    "CreateRole": {
        "AssumeRolePolicyDocument": TRUST,
        "Description": MODEL,
        "MaxSessionDuration": MODEL,
        "Path": MODEL,
        "PermissionsBoundary": BOUNDARY,
        **ROLE,
        **TAGS,
    },
    "DeleteInstanceProfile": PROFILE,
    "DeleteRole": ROLE,
    "DeleteRolePolicy": {**POLICY, **ROLE},
    "GetInstanceProfile": PROFILE,
    "GetRole": ROLE,
    "GetRolePolicy": {**POLICY, **ROLE},
    "ListAttachedRolePolicies": ROLE,
    "ListInstanceProfilesForRole": ROLE,
    "ListRolePolicies": ROLE,
    "PutRolePolicy": {"PolicyDocument": DOCUMENT, **POLICY, **ROLE},
    "RemoveRoleFromInstanceProfile": {**PROFILE, **ROLE},
    "TagInstanceProfile": {**PROFILE, **TAGS},
    "TagRole": {**ROLE, **TAGS},
    "UntagInstanceProfile": {**PROFILE, "TagKeys.member.N": MODEL},
    "UntagRole": {**ROLE, "TagKeys.member.N": MODEL},
}
"""By action and parameter."""
