"""The etcd JSON gateway: what is asked, what the answers mean, and the one client."""
