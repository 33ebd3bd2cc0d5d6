"""How do routes name what DI hands them? Not validated: both are made by us, and Litestar would try to convert them."""

from typing import Annotated

from litestar.params import Dependency

from perpetuo import bootstrap
from perpetuo.domain.model import tenants

Container = Annotated[bootstrap.Container, Dependency(skip_validation=True)]
Caller = Annotated[tenants.Caller, Dependency(skip_validation=True)]
