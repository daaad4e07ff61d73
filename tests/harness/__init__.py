"""What fault and integration tests use: deployments, traffic, crash points, a proxy, `cqrs`."""
