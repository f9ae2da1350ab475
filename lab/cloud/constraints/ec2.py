"""EC2. Its model has allowed values and types, but hardly any patterns or limits, which are quoted from AWS's prose."""

import base64
import binascii
import ipaddress
import re
from collections.abc import Mapping

from lab.cloud.calls import Call, Parameter
from lab.cloud.constraints import model
from lab.cloud.constraints.kinds import (
    MODEL,
    PROSE,
    Constraint,
    Refusal,
    between,
    ec2,
    identifier,
    matches,
    network,
    no_constraint,
)

NONE = no_constraint(PROSE)

# --- ids -------------------------------------------------------------------------------------------------


def _id_of(prefix: str, kind: str, what: str) -> Constraint:
    return identifier(prefix, f"Invalid{kind}.NotFound", f"The {what} ID '{{value}}' does not exist")


ADDRESS = _id_of("eipalloc", "AllocationID", "allocation")
ADDRESS_ASSOCIATION = _id_of("eipassoc", "AssociationID", "association")
GATEWAY = _id_of("igw", "InternetGatewayID", "internetGateway")
GROUP = identifier("sg", "InvalidGroupId.Malformed")
IMAGE = identifier("ami", "InvalidAMIID.Malformed")
INSTANCE = identifier("i", "InvalidInstanceID.Malformed")
INTERFACE = identifier("eni", "InvalidNetworkInterfaceId.Malformed")
INTERFACE_ATTACHMENT = identifier("eni-attach", "InvalidNetworkInterfaceAttachmentId.Malformed")
ROUTE_TABLE = identifier("rtb", "InvalidRouteTableId.Malformed")
ROUTE_TABLE_ASSOCIATION = _id_of("rtbassoc", "AssociationID", "association")
RULE = identifier("sgr", "InvalidSecurityGroupRuleId.Malformed")
SNAPSHOT = identifier("snap", "InvalidSnapshotID.Malformed")
PROFILE_ASSOCIATION = _id_of("iip-assoc", "AssociationID", "association")
SUBNET = _id_of("subnet", "SubnetID", "subnet")
VOLUME = identifier("vol", "InvalidVolumeID.Malformed")
VPC = _id_of("vpc", "VpcID", "vpc")
ANY_ID = identifier("[a-z]+(-[a-z]+)*", "InvalidID", "The ID '{value}' is not valid")

CLIENT_TOKEN = ec2("Maximum 64 ASCII characters", matches(r"[\x20-\x7e]{1,64}"), source="ec2:RunInstances ClientToken")

# --- tags ------------------------------------------------------------------------------------------------

TAG_KEY_LIMIT, TAG_VALUE_LIMIT = 128, 256  # characters


def _tag_key(_: Call, parameter: Parameter) -> Refusal | None:
    if not parameter.value:
        complaint = "Tag key cannot be empty"
    elif len(parameter.value) > TAG_KEY_LIMIT:
        complaint = f"Tag key exceeds the maximum length of {TAG_KEY_LIMIT} characters"
    elif parameter.value.lower().startswith("aws:"):
        complaint = "Tag keys starting with 'aws:' are reserved for internal use"
    else:
        return None
    return Refusal("InvalidParameterValue", complaint)


# The API reference has 127 characters; the guide and AWS's own error have 128.
TAG_KEY = Constraint("Maximum key length: 128. May not begin with aws:", "Amazon EC2 User Guide, Tags", _tag_key)
TAG_VALUE = ec2(
    "accept a maximum of 256 Unicode characters",
    lambda value: len(value) <= TAG_VALUE_LIMIT,
    message=f"Tag value exceeds the maximum length of {TAG_VALUE_LIMIT} characters",
)
TAGS = {"ResourceId.N": ANY_ID, "Tag.N.Key": TAG_KEY, "Tag.N.Value": TAG_VALUE}
TAGGED = {
    "TagSpecification.N.ResourceType": MODEL,
    "TagSpecification.N.Tag.N.Key": TAG_KEY,
    "TagSpecification.N.Tag.N.Value": TAG_VALUE,
}
"""The tags of a new resource."""

# --- networks --------------------------------------------------------------------------------------------

BLOCK_SIZE = "The allowed block size is between a /16 netmask and /28 netmask"


def _block(source: str, code: str) -> Constraint:
    return ec2(BLOCK_SIZE, network(16, 28), source=source, code=code, message="The CIDR '{value}' is invalid.")


VPC_BLOCK = _block("Amazon VPC User Guide, VPC CIDR blocks", "InvalidVpc.Range")
SUBNET_BLOCK = _block("Amazon VPC User Guide, Subnet CIDR blocks", "InvalidSubnet.Range")
MALFORMED = "CIDR block {value} is malformed"
DESTINATION = ec2("The IPv4 CIDR", network(), message=MALFORMED)
RANGE = ec2("To specify a single IPv4 address, use the /32 prefix length.", network(), message=MALFORMED)


def _is_ipv6(value: str) -> bool:
    try:
        return ipaddress.IPv6Network(value, strict=False) is not None
    except ValueError:
        return False


RANGE_V6 = ec2("The IPv6 address range.", _is_ipv6, message=MALFORMED)
ZONE_NAME = r"[a-z]{2}(-[a-z]+)+-\d(-[a-z]+-\d)?[a-z]"


def _zone(pattern: str) -> Constraint:
    return ec2(
        "A zone is a Region and a letter, for example us-east-1a; a Local Zone has its location between them.",
        matches(pattern),
        source="Amazon EC2 User Guide, Regions and Zones",
    )


ZONE = _zone(ZONE_NAME)
ZONE_OR_ANY = _zone(f"({ZONE_NAME})?")

# --- security groups -------------------------------------------------------------------------------------

CHARACTERS = r"[a-zA-Z0-9. _\-:/()#,@\[\]+=&;{}!$*]"
"""Characters of the names and descriptions of groups, and of the descriptions of rules."""

VALID_DESCRIPTIONS = (
    "Valid descriptions are strings less than 256 characters from the following set: a-zA-Z0-9. _-:/()#,@[]+=&;{}!$*"
)
RULE_DESCRIPTION = ec2(
    "Up to 255 characters in length. Allowed characters are a-z, A-Z, 0-9, spaces, and ._-:/()#,@[]+=&;{}!$*",
    matches(f"{CHARACTERS}{{0,255}}"),
    source="ec2:AuthorizeSecurityGroupIngress IpPermissions.N.IpRanges.N.Description",
    # hashicorp/terraform-provider-aws issue 18874, aws-cloudformation/cfn-lint issue 173
    message=f"Invalid rule description. {VALID_DESCRIPTIONS}",
)
GROUP_DESCRIPTION = ec2(
    "Up to 255 characters in length Valid characters: a-z, A-Z, 0-9, spaces, and ._-:/()#,@[]+=&;{}!$*",
    matches(f"{CHARACTERS}{{1,255}}"),
    message=f"Invalid security group description. {VALID_DESCRIPTIONS}",  # cds-snc/notification-terraform issue 561
)
GROUP_NAME = ec2(
    "Up to 255 characters in length. Can't start with sg-. "
    "Valid characters: a-z, A-Z, 0-9, spaces, and ._-:/()#,@[]+=&;{}!$*",
    matches(f"(?i:(?!sg-)){CHARACTERS}{{1,255}}"),
)

FROM_PORT = ec2("this is the start of the port range", between(-1, 65535))
TO_PORT = ec2("this is the end of the port range", between(-1, 65535))
PROTOCOL = ec2(
    "The IP protocol name (tcp, udp, icmp, icmpv6) or number (see Protocol Numbers). Use -1 to specify all protocols.",
    lambda value: value in ("tcp", "udp", "icmp", "icmpv6") or between(-1, 255)(value),
)
PERMISSION = {
    "IpPermissions.N.FromPort": FROM_PORT,
    "IpPermissions.N.IpProtocol": PROTOCOL,
    "IpPermissions.N.IpRanges.N.CidrIp": RANGE,
    "IpPermissions.N.ToPort": TO_PORT,
}
AUTHORIZED = {
    "GroupId": GROUP,
    "IpPermissions.N.Groups.N.Description": RULE_DESCRIPTION,
    "IpPermissions.N.Groups.N.GroupId": GROUP,
    "IpPermissions.N.IpRanges.N.Description": RULE_DESCRIPTION,
    **PERMISSION,
    **TAGGED,
}
REVOKED = {"GroupId": GROUP, "SecurityGroupRuleId.N": RULE}

# --- machines and volumes --------------------------------------------------------------------------------

DEVICE = ec2(
    "/dev/sd[a-z] /dev/xvd[a-d][a-z] /dev/xvd[e-z] are available, /dev/sda1 and /dev/xvda are reserved for the root",
    matches(r"(/dev/)?(sd[a-z]([1-9]|1[0-5])?|xvd[a-z]|xvd[a-d][a-z])"),
    source="Amazon EC2 User Guide, Device names for volumes on Amazon EC2 instances",
    message="Value ({value}) for parameter device is invalid. {value} is not a valid EBS device name.",
)
HOPS = ec2("Possible values: Integers from 1 to 64", between(1, 64))
INSTANCES = ec2("Constraints: Between 1 and the quota", between(1, 2**31 - 1))
KEY_NAME = ec2("Up to 255 ASCII characters", matches(r"[\x20-\x7e]{1,255}"), source="ec2:CreateKeyPair KeyName")
SIZES = {
    "gp2": (1, 16384),
    "gp3": (1, 65536),
    "io1": (4, 16384),
    "io2": (4, 65536),
    "st1": (125, 16384),
    "sc1": (125, 16384),
    "standard": (1, 1024),
}
"""Smallest and largest size in GiB, by volume type."""


def _size(call: Call, parameter: Parameter) -> Refusal | None:
    # Without a type, CreateVolume creates gp2, ModifyVolume keeps the current type, and an image has its own.
    kind = call.beside(parameter, "VolumeType") or ("gp2" if call.action == "CreateVolume" else "gp3")
    lowest, highest = SIZES.get(kind, SIZES["gp3"])
    refused = ec2(f"A {kind} volume has {lowest} to {highest} GiB.", between(lowest, highest)).refusal
    return refused(call, parameter)


SIZE = Constraint(
    "gp2: 1 - 16,384 GiB gp3: 1 - 65,536 GiB io1: 4 - 16,384 GiB io2: 4 - 65,536 GiB "
    "st1 and sc1: 125 - 16,384 GiB standard: 1 - 1024 GiB",
    PROSE,
    _size,
)
THROUGHPUT = ec2("Valid Range: Minimum value of 125. Maximum value of 2,000.", between(125, 2000))


def _instance_type(code: str, message: str) -> Constraint:
    """Return the constraint of an instance type: one in botocore's model, with an error of its own."""
    return ec2(
        "an instance type in the model's list",
        lambda value: value in model.shape("ec2", "RunInstances", "InstanceType").enum,
        source=MODEL.source,
        code=code,
        message=message,
    )


INSTANCE_TYPE = _instance_type("InvalidParameterValue", "Invalid value '{value}' for InstanceType.")
DESCRIBED_TYPE = _instance_type("InvalidInstanceType", "The following supplied instance types do not exist: [{value}]")


def _is_public_key(value: str) -> bool:
    try:
        key = base64.b64decode(value, validate=True)
    except binascii.Error:
        return False
    return key.startswith((b"ssh-rsa ", b"ssh-ed25519 ", b"---- BEGIN SSH2 PUBLIC KEY ----", b"MI"))


PUBLIC_KEY = ec2(
    "OpenSSH public key format, Base64 encoded DER format, SSH public key file format (RFC 4716); RSA or ED25519",
    _is_public_key,
    source="Amazon EC2 User Guide, Create a key pair for your Amazon EC2 instance",
    code="InvalidKey.Format",
    message="Key is not in valid OpenSSH public key format",
)

USER_DATA_LIMIT = 16384  # bytes, before base64


def _user_data(_: Call, parameter: Parameter) -> Refusal | None:
    try:
        raw = base64.b64decode(parameter.value, validate=True)
    except binascii.Error:
        return Refusal("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data.")
    if len(raw) > USER_DATA_LIMIT:
        return Refusal("InvalidParameterValue", f"User data is limited to {USER_DATA_LIMIT} bytes")
    return None


USER_DATA = Constraint(
    "User data is limited to 16 KB, in raw form, before it is base64-encoded.",
    "Amazon EC2 User Guide, Run commands when you launch an EC2 instance with user data input",
    _user_data,
)

# --- lookups ---------------------------------------------------------------------------------------------


def _filter_name(call: Call, parameter: Parameter) -> Refusal | None:
    name = re.sub(r"^tag:.*", "tag", parameter.value)
    if re.search(rf"(^|\s){re.escape(name)}(:\S*)? - ", model.prose("ec2", call.action, "Filter")):
        return None
    return Refusal("InvalidParameterValue", f"The filter '{parameter.value}' is invalid")


FILTERS = {
    "Filter.N.Name": Constraint("Filter names are case-sensitive.", PROSE, _filter_name),
    "Filter.N.Value.N": NONE,
}
OWNER = ec2(
    "You can specify a combination of Amazon Web Services account IDs, self, amazon, aws-backup-vault, and "
    "aws-marketplace.",
    matches(r"\d{12}|self|amazon|aws-backup-vault|aws-marketplace"),
    source="ec2:DescribeImages Owner",
)

OWNER_OF_SNAPSHOTS = ec2(
    "You can specify a combination of Amazon Web Services account IDs, self, and amazon.",
    matches(r"\d{12}|self|amazon"),
    source="ec2:DescribeSnapshots Owner",
)
PROFILE_NAME = ec2(
    "1 to 128 characters: upper and lowercase alphanumeric characters, and _+=,.@-",
    matches(r"[\w+=,.@-]{1,128}"),
    source="IAM User Guide, IAM and AWS STS quotas, IAM name requirements",
    message="Value ({value}) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name",
)
PROFILE = {"IamInstanceProfile.Name": PROFILE_NAME}

TABLE: Mapping[str, Mapping[str, Constraint]] = {
    "AllocateAddress": {"Domain": MODEL, **TAGGED},
    "AssociateAddress": {"AllocationId": ADDRESS, "NetworkInterfaceId": INTERFACE},
    "AssociateIamInstanceProfile": {**PROFILE, "InstanceId": INSTANCE},
    "AssociateRouteTable": {"RouteTableId": ROUTE_TABLE, "SubnetId": SUBNET},
    "AttachInternetGateway": {"InternetGatewayId": GATEWAY, "VpcId": VPC},
    "AttachVolume": {"Device": DEVICE, "InstanceId": INSTANCE, "VolumeId": VOLUME},
    "AuthorizeSecurityGroupEgress": AUTHORIZED,
    "AuthorizeSecurityGroupIngress": AUTHORIZED,
    "CreateInternetGateway": TAGGED,
    "CreateNetworkInterface": {
        "ClientToken": CLIENT_TOKEN,
        "Description": NONE,
        "SecurityGroupId.N": GROUP,
        "SubnetId": SUBNET,
        **TAGGED,
    },
    "CreateRoute": {"DestinationCidrBlock": DESTINATION, "GatewayId": GATEWAY, "RouteTableId": ROUTE_TABLE},
    "CreateRouteTable": {"ClientToken": CLIENT_TOKEN, "VpcId": VPC, **TAGGED},
    "CreateSecurityGroup": {"GroupDescription": GROUP_DESCRIPTION, "GroupName": GROUP_NAME, "VpcId": VPC, **TAGGED},
    "CreateSnapshot": {"Description": NONE, "VolumeId": VOLUME, **TAGGED},
    "CreateSubnet": {"AvailabilityZone": ZONE, "CidrBlock": SUBNET_BLOCK, "VpcId": VPC, **TAGGED},
    "CreateTags": TAGS,
    "CreateVolume": {
        "AvailabilityZone": ZONE,
        "ClientToken": CLIENT_TOKEN,
        "Encrypted": MODEL,
        "Size": SIZE,
        "SnapshotId": SNAPSHOT,
        "VolumeType": MODEL,
        **TAGGED,
    },
    "CreateVpc": {
        "AmazonProvidedIpv6CidrBlock": MODEL,
        "CidrBlock": VPC_BLOCK,
        "InstanceTenancy": MODEL,
        **TAGGED,
    },
    "DeleteInternetGateway": {"InternetGatewayId": GATEWAY},
    "DeleteKeyPair": {"KeyName": KEY_NAME},
    "DeleteNetworkInterface": {"NetworkInterfaceId": INTERFACE},
    "DeleteRoute": {"DestinationCidrBlock": DESTINATION, "RouteTableId": ROUTE_TABLE},
    "DeleteRouteTable": {"RouteTableId": ROUTE_TABLE},
    "DeleteSecurityGroup": {"GroupId": GROUP},
    "DeleteSnapshot": {"SnapshotId": SNAPSHOT},
    "DeleteSubnet": {"SubnetId": SUBNET},
    "DeleteTags": TAGS,
    "DeleteVolume": {"VolumeId": VOLUME},
    "DeleteVpc": {"VpcId": VPC},
    "DescribeAddresses": {"AllocationId.N": ADDRESS, **FILTERS},
    "DescribeAddressesAttribute": {"AllocationId.N": ADDRESS, "Attribute": MODEL},
    "DescribeIamInstanceProfileAssociations": FILTERS,
    "DescribeImages": {"ImageId.N": IMAGE, "IncludeDeprecated": MODEL, "Owner.N": OWNER, **FILTERS},
    "DescribeInstanceAttribute": {"Attribute": MODEL, "InstanceId": INSTANCE},
    "DescribeInstanceCreditSpecifications": {"InstanceId.N": INSTANCE},
    "DescribeInstanceTypeOfferings": {"LocationType": MODEL, **FILTERS},
    "DescribeInstanceTypes": {"InstanceType.N": DESCRIBED_TYPE},
    "DescribeInstances": {"InstanceId.N": INSTANCE, **FILTERS},
    "DescribeInternetGateways": {"InternetGatewayId.N": GATEWAY},
    "DescribeKeyPairs": {"KeyName.N": KEY_NAME},
    "DescribeNetworkAcls": FILTERS,
    "DescribeNetworkInterfaces": {"NetworkInterfaceId.N": INTERFACE, **FILTERS},
    "DescribeRouteTables": {"RouteTableId.N": ROUTE_TABLE, **FILTERS},
    "DescribeSecurityGroupRules": {"SecurityGroupRuleId.N": RULE, **FILTERS},
    "DescribeSecurityGroups": {"GroupId.N": GROUP, **FILTERS},
    "DescribeSnapshots": {"NextToken": NONE, "Owner.N": OWNER_OF_SNAPSHOTS, **FILTERS},
    "DescribeSubnets": {"SubnetId.N": SUBNET},
    "DescribeTags": FILTERS,
    "DescribeVolumes": {"VolumeId.N": VOLUME, **FILTERS},
    "DescribeVolumesModifications": {"VolumeId.N": VOLUME},
    "DescribeVpcAttribute": {"Attribute": MODEL, "VpcId": VPC},
    "DescribeVpcs": {"VpcId.N": VPC, **FILTERS},
    "DetachInternetGateway": {"InternetGatewayId": GATEWAY, "VpcId": VPC},
    "DetachNetworkInterface": {"AttachmentId": INTERFACE_ATTACHMENT, "Force": MODEL},
    "DetachVolume": {"Device": DEVICE, "Force": MODEL, "InstanceId": INSTANCE, "VolumeId": VOLUME},
    "DisassociateAddress": {"AssociationId": ADDRESS_ASSOCIATION},
    "DisassociateRouteTable": {"AssociationId": ROUTE_TABLE_ASSOCIATION},
    "GetInstanceUefiData": {"InstanceId": INSTANCE},
    "ImportKeyPair": {"KeyName": KEY_NAME, "PublicKeyMaterial": PUBLIC_KEY, **TAGGED},
    "LockSnapshot": {"LockDuration": MODEL, "LockMode": MODEL, "SnapshotId": SNAPSHOT},
    "ModifyInstanceAttribute": {
        "DisableApiTermination.Value": MODEL,
        "InstanceId": INSTANCE,
        "InstanceType.Value": INSTANCE_TYPE,
    },
    "ModifyInstanceMetadataOptions": {
        "HttpEndpoint": MODEL,
        "HttpProtocolIpv6": MODEL,
        "HttpPutResponseHopLimit": HOPS,
        "HttpTokens": MODEL,
        "InstanceId": INSTANCE,
        "InstanceMetadataTags": MODEL,
    },
    "ModifyNetworkInterfaceAttribute": {"Description.Value": NONE, "NetworkInterfaceId": INTERFACE},
    "ModifySecurityGroupRules": {
        "GroupId": GROUP,
        "SecurityGroupRule.N.SecurityGroupRule.CidrIpv4": RANGE,
        "SecurityGroupRule.N.SecurityGroupRule.Description": RULE_DESCRIPTION,
        "SecurityGroupRule.N.SecurityGroupRule.FromPort": FROM_PORT,
        "SecurityGroupRule.N.SecurityGroupRule.IpProtocol": PROTOCOL,
        "SecurityGroupRule.N.SecurityGroupRule.ToPort": TO_PORT,
        "SecurityGroupRule.N.SecurityGroupRuleId": RULE,
    },
    "ModifyVolume": {"Size": SIZE, "Throughput": THROUGHPUT, "VolumeId": VOLUME},
    "ModifyVpcAttribute": {"EnableDnsHostnames.Value": MODEL, "VpcId": VPC},
    "ReleaseAddress": {"AllocationId": ADDRESS},
    "ReplaceIamInstanceProfileAssociation": {"AssociationId": PROFILE_ASSOCIATION, **PROFILE},
    "RevokeSecurityGroupEgress": {**REVOKED, **PERMISSION, "IpPermissions.N.Ipv6Ranges.N.CidrIpv6": RANGE_V6},
    "RevokeSecurityGroupIngress": REVOKED,
    "RunInstances": {
        "BlockDeviceMapping.N.DeviceName": DEVICE,
        "BlockDeviceMapping.N.Ebs.DeleteOnTermination": MODEL,
        "BlockDeviceMapping.N.Ebs.Encrypted": MODEL,
        "BlockDeviceMapping.N.Ebs.VolumeSize": SIZE,
        "BlockDeviceMapping.N.Ebs.VolumeType": MODEL,
        "ClientToken": CLIENT_TOKEN,
        "CreditSpecification.CpuCredits": ec2("Valid values: standard | unlimited", matches("standard|unlimited")),
        "DisableApiTermination": MODEL,
        "EbsOptimized": MODEL,
        "HibernationOptions.Configured": MODEL,
        **PROFILE,
        "ImageId": IMAGE,
        "InstanceType": INSTANCE_TYPE,
        "KeyName": KEY_NAME,
        "MaxCount": INSTANCES,
        "MetadataOptions.HttpEndpoint": MODEL,
        "MetadataOptions.HttpProtocolIpv6": MODEL,
        "MetadataOptions.HttpPutResponseHopLimit": HOPS,
        "MetadataOptions.HttpTokens": MODEL,
        "MinCount": INSTANCES,
        "Monitoring.Enabled": MODEL,
        "NetworkInterface.N.DeleteOnTermination": MODEL,
        "NetworkInterface.N.DeviceIndex": MODEL,
        "NetworkInterface.N.NetworkCardIndex": MODEL,
        "NetworkInterface.N.NetworkInterfaceId": INTERFACE,
        "Placement.AvailabilityZone": ZONE_OR_ANY,  # the provider sends an empty one
        "UserData": USER_DATA,
        **TAGGED,
    },
    "StartInstances": {"InstanceId.N": INSTANCE},
    "StopInstances": {"Force": MODEL, "InstanceId.N": INSTANCE},
    "TerminateInstances": {"InstanceId.N": INSTANCE},
}
"""By action and parameter."""
