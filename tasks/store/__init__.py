"""Where snapshots are kept: places for files, and what is streamed there, encrypted or not.

Knows nothing of etcd, hosts or Prefect; the only import of fsspec and of pyrage.
"""
