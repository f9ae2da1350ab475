"""The monthly cost of a stack: the sum of the price list, with items that are not priced marked as such."""

import re
from decimal import Decimal
from pathlib import Path

import pytest

from configuration.cost import PRICES, CostLine, cost, cost_table, dollars, running, total
from configuration.flows import MACHINES
from tests.test_settings import load

ROOT = Path(__file__).resolve().parent.parent
COST_PAGE = (ROOT / "docs/cost.md").read_text()
US = {"aws__region": "us-east-1", "availabilityZone": "us-east-1a"}


def lines(**changes) -> dict[str, Decimal | None]:
    return {line.item: line.monthly for line in cost(load(**US | changes))}


def test_the_default_sizes_cost_what_a_calculator_says():
    assert {item: dollars(amount) for item, amount in lines().items()} == {
        "server, m6i.xlarge": "$140.16",
        "registry, t3.small": "$15.18",
        "runner, t3.large": "$60.74",
        "Red Hat Enterprise Linux, 8 vCPU": "$84.10",
        "gp3 volumes, 330 GiB": "$26.40",
        "snapshots of the data volumes, if 100 GB": "$5.00",
        "network load balancer, one capacity unit": "$20.81",
        "4 public IPv4 addresses": "$14.60",
        "traffic to clients, if 200 GB": "$9.00",
        "traffic of jobs, if 200 GB": "$4.00",
    }


def test_a_copy_for_some_hours_pays_for_what_exists_and_not_for_use():
    settings = load(**US)
    machines = dict(zip(MACHINES, (settings.server, settings.registry, settings.runner), strict=True))
    listed = {line.item: line.monthly for line in running(machines, "us-east-1")}
    paid_by_use = {item for item in lines() if "traffic" in item or "snapshots" in item}
    assert listed == {item: amount for item, amount in lines().items() if item not in paid_by_use}


def test_a_certificate_for_tls_costs_nothing():
    assert lines(domain="git.example.com")["certificate for TLS"] == 0
    assert "certificate for TLS" not in lines()


def test_without_backups_no_snapshots_are_paid():
    assert not [item for item in lines(backup="false") if "snapshots" in item]


def test_the_table_of_the_page_on_cost_is_that_of_the_default_sizes_and_the_readme_has_its_sum():
    table = cost_table(cost(load(**US)))
    assert table in COST_PAGE
    [total] = re.findall(r"\*\*total\*\* \| \*\*(\$[\d.]+)\*\*", table)
    assert f"**Cost:** {total} a month with the default sizes in us-east-1" in (ROOT / "README.md").read_text()


def test_the_page_on_cost_says_what_a_runner_that_is_always_busy_pays_beside_and_which_type_does_not():
    # T3 instances launch as unlimited: 0.05 per vCPU-hour above the baseline, which is 30 % per vCPU of a t3.large.
    surplus = PRICES["vcpus"]["t3.large"] * (1 - Decimal("0.3")) * Decimal("0.05") * 730
    steady = lines(runnerInstanceType="m6i.large")["runner, m6i.large"]
    assert f"a t3.large that builds all month pays {dollars(surplus)} more" in COST_PAGE
    assert f"An m6i.large as `runnerInstanceType` is {dollars(steady)}" in COST_PAGE


def test_a_larger_machine_costs_more_and_so_does_its_red_hat_fee():
    larger = lines(serverInstanceType="m6i.2xlarge")
    assert larger["server, m6i.2xlarge"] == Decimal("0.384") * 730
    assert larger["Red Hat Enterprise Linux, 12 vCPU"] == Decimal("0.0144") * 12 * 730


def test_the_fee_of_more_than_twelve_vcpu_is_the_lower_one():
    amount = lines(serverInstanceType="m6i.4xlarge")["Red Hat Enterprise Linux, 20 vCPU"]
    assert amount == (Decimal("0.0108") * 16 + Decimal("0.0144") * 4) * 730


def test_volumes_count_with_roots():
    assert lines(registryDataVolumeSize="500")["gp3 volumes, 730 GiB"] == Decimal("58.4")


def test_an_instance_type_without_a_price_is_not_priced_and_neither_is_the_sum():
    shown = cost_table(cost(load(runnerInstanceType="c7i.48xlarge", **US)))
    assert "| runner, c7i.48xlarge | not priced |" in shown
    assert "| Red Hat Enterprise Linux | not priced |" in shown
    assert shown.endswith("** |")
    assert "plus items that are not priced**" in shown


def test_a_region_without_prices_is_not_priced_and_never_free():
    elsewhere = cost(load(aws__region="sa-east-1", availabilityZone="sa-east-1a"))
    priced = [line.item for line in elsewhere if line.monthly is not None]
    assert priced == ["Red Hat Enterprise Linux, 8 vCPU", "4 public IPv4 addresses"]
    assert "$0" not in cost_table(elsewhere)


def test_a_stack_of_which_nothing_is_priced_has_no_sum():
    assert "| **total** | **not priced** |" in cost_table([CostLine("anything", None)])


def test_amounts_are_to_the_cent_and_thousands_are_told_apart():
    assert dollars(Decimal("1234.565")) == "$1,234.57"
    assert total([CostLine("a", Decimal("1.5")), CostLine("b", None)]) == Decimal("1.5")


@pytest.mark.parametrize("region", sorted(PRICES["regions"]))
def test_every_region_of_the_list_prices_the_default_sizes(region):
    assert all(line.monthly for line in cost(load(aws__region=region, availabilityZone=f"{region}a")))


def test_every_type_of_the_list_has_its_vcpus():
    for region in PRICES["regions"].values():
        assert set(region["instanceHour"]) <= set(PRICES["vcpus"])


def test_addresses_are_those_of_the_graph(graph):
    assert len(graph.of_type("aws:ec2/eip:Eip")) == len(MACHINES) + 1
