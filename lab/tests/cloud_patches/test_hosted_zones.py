from moto import mock_aws

from lab.tests.cloud import client


def test_ids_of_hosted_zones_begin_with_z():
    with mock_aws():
        for number in range(5):
            made = client("route53").create_hosted_zone(Name=f"{number}.example.com.", CallerReference=str(number))
            assert made["HostedZone"]["Id"].startswith("/hostedzone/Z")
