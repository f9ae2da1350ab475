"""AWS Certificate Manager. Its model has limits, allowed values and patterns; its prose the rest."""

from collections.abc import Mapping

from lab.cloud.calls import Call, Parameter
from lab.cloud.constraints.kinds import MODEL, Constraint, Refusal, beyond_model, failed, matches, refused_by_model

FIRST_NAME = beyond_model(
    "the length of the domain name (technically, the Common Name) that you provide cannot exceed 64 octets",
    lambda value: len(value) <= 64,
)
KEY_ALGORITHM = beyond_model(
    "Algorithms supported for an ACM certificate request include: RSA_2048 EC_prime256v1 EC_secp384r1 "
    "Other listed algorithms are for imported certificates only.",
    matches("RSA_2048|EC_prime256v1|EC_secp384r1"),
)


def _tag_key(call: Call, parameter: Parameter) -> Refusal | None:
    if parameter.value.lower().startswith("aws:"):
        return failed(call, parameter, "AWS internal tags cannot be changed with this API")
    return refused_by_model(call, parameter)


ARN = {"CertificateArn": MODEL}
TAGS = {
    "Tags.N.Key": Constraint(
        "Tag keys beginning with aws: are reserved for AWS use.",
        "AWS Certificate Manager User Guide, Tag restrictions",
        _tag_key,
    ),
    "Tags.N.Value": MODEL,
}

TABLE: Mapping[str, Mapping[str, Constraint]] = {
    "AddTagsToCertificate": {**ARN, **TAGS},
    "DeleteCertificate": ARN,
    "DescribeCertificate": ARN,
    "ImportCertificate": {
        **ARN,
        "Certificate": MODEL,
        "CertificateChain": MODEL,
        "PrivateKey": MODEL,
        **TAGS,
    },
    "ListTagsForCertificate": ARN,
    "RemoveTagsFromCertificate": {**ARN, **TAGS},
    "RequestCertificate": {
        "DomainName": FIRST_NAME,
        "IdempotencyToken": MODEL,
        "KeyAlgorithm": KEY_ALGORITHM,
        "SubjectAlternativeNames.N": MODEL,
        "ValidationMethod": MODEL,
        **TAGS,
    },
}
"""By action and parameter."""
