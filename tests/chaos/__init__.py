"""
Histories under faults: what do clients, the provider, Redis and SQL say of the same ten minutes?

``python -m tests.chaos --seed 7 --seconds 60`` runs gateways, clients and an evil neighbour, then compares. See
`tests.chaos.checker` for what is compared, `tests.chaos.faults` for what goes wrong.
"""
