"""Etcd's configuration file and its systemd unit: rendered, read back and compared. Pure."""
