"""Steps on the hosts, as Prefect tasks; each folder here is plain Python without Prefect."""
