"""Which JSON does nobody expect at a member of a request? For tests that put each of `VALUES` at each of `MEMBERS`."""

from typing import Any

from perpetuo.adapters.dialects.openai import _WATCHED

MEMBERS = sorted(_WATCHED | {"temperature", "stop", "user", "logit_bias", "Model", "MAX_TOKENS", "", "é", "x\u0000y"})
VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**64, 10**400, 0.5, -0.0, 1e308, "", "m", "auto", "text", "\u0000", "é",
    [], [[]], [{}], [None], [0], [""], ["text", {}], [{"type": []}], [{"type": "function"}], [{"image_url": []}],
    [{"content": [{"type": []}]}], [{"content": [[]]}], [{"content": {}}], [{"content": [{"image_url": {"url": 1}}]}],
    {}, {"": {}}, {"type": "text"}, {"include_usage": []}, {"include_usage": None, "x": [{}]}, {"Include_Usage": True},
]  # fmt: skip
