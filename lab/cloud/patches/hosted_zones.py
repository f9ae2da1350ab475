"""Hosted zones of Route 53."""

from typing import Any

from moto.route53 import models
from moto.route53.exceptions import Route53ClientError

from lab.cloud.patches.correction import correction

Key = tuple[str, str, str | None]
"""A record's name, its type, and the identifier of one of several with both."""


def _present(zone: Any) -> set[Key]:
    return {(record.name.lower(), record.type, record.set_identifier) for record in zone.rrsets}


def _key(record: dict[str, Any]) -> Key:
    return record["Name"].strip(".").lower() + ".", record["Type"], record.get("SetIdentifier")


@correction
def ids_of_hosted_zones_begin_with_z() -> None:
    """AWS's ids of hosted zones begin with Z (moto: any letter or digit), and calls accept no others. Related upstream:
    getmoto/moto#1044 (closed), getmoto/moto#8988 (closed)."""
    original = models.create_route53_zone_id

    def create_route53_zone_id(*arguments: Any, **named: Any) -> str:
        return f"Z{original(*arguments, **named)[1:]}"

    models.create_route53_zone_id = create_route53_zone_id


@correction
def records_are_created_when_absent_and_deleted_when_present() -> None:
    """AWS refuses to create a record that exists, and to delete one that does not (moto: it decides by its journal of
    changes, so that a record deleted before cannot be created again while the zone has a record that follows it, one
    with other values is created beside the first, and one is deleted twice). Related upstream: getmoto/moto#5059
    (closed)."""
    original = models.Route53Backend.change_resource_record_sets

    def change_resource_record_sets(self: Any, zoneid: str, change_list: list[dict[str, Any]]) -> None:
        zone = self.get_hosted_zone(zoneid)
        present = _present(zone)
        for change in change_list:
            key = name, kind, _ = _key(change["ResourceRecordSet"])
            if change["Action"] == "CREATE" and key in present:
                raise models.ResourceRecordAlreadyExists(name, kind)
            if change["Action"] == "DELETE":
                if key not in present:
                    message = f"Tried to delete resource record set [name='{name}', type='{kind}'] but it was not found"
                    raise Route53ClientError("InvalidChangeBatch", message)
                present.remove(key)
            else:
                present.add(key)
        original(self, zoneid, change_list)
        for change in zone.rr_changes:
            if change["Action"] == "CREATE":
                change["Action"] = "UPSERT"  # moto looks for former CREATEs in its journal, and refuses an equal one

    models.Route53Backend.change_resource_record_sets = change_resource_record_sets


@correction
def a_cname_has_no_record_beside_it() -> None:
    """AWS refuses a CNAME record if its name has a record of another type, and one of another type if the name has a
    CNAME. At the top of a zone there is no CNAME. (moto: any types beside each other.)"""
    original = models.Route53Backend.change_resource_record_sets

    def change_resource_record_sets(self: Any, zoneid: str, change_list: list[dict[str, Any]]) -> None:
        zone = self.get_hosted_zone(zoneid)
        top = zone.name.strip(".").lower() + "."
        present = _present(zone)
        for change in change_list:
            key = name, kind, _ = _key(change["ResourceRecordSet"])
            if change["Action"] == "DELETE":
                present.discard(key)
                continue
            others = {type_ for found, type_, _ in present if found == name} - {kind}
            refused = f"RRSet of type {kind} with DNS name {name} is not permitted"
            if kind == "CNAME" and name == top:
                raise Route53ClientError("InvalidChangeBatch", f"[{refused} at apex in zone {top}]")
            if kind == "CNAME" and others:
                why = f"as it conflicts with other records with the same DNS name in zone {top}"
                raise Route53ClientError("InvalidChangeBatch", f"[{refused} {why}]")
            if "CNAME" in others:
                why = "because a conflicting RRSet of type CNAME with the same DNS name already exists in zone"
                raise Route53ClientError("InvalidChangeBatch", f"[{refused} {why} {top}]")
            present.add(key)
        original(self, zoneid, change_list)

    models.Route53Backend.change_resource_record_sets = change_resource_record_sets
