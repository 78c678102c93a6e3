"""Pure: keys and certificates in memory. Does no I/O and reads no clock."""
