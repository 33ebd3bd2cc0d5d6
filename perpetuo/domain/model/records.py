"""
How is a value made that every call makes anew?

`record` is `attrs.frozen` for whoever reads and checks the code: assigning to a field is an error of mypy, equality and
hash go by value. At run time it leaves out the guard against assignment: a value of seven fields takes 0.17 µs to
make instead of 0.61 (measured), and a call makes dozens. What is made once per configuration, or seldom, is
`attrs.frozen` itself.
"""

from functools import partial
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from attrs import frozen as record
else:
    record = partial(attrs.define, unsafe_hash=True)

__all__ = ["record"]
