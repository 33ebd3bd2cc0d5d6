"""
What does the core need from outside?

One method per atomic step. Each says what happens when the thing behind it is down.
"""

from perpetuo.domain.ports.budgets import Raises
from perpetuo.domain.ports.calls import BreakerBoard, Client, Journal, Provider, Providers, Stream, System
from perpetuo.domain.ports.events import Admission, EventHistory, EventStore, Found, ProviderCall, WindowSum
from perpetuo.domain.ports.ledger import (
    Counters,
    EventStream,
    Ledger,
    NeverSent,
    RecentRefusals,
    ScopeUsage,
    Seal,
    StoreUnavailable,
    StreamedEvent,
)

__all__ = [
    "Admission",
    "BreakerBoard",
    "Client",
    "Counters",
    "EventHistory",
    "EventStore",
    "EventStream",
    "Found",
    "Journal",
    "Ledger",
    "NeverSent",
    "Provider",
    "ProviderCall",
    "Providers",
    "Raises",
    "RecentRefusals",
    "ScopeUsage",
    "Seal",
    "StoreUnavailable",
    "Stream",
    "StreamedEvent",
    "System",
    "WindowSum",
]
