"""Where secrets come from: never the secrets themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from tasks.model.certificates import Strict


class SecretSource(Strict):
    """Where a secret lies: exactly one place."""

    block: str | None = Field(None, description="A Prefect Secret block.", examples=["etcd-ca"])
    env: str | None = Field(None, description="An environment variable.", examples=["ETCD_CA"])
    file: Path | None = Field(None, description="A file of mode 0600.", examples=["passphrase"])

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if sum(part is not None for part in (self.block, self.env, self.file)) != 1:
            msg = "exactly one of block, env and file is needed"
            raise ValueError(msg)
        return self


class Passphrase(SecretSource):
    """Where the passphrase of the authority's key comes from; never the passphrase itself."""


class KeyPassphrase(SecretSource):
    """Where the passphrase of an SSH key comes from; never the passphrase itself."""


class Password(SecretSource):
    """Where the password of etcd's user comes from; never the password itself."""


class EtcdUser(Strict):
    """As whom etcd is asked where its authentication (RBAC) is on; it needs the role root."""

    user: str = Field(min_length=1, max_length=256, examples=["etcd-runbooks"])
    password: Password
