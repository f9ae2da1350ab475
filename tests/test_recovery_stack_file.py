"""The settings of restored stacks and of drills."""

import pytest

from recovery import catalogue, keys, restore, stack_file
from recovery.errors import RecoveryError
from tests.recovery_doubles import SETTINGS, Cloud
from validation import certificates, ssh_keys, values

KEEPS_NOTHING_OF = ("hostedZoneId", "smtpAddress", "smtpPassword", "registryGarbageCollection", "balancerAddressId")


def pair(region="eu-central-1", size=100) -> catalogue.Pair:
    ec2 = Cloud().region(region)
    ec2.add_pair("20261127T230004Z", size=size)
    return catalogue.find(catalogue.pairs(catalogue.snapshots(ec2, "gitlab/prod")))


def restored(chosen=None, source=SETTINGS, **given):
    document = stack_file.restored(source, chosen or pair(), former="acme/prod", **given)
    return document, {key.removeprefix("gitlab:"): value for key, value in document["config"].items()}


def drilled(source=SETTINGS, **given):
    document = stack_file.drilled(
        source,
        pair(),
        former="prod",
        caller="192.0.2.9/32",
        public_key="ssh-ed25519 AAAA drill",
        certificate="CERTIFICATE",
        authority="AUTHORITY",
        **given,
    )
    return {key.removeprefix("gitlab:"): value for key, value in document["config"].items()}


def test_a_restored_stack_is_the_former_one_with_the_data_of_the_backup():
    document, config = restored()
    assert config["serverDataSnapshotId"] == "snap-server-20261127T230004Z"
    assert config["registryDataSnapshotId"] == "snap-registry-20261127T230004Z"
    assert config["gitlabVersion"] == "17.10.4"
    assert config["runnerName"] == "gitlab-prod"
    assert "balancerAddressId" not in config
    for kept in ("domain", "hostedZoneId", "smtpAddress", "smtpPassword", "gitlabRb", "amiId", "availabilityZone"):
        assert config[kept] == SETTINGS["config"][f"gitlab:{kept}"]
    assert document["encryptionsalt"] == "v1:salt"
    assert stack_file.is_of(document, pair())
    assert not stack_file.is_of(SETTINGS, pair())


def test_the_source_is_not_changed():
    before = repr(SETTINGS)
    restored()
    drilled()
    assert repr(SETTINGS) == before


def test_a_runner_that_was_restored_before_keeps_its_name():
    source = {**SETTINGS, "config": {**SETTINGS["config"], "gitlab:runnerName": "gitlab-first"}}
    assert restored(source=source)[1]["runnerName"] == "gitlab-first"


@pytest.mark.parametrize(("size", "expected"), [(100, None), (101, "101"), (10, None)])
def test_volumes_are_at_least_as_large_as_their_snapshots(size, expected):
    config = restored(pair(size=size))[1]
    assert config.get("serverDataVolumeSize") == expected
    assert config.get("registryDataVolumeSize") == expected


def test_another_region_has_other_zones_and_images():
    config = restored(pair("eu-west-1"))[1]
    assert (config["aws:region"], config["availabilityZone"]) == ("eu-west-1", "eu-west-1b")
    assert "amiId" not in config
    assert restored(pair("eu-west-1"), zone="eu-west-1c")[1]["availabilityZone"] == "eu-west-1c"


def test_overrides_win():
    assert restored(overrides={"networkCidr": "10.9.0.0/16"})[1]["networkCidr"] == "10.9.0.0/16"
    assert drilled(overrides={"serverInstanceType": "m6i.large"})["serverInstanceType"] == "m6i.large"


def test_secrets_that_only_pulumi_cloud_can_decrypt_are_not_copied_as_text():
    source = {"config": SETTINGS["config"]}
    assert stack_file.encrypted_keys(source) == ["gitlab:smtpPassword", "gitlab:gitlabRb"]
    assert "gitlabRb" not in restored(source=source)[1]
    assert stack_file.encrypted_keys(SETTINGS) == []


def test_a_drill_reaches_no_one_and_is_reached_by_the_caller_only():
    config = drilled()
    assert not set(KEEPS_NOTHING_OF) & set(config)
    assert config["adminCidrs"] == config["clientCidrs"] == ["192.0.2.9/32"]
    assert (config["drill"], config["backup"], config["deletionProtection"]) == ("true", "false", "false")
    assert (config["domain"], config["certificatePem"], config["certificateAuthority"]) == (
        *("gitlab-drill.internal", "CERTIFICATE", "AUTHORITY"),
    )
    assert config["runnerName"] == "gitlab-prod-drill"
    assert config["tags"] == {"Project": "gitlab", "gitlab-drill": "true"}
    assert config["securityUpdates"] == ""
    assert config["gitlabRb"] == {"secure": "v1:lines"}


@pytest.mark.parametrize("own", ["10.142.0.0/20", "10.42.0.0/16", "172.30.4.0/24"])
def test_the_network_of_a_drill_is_another_one(own):
    source = {**SETTINGS, "config": {**SETTINGS["config"], "gitlab:networkCidr": own}}
    assert not values.network(drilled(source)["networkCidr"]).overlaps(values.network(own))


def test_the_settings_of_a_left_over_drill_can_be_decrypted():
    assert stack_file.left_over(SETTINGS, "eu-west-1") == {
        "encryptionsalt": "v1:salt",
        "config": {"aws:region": "eu-west-1"},
    }


def test_a_file_that_is_missing_or_of_another_kind_is_refused(tmp_path):
    with pytest.raises(RecoveryError, match="--settings FILE"):
        stack_file.read(tmp_path / "Pulumi.prod.yaml")
    (tmp_path / "Pulumi.prod.yaml").write_text("name: gitlab\n")
    with pytest.raises(RecoveryError, match="not a stack file"):
        stack_file.read(tmp_path / "Pulumi.prod.yaml")
    (tmp_path / "Pulumi.prod.yaml").write_text("config: {gitlab:domain: git.example.com}\n")
    with pytest.raises(RecoveryError, match="aws:region is missing"):
        stack_file.region(stack_file.read(tmp_path / "Pulumi.prod.yaml"))


def test_the_generated_keys_and_certificates_are_accepted_by_the_settings():
    ssh = keys.key_pair("prod-drill")
    assert ssh_keys.public_key(ssh.public) == ssh.public
    assert ssh_keys.pair_problems(ssh.public, ssh_keys.private_key(ssh.private)) == []
    tls = keys.server_certificate(stack_file.DRILL_DOMAIN)
    certificates.check(
        certificates.certificate(tls.certificate),
        certificates.private_key(tls.private_key),
        certificates.authority(tls.authority),
        stack_file.DRILL_DOMAIN,
    )
    assert certificates.warnings(tls.certificate, tls.authority) == []
    with pytest.raises(ValueError, match="certificatePem"):
        certificates.check(tls.certificate, tls.private_key, tls.authority, "git.example.com")
    other = keys.server_certificate(stack_file.DRILL_DOMAIN)
    with pytest.raises(ValueError, match="certificate"):
        certificates.check(tls.certificate, tls.private_key, other.authority, stack_file.DRILL_DOMAIN)


def test_a_file_is_read_as_pulumi_reads_it(tmp_path):
    """`pulumi config --json` of these lines has texts, except for the last four."""
    file = tmp_path / "Pulumi.prod.yaml"
    lines = "{time: 12:30, day: 2026-11-29, tag: yes, country: NO, version: 17.10.4, n: 200, on: true, x: 1.5, none: ~}"
    file.write_text(f"config: {lines}\n")
    found = stack_file.read(file)
    texts = {"time": "12:30", "day": "2026-11-29", "tag": "yes", "country": "NO", "version": "17.10.4"}
    assert found["config"] == {**texts, "n": 200, "on": True, "x": 1.5, "none": None}
    found["config"] |= {"account": "012345678901", "center": "00812", "exponent": "12e5"}
    stack_file.write(file, found)
    assert stack_file.read(file) == found
    assert "time: '12:30'" in file.read_text()
    assert restore._assignment("securityUpdates=22:00") == ("securityUpdates", "22:00")
