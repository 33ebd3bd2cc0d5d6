"""Refusals of one minute, in words and figures."""

from perpetuo.domain.model.events import RefusalMinute
from perpetuo.entrypoints.http.account import iso
from perpetuo.entrypoints.http.admin.facts import Facts


def refusal(row: RefusalMinute) -> Facts:
    return {
        "minute": iso(row.minute_us),
        "tenant": row.tenant_id,
        "key": row.key_name,
        "reason": row.reason,
        "client_ip": row.client_ip or None,
        "count": row.count,
        "first_at": iso(row.first_us),
        "last_at": iso(row.last_us),
        "status": row.sample.get("status"),
        "model": row.sample.get("model"),
        "request_id": row.sample.get("request_id"),
    }
