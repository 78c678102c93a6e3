"""What etcd's authentication (RBAC) keeps this engine from, and the way out of each.

Which calls ask for a user differs: 3.4.23 and 3.5.16 ask for keys, snapshots and changes of the
members, and since 3.5.30, 3.6.16 and 3.7.3 every call but /health and the log-in itself does.
"""

from __future__ import annotations

USER = "etcd-runbooks"

AUTHENTICATION_IS_ON = (
    "etcd's authentication (RBAC) is on, and it was asked as none of its users: that alone is why "
    "the members cannot be seen or changed. They may be well (/health answers). Make a user with "
    "the role root, which changes of the members, snapshots and moves of the leader need:\n"
    f"    etcdctl --user root user add {USER}\n"
    f"    etcdctl --user root user grant-role {USER} root\n"
    "(beside the --endpoints, --cacert, --cert and --key that etcdctl wants there), and name it "
    "in the inventory, with where its password is (file, env or block):\n"
    f"    login: {{user: {USER}, password: {{file: etcd-password}}}}\n"
    "Where it is named there: a run logs in with a certificate that it makes with the authority's "
    "key, never on the hosts with the members' own pairs"
)

UNKNOWN_USER = (
    "etcd does not let the inventory's login.user in: there is no such user, or what "
    "login.password points to is not its password. `etcdctl --user root user list` tells the "
    "users; `etcdctl --user root user passwd NAME` gives one another password"
)

NO_RIGHTS = (
    "etcd lets the inventory's login.user in and then denies it what is asked: it lacks the role "
    "root. `etcdctl --user root user grant-role NAME root` gives it"
)

STALE_LOGIN = (
    "it does not know the token of this run's log-in (yet): it has just started, or lags behind"
)
